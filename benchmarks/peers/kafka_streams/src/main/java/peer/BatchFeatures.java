package peer;

import com.github.benmanes.caffeine.cache.Caffeine;
import com.github.benmanes.caffeine.cache.LoadingCache;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import redis.clients.jedis.JedisPooled;

/** Batch features of an account. */
interface BatchFeatures {
  float[] read(String account);

  /**
   * As Feast stores them: a hash for each entity, a protobuf value for each field.
   *
   * @param key what comes before and after length and name in an entity's key, in hexadecimal
   * @param fields the hashed names of the features, in hexadecimal
   */
  static BatchFeatures inRedis(String url, String key, String fields) {
    JedisPooled redis = new JedisPooled(URI.create(url));
    HexFormat hexadecimal = HexFormat.of();
    byte[][] around = Arrays.stream(key.split(",")).map(hexadecimal::parseHex).toArray(byte[][]::new);
    byte[][] names = Arrays.stream(fields.split(",")).map(hexadecimal::parseHex).toArray(byte[][]::new);
    return account -> {
      byte[] name = account.getBytes(StandardCharsets.UTF_8);
      ByteBuffer entity = ByteBuffer.allocate(around[0].length + 4 + name.length + around[1].length);
      entity.order(ByteOrder.LITTLE_ENDIAN);
      entity.put(around[0]).putInt(name.length).put(name).put(around[1]);
      List<byte[]> values = redis.hmget(entity.array(), names);
      float[] read = new float[names.length];
      for (int place = 0; place < read.length; place++) {
        byte[] value = values.get(place);
        read[place] = value == null || value.length == 0
            ? Float.NaN
            // One byte says that a double follows.
            : (float) ByteBuffer.wrap(value).order(ByteOrder.LITTLE_ENDIAN).getDouble(1);
      }
      return read;
    };
  }

  static BatchFeatures cached(BatchFeatures source, Duration age) {
    LoadingCache<String, float[]> cache =
        Caffeine.newBuilder().maximumSize(100_000).expireAfterWrite(age).build(source::read);
    return cache::get;
  }
}
