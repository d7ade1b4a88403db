"""Running ONNX graphs in their caller's thread; another one stops those that take too long."""

import math
import threading
import time
import weakref

import onnxruntime as ort

from stream_infer.models.sessions import OnnxModel, Rows, Scores

LOOKS_PER_LIMIT = 4


class _Watched:
    """The calls of one thread, one after the other; `began_s` is inf while there is none."""

    __slots__ = ("__weakref__", "began_s", "is_overdue", "stop")

    def __init__(self) -> None:
        self.began_s = math.inf
        self.stop = ort.RunOptions()
        self.stop.log_severity_level = 4  # What goes wrong is raised; it need not be printed, too.
        self.is_overdue = False


class Sentinel:
    """Stops calls that take longer than `timeout_s`, at most a quarter of that late.

    Its thread looks at the calls under way every now and then, so that a call wakes nobody; it ends
    when nobody has the sentinel any more. An operator that never returns cannot be stopped.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._of_thread = threading.local()
        self._all: weakref.WeakValueDictionary[int, _Watched] = weakref.WeakValueDictionary()
        self._starting = threading.Lock()
        self._is_started = False

    def run(self, model: OnnxModel, vectors: Rows) -> Scores:
        """Run a model; raises TimeoutError where it was stopped, and what it raises."""
        if not self._is_started:
            self._start()
        watched = getattr(self._of_thread, "watched", None) or self._watch()
        began_s = watched.began_s = time.monotonic()
        try:
            return model.run(vectors, watched.stop)
        except Exception:
            if watched.is_overdue:
                limit_ms = self.timeout_s * 1e3
                raise TimeoutError(f"not done within {limit_ms:,.0f} ms") from None
            raise
        finally:
            watched.began_s = math.inf
            # What may be found overdue is not used for another call: it would be stopped.
            if time.monotonic() - began_s > self.timeout_s / 2:
                self._of_thread.watched = None

    def look(self) -> None:
        """Stop what is overdue."""
        now_s = time.monotonic()
        for found in self._all.valuerefs():
            watched = found()
            if watched is not None and now_s - watched.began_s > self.timeout_s:
                watched.is_overdue = True
                watched.stop.terminate = True

    def _watch(self) -> _Watched:
        """Return what watches the calls of this thread from now on."""
        watched = self._of_thread.watched = _Watched()
        self._all[id(watched)] = watched
        return watched

    def _start(self) -> None:
        with self._starting:
            if not self._is_started:
                looking = (weakref.ref(self), self.timeout_s / LOOKS_PER_LIMIT)
                threading.Thread(target=_look, args=looking, name="sentinel", daemon=True).start()
                self._is_started = True


def _look(found: "weakref.ref[Sentinel]", pause_s: float) -> None:
    while True:
        time.sleep(pause_s)
        sentinel = found()
        if sentinel is None:
            return
        sentinel.look()
        del sentinel
