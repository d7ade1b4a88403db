"""Runs as a program of its own: loads and tries one ONNX file under limits, reports JSON.

Reads one line of JSON, `{"path": [...], "memory_bytes_max": …, "cpu_s_max": …, "rows": [...]}`, and
then the file from standard input. It imports nothing of the package: what is wrong with the file
must not meet anything but the runtime.
"""

import contextlib
import json
import resource
import sys
import time


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
        resource.setrlimit(kind, (value, value))


def _try(content: bytes, rows: list[int]) -> dict[str, object]:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Everything that is needed is open by now: no further file can be.
    _limit(resource.RLIMIT_NOFILE, 3)
    started = time.perf_counter()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - started) * 1e3
    inputs = [[node.name, node.type, node.shape] for node in session.get_inputs()]
    outputs = [[node.name, node.type, node.shape] for node in session.get_outputs()]
    report: dict[str, object] = {"inputs": inputs, "outputs": outputs, "load_ms": load_ms}
    shape = inputs[0][2] if len(inputs) == 1 else []
    if len(shape) == 2 and isinstance(shape[1], int) and inputs[0][1] == "tensor(float)":
        for n in rows:
            for value in (0.0, np.nan):
                started = time.perf_counter()
                session.run(None, {inputs[0][0]: np.full((n, shape[1]), value, np.float32)})
                report["us_per_row"] = (time.perf_counter() - started) * 1e6 / n
    return report


def main() -> None:
    """Answer one request on standard output; leaves by a signal when it meets a limit."""
    request = json.loads(sys.stdin.buffer.readline())
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, request["memory_bytes_max"])
    _limit(resource.RLIMIT_CPU, request["cpu_s_max"])
    sys.path[:] = request["path"]
    try:
        report = _try(sys.stdin.buffer.read(), request["rows"])
    except Exception as error:
        report = {"error": f"{type(error).__name__}: {error}"[:2000]}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
