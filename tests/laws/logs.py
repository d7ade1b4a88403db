"""Logs of events for the laws: how they are made up, and how they run through the kernel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from stream_infer.core import features as declare
from stream_infer.core.arrivals import Observing
from stream_infer.core.events import Event, fields_of
from stream_infer.core.features import Feature
from stream_infer.core.fold import fold, read
from stream_infer.core.shard import Shard
from stream_infer.core.windows import ViewPlan
from tests.laws.oracle import Fact


class Reading(Event, tag="reading"):
    """A measurement."""

    x: float
    y: float | None
    ok: bool | None
    who: str | None


class Alarm(Event, tag="alarm"):
    """Something else that happened to the same entity."""

    x: float | None
    who: str | None


class Note(Event, tag="note"):
    """An event that has no number."""

    who: str


EVENT_TYPES: tuple[type[Event], ...] = (Reading, Alarm, Note)
TYPE_FIELDS = {event_type.__name__: frozenset(fields_of(event_type)) for event_type in EVENT_TYPES}
BASE_US = 946_684_800_000_000
SECOND_US = 1_000_000
YEAR_US = 365 * 86_400 * SECOND_US
LIMIT = 2**40


class Columns:
    """A micro-batch of facts, as the kernel wants it."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        names = [event_type.__name__ for event_type in EVENT_TYPES]
        self.facts = facts
        self.times_us = np.array([fact.time_us for fact in facts], np.int64)
        kinds = [names.index(fact.type_name) if fact.type_name in names else -1 for fact in facts]
        self.kinds = np.array(kinds, np.int8)

    def __len__(self) -> int:
        return len(self.facts)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a field as numbers, NaN where absent."""
        values = [fact.values.get(name) for fact in self.facts]
        return np.array([np.nan if v is None else float(v) for v in values], np.float64)

    def labels(self, name: str) -> list[str | None]:
        """Return a field as texts, None where absent."""
        values = [fact.values.get(name) for fact in self.facts]
        return [None if v is None else str(v) for v in values]


class Run:
    """A log folded batch by batch: answers so far, and the rows.

    With `lateness_us`, facts of types that are none of ours observe.
    """

    def __init__(self, plan: ViewPlan, lateness_us: int | None = None) -> None:
        self.plan = plan
        self.lateness_us = lateness_us
        self.shard = Shard(plan, 1000)
        self.answers: list[npt.NDArray[np.float64]] = []

    def rows(self, facts: Sequence[Fact]) -> npt.NDArray[np.int64]:
        """Return the rows of the facts' entities, made resident as needed."""
        _, missing = self.shard.lookup([fact.key for fact in facts])
        self.shard.insert(missing, [None] * len(missing))
        return self.shard.lookup([fact.key for fact in facts])[0]

    def fold(self, facts: Sequence[Fact]) -> npt.NDArray[np.float64]:
        """Fold one batch; return its answers."""
        batch = Columns(facts)
        result = fold(self.plan, self.shard, self.rows(facts), batch, self._observing(batch))
        self.answers.append(result)
        return result

    def read(self, facts: Sequence[Fact]) -> npt.NDArray[np.float64]:
        """Answer events without folding them."""
        batch = Columns(facts)
        return read(self.plan, self.shard, self.rows(facts), batch, self._observing(batch))

    def _observing(self, batch: Columns) -> Observing | None:
        return None if self.lateness_us is None else Observing(batch.kinds >= 0, self.lateness_us)

    def restart(self) -> None:
        """Store all changed rows and start again with those."""
        stored = self.shard.take_dirty()
        known = {key: self.shard.payload(int(row)) for key, row in self._resident()}
        assert known.items() >= dict(stored).items()
        self.shard = Shard(self.plan, 1000)
        self.shard.insert(list(known), list(known.values()))

    def state(self) -> dict[str, bytes]:
        """Return all rows by key."""
        return {key: self.shard.payload(int(row)) for key, row in self._resident()}

    def _resident(self) -> list[tuple[str, int]]:
        keys = [key for key in KEYS if key in self.shard]
        return list(zip(keys, self.shard.lookup(keys)[0].tolist(), strict=True))


KEYS = ["a", "b", "c"]


