"""What features mean, said as plainly as possible: it looks at all earlier events, each time.

Nothing here knows how rows are kept. Numbers are exact (Fraction) as long as they can be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from hashlib import blake2b

from stream_infer.core.features import Feature, Kind


@dataclass(frozen=True)
class Fact:
    """One event: its time, its type by name, the entity it belongs to, and its fields."""

    time_us: int
    type_name: str
    key: str | None
    values: Mapping[str, float | bool | str | None]


@dataclass(frozen=True)
class Expected:
    """A value, None where missing, and how far a result may be from it."""

    value: float | None
    tolerance: float = 0.0

    def matches(self, result: float) -> bool:
        """Say whether a result is this value."""
        if self.value is None:
            return math.isnan(result)
        return abs(result - self.value) <= self.tolerance


def answers(
    features: Mapping[str, Feature],
    type_fields: Mapping[str, frozenset[str]],
    resolution: Mapping[str, float],
    log: Sequence[Fact],
    n: int,
) -> dict[str, Expected]:
    """Return every feature of event n, seen right after the events before it."""
    found: dict[str, Expected] = {}
    for name, feature in features.items():
        if feature.kind is not Kind.RATIO:
            seen = _contributions(feature, type_fields, log, n)
            step = resolution.get(feature.field or "", 1e-6)
            found[name] = _ANSWERS[feature.kind](feature, seen, log[n].time_us, step)
    for name, feature in features.items():
        if feature.kind is Kind.RATIO:
            found[name] = _ratio(found[feature.numerator], found[feature.denominator])
    return {name: found[name] for name in features}


Contribution = tuple[int, float | bool | str]


def _contributions(
    feature: Feature, type_fields: Mapping[str, frozenset[str]], log: Sequence[Fact], n: int
) -> list[Contribution]:
    """Return time and value of the entity's events up to n that have what the feature needs."""
    if feature.of is None:
        wanted = {
            name
            for name, fields in type_fields.items()
            if feature.field is None or feature.field in fields
        }
    else:
        wanted = {event_type.__name__ for event_type in feature.of}
    key = log[n].key
    before = [fact for fact in log[:n] if fact.key == key and key is not None]
    if feature.include_self:
        before.append(log[n])
    seen: list[Contribution] = []
    for fact in before:
        value = 1.0 if feature.field is None else fact.values.get(feature.field)
        if fact.type_name in wanted and value is not None:
            seen.append((fact.time_us, value))
    return seen


def _in_window(feature: Feature, seen: list[Contribution], now_us: int) -> list[float | str | bool]:
    tile_us = feature.tile_us
    if tile_us is None:
        parts = next(parts for parts in range(60, 1000) if feature.over_us % parts == 0)
        tile_us = feature.over_us // parts
    pane, panes = now_us // tile_us, feature.over_us // tile_us
    return [value for time_us, value in seen if pane - panes < time_us // tile_us <= pane]


def _scaled(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> list[int]:
    return [round(float(value) / step) for value in _in_window(feature, seen, now_us)]


def _close(value: float, relative: float) -> Expected:
    return Expected(value, abs(value) * relative)


def _count(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    return Expected(float(len(_in_window(feature, seen, now_us))))


def _sum(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    total = sum(_scaled(feature, seen, now_us, step))
    return _close(float(total * Fraction(step)), 1e-14)


def _mean(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    scaled = _scaled(feature, seen, now_us, step)
    if not scaled:
        return Expected(None)
    return _close(float(Fraction(sum(scaled), len(scaled)) * Fraction(step)), 1e-14)


def _std(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    scaled = _scaled(feature, seen, now_us, step)
    if not scaled:
        return Expected(None)
    n = len(scaled)
    variance = Fraction(sum(v * v for v in scaled), n) - Fraction(sum(scaled), n) ** 2
    with localcontext() as context:
        context.prec = 60
        root = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
        return _close(float(root * Decimal(step)), 1e-13)


def _min(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    values = [float(value) for value in _in_window(feature, seen, now_us)]
    return Expected(min(values, default=None))


def _max(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    values = [float(value) for value in _in_window(feature, seen, now_us)]
    return Expected(max(values, default=None))


def _latest(seen: list[Contribution]) -> Contribution | None:
    best: Contribution | None = None
    for contribution in seen:
        if best is None or contribution[0] >= best[0]:
            best = contribution
    return best


def _last(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    latest = _latest(seen)
    if latest is None or now_us - latest[0] >= feature.over_us:
        return Expected(None)
    return Expected(float(latest[1]))


def _since_last(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    latest = _latest(seen)
    if latest is None or now_us - latest[0] >= feature.over_us:
        return Expected(None)
    return Expected(max(0, now_us - latest[0]) / 1_000_000)


def _ewm_mean(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    newest_us: int | None = None
    alive: list[Contribution] = []
    for time_us, value in seen:
        if newest_us is not None and time_us - newest_us >= feature.over_us:
            alive = []
        alive.append((time_us, value))
        newest_us = time_us if newest_us is None else max(newest_us, time_us)
    if newest_us is None or now_us - newest_us >= feature.over_us:
        return Expected(None)
    weights = [2.0 ** (-(newest_us - time_us) / feature.half_life_us) for time_us, _ in alive]
    weight = math.fsum(weights)
    values = [float(value) for _, value in alive]
    mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / weight
    size = math.fsum(w * abs(v) for w, v in zip(weights, values, strict=True)) / weight
    return Expected(mean, size * 1e-9)


def _distinct(feature: Feature, seen: list[Contribution], now_us: int, step: float) -> Expected:
    registers = 2**feature.precision
    ranks = [0] * registers
    for value in _in_window(feature, seen, now_us):
        hashed = int.from_bytes(blake2b(str(value).encode(), digest_size=8).digest(), "little")
        rest, register = divmod(hashed, registers)
        zeros = 0
        while rest % 2 == 0 and zeros < 30:
            rest, zeros = rest // 2, zeros + 1
        ranks[register] = max(ranks[register], zeros + 1)
    alpha = {16: 0.673, 32: 0.697, 64: 0.709}.get(registers, 0.7213 / (1 + 1.079 / registers))
    estimate = alpha * registers**2 / float(sum(Fraction(1, 2**rank) for rank in ranks))
    if estimate <= 2.5 * registers and 0 in ranks:
        estimate = registers * math.log(registers / ranks.count(0))
    return Expected(float(round(estimate)))


def _ratio(numerator: Expected, denominator: Expected) -> Expected:
    if numerator.value is None or denominator.value is None or denominator.value == 0:
        return Expected(None)
    value = numerator.value / denominator.value
    if math.isinf(value):
        return Expected(None)
    slack = (numerator.tolerance + abs(value) * denominator.tolerance) / abs(denominator.value)
    return Expected(value, slack * 2 + abs(value) * 1e-14)


_ANSWERS = {
    Kind.COUNT: _count,
    Kind.SUM: _sum,
    Kind.MEAN: _mean,
    Kind.STD: _std,
    Kind.MIN: _min,
    Kind.MAX: _max,
    Kind.LAST: _last,
    Kind.SINCE_LAST: _since_last,
    Kind.EWM_MEAN: _ewm_mean,
    Kind.DISTINCT: _distinct,
}
