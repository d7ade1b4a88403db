package peer;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** The standard job in Kafka Streams: windows in a state store, batch features, three models. */
public final class StandardJob {
  @JsonIgnoreProperties(ignoreUnknown = true)
  record Payment(String account, String at, double amount, int items) {}

  record Prediction(String account, String event_time, double score, Map<String, Double> scores) {}

  private static final ObjectMapper JSON = new ObjectMapper();

  /** Joins a payment with its account's windows and batch features, and scores it. */
  private static final class Scorer
      implements FixedKeyProcessor<String, Payment, Prediction> {
    private final BatchFeatures features;
    private final Models models;
    private FixedKeyProcessorContext<String, Prediction> context;
    private KeyValueStore<String, Windows> store;

    Scorer(BatchFeatures features, Models models) {
      this.features = features;
      this.models = models;
    }

    @Override
    public void init(FixedKeyProcessorContext<String, Prediction> context) {
      this.context = context;
      store = context.getStateStore("windows");
    }

    @Override
    public void process(FixedKeyRecord<String, Payment> record) {
      Payment payment = record.value();
      long minute = Instant.parse(payment.at()).getEpochSecond() / 60;
      Windows windows = store.get(payment.account());
      if (windows == null) {
        windows = new Windows();
      }
      float[] inputs = new float[14];
      inputs[0] = (float) payment.amount();
      inputs[1] = payment.items();
      inputs[2] = windows.count(minute, 5);
      inputs[3] = windows.count(minute, 60);
      inputs[4] = (float) windows.sum(minute, 5);
      inputs[5] = (float) windows.sum(minute, 60);
      System.arraycopy(features.read(payment.account()), 0, inputs, 6, 8);
      windows.add(minute, payment.amount());
      store.put(payment.account(), windows);
      Map<String, Double> scores = models.scores(inputs);
      double score = Models.weightedMean(scores);
      context.forward(
          record.withValue(new Prediction(payment.account(), payment.at(), score, scores)));
    }
  }

  private static <T> Serde<T> json(Class<T> type) {
    Serializer<T> serializer = (topic, value) -> {
      try {
        return JSON.writeValueAsBytes(value);
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
    };
    Deserializer<T> deserializer = (topic, bytes) -> {
      try {
        return JSON.readValue(bytes, type);
      } catch (Exception error) {
        throw new IllegalArgumentException(error);
      }
    };
    return Serdes.serdeFrom(serializer, deserializer);
  }

  private static String setting(String name) {
    return System.getenv("PEER_" + name);
  }

  public static void main(String[] arguments) throws Exception {
    boolean exactlyOnce = setting("EXACTLY_ONCE") != null;
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, setting("GROUP"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, setting("BROKER"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, setting("FOLDER"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, setting("THREADS"));
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    if (exactlyOnce) {
      settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    } else {
      settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "1000");
    }
    if (setting("LINGER_MS") != null) {
      settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), setting("LINGER_MS"));
    }
    BatchFeatures redis = BatchFeatures.inRedis(setting("REDIS"), setting("FEAST_KEY"), setting("FEAST_FIELDS"));
    BatchFeatures features =
        setting("CACHED") != null ? BatchFeatures.cached(redis, Duration.ofSeconds(1)) : redis;
    Models models = new Models(setting("MODELS"));

    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore("windows"), Serdes.String(), new Windows.Binary())
            .withCachingEnabled());
    builder.stream(setting("EVENTS"), Consumed.with(Serdes.String(), json(Payment.class)))
        .processValues(() -> new Scorer(features, models), "windows")
        .to(setting("RESULTS"), Produced.with(Serdes.String(), json(Prediction.class)));
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setStateListener((now, before) -> System.out.println("state " + now));
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