def pieces(log: Sequence[Fact], cuts: Sequence[int]) -> list[Sequence[Fact]]:
    """Cut a log at the given places."""
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(log)}), len(log)]
    return [log[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _number(random: Random, step: float) -> float:
    """Return a value of a field that is summed at `step`, up to the largest allowed."""
    bound = (LIMIT - 1) * step
    choice = random.randrange(8)
    if choice == 0:
        return random.choice([0.0, -0.0, bound, -bound, step / 2, -step * 1.5, 5e-324])
    if choice == 1:  # many values close together, far from zero: hard for a standard deviation
        return 1e5 * step * LIMIT / 2**20 + random.randint(-5, 5) * step
    if choice == 2:
        return bound - random.randint(0, 3) * step
    if choice < 5:
        return float(random.randint(-9, 9))
    return random.uniform(-1, 1) * bound * random.choice([1, 1e-3, 1e-9])


def _text(random: Random) -> str | None:
    return random.choice(["p", "q", "r", "é", "", None, str(random.randrange(10**6))])


def make_log(
    seed: int, length: int, lateness_us: int, resolution: Mapping[str, float]
) -> list[Fact]:
    """Make up a log: repeated keys, times that go back by up to the lateness, gaps of years.

    A shorter log of the same seed is a prefix of a longer one.
    """
    random = Random(seed)
    keys = random.choice([["a"], ["a", "a", "a", "b"], [*KEYS, None]])
    pace_us = random.choice([0, 1, SECOND_US // 3, 5 * SECOND_US, 400 * SECOND_US])
    late = random.choice([0.0, 0.1, 0.4, 0.9])
    steps = [resolution.get(name, 1e-6) for name in ("x", "y")]
    newest_us = BASE_US + random.randrange(YEAR_US)
    log: list[Fact] = []
    for _ in range(length):
        if random.random() < late:
            back_us = random.choice([random.randint(0, lateness_us), lateness_us])
            time_us = max(BASE_US, newest_us - back_us)
        elif random.random() < 0.05:
            newest_us += random.choice([SECOND_US, 60 * SECOND_US, 3600 * SECOND_US, YEAR_US])
            time_us = newest_us
        else:
            newest_us += random.randint(0, pace_us)
            time_us = newest_us
        kind = random.choice(["Reading", "Reading", "Alarm", "Note"])
        x, y = _number(random, steps[0]), _number(random, steps[1])
        values: dict[str, float | bool | str | None] = {"who": _text(random)}
        if kind == "Reading":
            ok = random.choice([True, False, None])
            values |= {"x": x, "y": random.choice([y, y, None]), "ok": ok}
        elif kind == "Alarm":
            values["x"] = random.choice([x, x, None])
        log.append(Fact(time_us, kind, random.choice(keys), values))
    return log


_NUMERIC: list[Callable[..., Feature]] = [
    declare.total,
    declare.mean,
    declare.minimum,
    declare.maximum,
    declare.std,
]


@st.composite
def feature(draw: st.DrawFn) -> Feature:
    """Make up a feature of any kind but ratio."""
    seconds = draw(st.sampled_from([60, 61, 90, 300, 420, 3600]))
    over = f"{seconds}s"
    tiles = [None, *(k for k in (1, 2, 5, 7, 12, 60, 61) if seconds % k == 0)]
    tile = draw(st.sampled_from(tiles))
    options = {
        "over": over,
        "of": draw(st.sampled_from([None, Reading, Alarm, (Reading, Alarm)])),
        "include_self": draw(st.booleans()),
    }
    tiled = options | ({} if tile is None else {"tile": f"{seconds // tile}s"})
    choice = draw(st.integers(0, 10))
    field = "x" if options["of"] != Reading else draw(st.sampled_from(["x", "y", "ok"]))
    if choice < len(_NUMERIC):
        return _NUMERIC[choice](field, **tiled)
    if choice == 5:
        return declare.count(**tiled)
    if choice == 6:
        return declare.last(field, **options)
    if choice == 7:
        return declare.since_last(over, options["of"])
    if choice == 8:
        half_life = draw(st.sampled_from(["1s", "1m", "7d"]))
        return declare.ewm_mean(field, half_life, **options)
    if choice == 9:
        return declare.distinct("who", precision=draw(st.integers(4, 6)), **tiled)
    return replace(declare.count(**tiled), of=None)


@st.composite
def feature_sets(draw: st.DrawFn) -> dict[str, Feature]:
    """Make up the features of a view, some of them ratios of others."""
    chosen = {f"f{i}": f for i, f in enumerate(draw(st.lists(feature(), min_size=1, max_size=7)))}
    names = list(chosen)
    for i in range(draw(st.integers(0, 2))):
        pair = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        chosen[f"r{i}"] = declare.ratio(*pair)
    return chosen
