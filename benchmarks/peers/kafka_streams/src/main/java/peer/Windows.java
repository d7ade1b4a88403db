package peer;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;

/** Counts and sums of one account in a ring of sixty minutes. */
final class Windows {
  private static final int MINUTES = 60;
  private final long[] minutes = new long[MINUTES];
  private final int[] counts = new int[MINUTES];
  private final double[] sums = new double[MINUTES];

  void add(long minute, double amount) {
    int place = (int) (minute % MINUTES);
    if (minutes[place] > minute) {
      return; // Later than an hour.
    }
    if (minutes[place] < minute) {
      minutes[place] = minute;
      counts[place] = 0;
      sums[place] = 0;
    }
    counts[place]++;
    sums[place] += amount;
  }

  int count(long minute, int over) {
    int total = 0;
    for (long at = minute - over + 1; at <= minute; at++) {
      int place = (int) (at % MINUTES);
      total += minutes[place] == at ? counts[place] : 0;
    }
    return total;
  }

  double sum(long minute, int over) {
    double total = 0;
    for (long at = minute - over + 1; at <= minute; at++) {
      int place = (int) (at % MINUTES);
      total += minutes[place] == at ? sums[place] : 0;
    }
    return total;
  }

  /** Its bytes: the minutes that have something. */
  static final class Binary extends Serdes.WrapperSerde<Windows> {
    Binary() {
      super(writer(), reader());
    }

    private static Serializer<Windows> writer() {
      return (topic, windows) -> {
        if (windows == null) {
          return null;
        }
        ByteBuffer buffer = ByteBuffer.allocate(MINUTES * 20);
        for (int place = 0; place < MINUTES; place++) {
          if (windows.counts[place] > 0) {
            buffer.putLong(windows.minutes[place]).putInt(windows.counts[place]);
            buffer.putDouble(windows.sums[place]);
          }
        }
        byte[] written = new byte[buffer.position()];
        buffer.flip().get(written);
        return written;
      };
    }

    private static Deserializer<Windows> reader() {
      return (topic, bytes) -> {
        if (bytes == null) {
          return null;
        }
        Windows windows = new Windows();
        for (ByteBuffer buffer = ByteBuffer.wrap(bytes); buffer.hasRemaining(); ) {
          long minute = buffer.getLong();
          int place = (int) (minute % MINUTES);
          windows.minutes[place] = minute;
          windows.counts[place] = buffer.getInt();
          windows.sums[place] = buffer.getDouble();
        }
        return windows;
      };
    }
  }
}
