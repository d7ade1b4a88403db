package peer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/** The three models, by ONNX Runtime; sessions may be used by several threads. */
final class Models {
  private static final Map<String, Double> WEIGHTS = Map.of("trees", 0.6, "mlp", 0.3, "linear", 0.1);
  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final Map<String, OrtSession> sessions = new LinkedHashMap<>();

  Models(String folder) throws OrtException {
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setIntraOpNumThreads(1);
    options.setInterOpNumThreads(1);
    for (String name : WEIGHTS.keySet()) {
      String path = Path.of(folder, name + ".onnx").toString();
      sessions.put(name, environment.createSession(path, options));
    }
  }

  Map<String, Double> scores(float[] inputs) {
    Map<String, Double> scores = new LinkedHashMap<>();
    try (OnnxTensor tensor = OnnxTensor.createTensor(environment, new float[][] {inputs})) {
      Map<String, OnnxTensor> named = Map.of("features", tensor);
      for (Map.Entry<String, OrtSession> model : sessions.entrySet()) {
        try (OrtSession.Result result = model.getValue().run(named)) {
          scores.put(model.getKey(), (double) ((float[][]) result.get(0).getValue())[0][0]);
        }
      }
    } catch (OrtException error) {
      throw new IllegalStateException(error);
    }
    return scores;
  }

  static double weightedMean(Map<String, Double> scores) {
    double total = 0;
    for (Map.Entry<String, Double> weight : WEIGHTS.entrySet()) {
      total += weight.getValue() * scores.get(weight.getKey());
    }
    return total;
  }
}
