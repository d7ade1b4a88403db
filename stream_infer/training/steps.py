"""Progress of a training: of each fit, and of the whole."""

from collections.abc import Callable, Mapping

from stream_infer.training.estimators import Estimator, Step

Progress = Callable[[str, float], None]
"""Told what is being done and the share of the whole that is done, 0 to 1."""


class Steps:
    """Turns the fits' own progress into that of the whole."""

    def __init__(self, tell: Progress, estimators: Mapping[str, Estimator]) -> None:
        self._tell = tell
        self._costs = {name: kind.cost for name, kind in estimators.items()}
        # Two rounds of fits, of which the first has fewer rows; storing is a twentieth.
        self._whole = sum(self._costs.values()) * 2 / 0.95
        self._done = 0.0

    def tell(self, stage: str) -> None:
        """Tell of a stage that begins."""
        self._tell(stage, min(self._done / self._whole, 1.0))

    def of(self, stage: str, name: str) -> Step:
        """Return what a fit calls with its own share."""
        begun, cost = self._done, self._costs[name]
        self.tell(f"{stage} {name}")

        def step(share: float) -> None:
            self._done = begun + cost * share
            self.tell(f"{stage} {name}")

        return step

    def finish(self) -> None:
        """Tell that all is done."""
        self._tell("trained", 1.0)
