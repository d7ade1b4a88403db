"""What the Python peers share, each in its own environment: models, and rows of batch features."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

WEIGHTS = {"trees": 0.6, "mlp": 0.3, "linear": 0.1}
SERVICE = "standard"
HABITS = [f"habit_{number}" for number in range(8)]


def setting(name):
    """What the benchmark chose; None where it chose nothing."""
    return os.environ.get(f"PEER_{name}")


class Models:
    """The three models, by ONNX Runtime, one event at a time."""

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        folder = Path(setting("MODELS"))
        self._sessions = {
            name: ort.InferenceSession(
                folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in WEIGHTS
        }

    def predict(self, row):
        """The scores of fourteen numbers: their weighted mean, and each model's own."""
        inputs = {"features": np.array([row], dtype=np.float32)}
        scores = {
            name: float(session.run(None, inputs)[0][0, 0])
            for name, session in self._sessions.items()
        }
        return {"score": sum(WEIGHTS[name] * scores[name] for name in WEIGHTS), "scores": scores}


def habits(response):
    """The eight batch features of the one entity that Feast was asked for."""
    columns = response.to_dict()
    return [columns[name][0] for name in HABITS]
