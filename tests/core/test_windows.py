"""Plans of views: what they refuse, and what their fingerprint tells apart."""

import numpy as np
import pytest

from stream_infer.core import features as declare
from stream_infer.core.errors import DeclarationError
from stream_infer.core.features import Feature
from stream_infer.core.windows import ViewPlan, plan_view, tile_of
from tests.laws.logs import EVENT_TYPES, Alarm, Note, Reading

MINUTE_US = 60_000_000


def plan(features: dict[str, Feature], **changes: object) -> ViewPlan:
    """Plan a view of the test's stream."""
    settings: dict[str, object] = {
        "event_types": EVENT_TYPES,
        "lateness_us": 10 * MINUTE_US,
        "resolution": {},
    }
    return plan_view("orders", features, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (declare.mean("z", "1h"), "no event type has a field 'z'"),
        (declare.total("whom", "1h"), "did you mean 'who'"),
        (declare.mean("who", "1h"), "needs a number, but Reading.who is text"),
        (declare.last("who"), "needs a number, but Reading.who is text"),
        (declare.mean("y", "1h", of=Alarm), "Alarm has no field 'y'"),
        (declare.ratio("n", "nothing"), "no feature 'nothing'"),
        (declare.ratio("n", "f"), "'f' is a ratio itself"),
    ],
)
def test_a_feature_that_does_not_fit_is_refused_by_name(feature: Feature, message: str) -> None:
    with pytest.raises(DeclarationError, match=message) as caught:
        plan({"n": declare.count("1h"), "f": feature})
    assert caught.value.culprit == "view 'orders', feature 'f'"


def test_an_event_type_of_another_stream_is_refused() -> None:
    with pytest.raises(DeclarationError, match="Note is no event type of the stream"):
        plan({"f": declare.count("1h", of=Note)}, event_types=(Reading, Alarm))


def test_a_row_beyond_its_bound_is_refused() -> None:
    with pytest.raises(DeclarationError, match="declare a coarser tile"):
        plan({"f": declare.distinct("who", "1m", precision=12)})


def test_flags_count_as_numbers() -> None:
    assert plan({"f": declare.mean("ok", "1h")}).features == ("f",)


@pytest.mark.parametrize(("over", "tile_us"), [("1m", 1_000_000), ("61s", 1_000_000)])
def test_a_tile_is_a_whole_part_of_its_window(over: str, tile_us: int) -> None:
    assert tile_of(declare.count(over)) == tile_us


def test_every_window_has_a_tile_of_at_most_a_60th() -> None:
    for over_us in (60_000_000, 60_001_000, 61_007_000, 86_399_000_000):
        feature = declare.count(f"{over_us // 1000}ms")
        assert over_us % tile_of(feature) == 0
        assert over_us / 100 <= tile_of(feature) <= over_us / 60


def test_the_horizon_is_the_longest_window_and_the_lateness() -> None:
    features = {"a": declare.count("1h"), "b": declare.last("x", "2h")}
    assert plan(features).horizon_us == 130 * MINUTE_US


def test_rows_are_aligned_and_begin_with_the_time_of_the_latest_event() -> None:
    features = {
        "n": declare.count("5m"),
        "d": declare.distinct("who", "7m"),
        "s": declare.last("x"),
    }
    dtype = plan(features).row_dtype
    assert dtype.names is not None
    assert dtype.names[0] == "updated_us"
    assert dtype.itemsize % 8 == 0
    assert dtype.fields is not None
    for column, offset, *_ in dtype.fields.values():
        assert offset % column.base.itemsize == 0


def test_the_fingerprint_tells_apart_what_rows_mean() -> None:
    base = {"m": declare.mean("x", "1h"), "d": declare.ewm_mean("x", "1h")}
    variants: list[ViewPlan] = [
        plan(base),
        plan(base, resolution={"x": 1e-3}),
        plan(base, lateness_us=60 * MINUTE_US),
        plan({**base, "m": declare.mean("y", "1h")}),
        plan({**base, "m": declare.mean("x", "1h", of=Alarm)}),
        plan({**base, "m": declare.mean("x", "1h", tile="30s")}),
        plan({**base, "m": declare.std("x", "1h")}),
        plan({**base, "d": declare.ewm_mean("x", "2h")}),
        plan({**base, "n": declare.count("1h")}),
        plan({**base, "n": declare.count("1h")}, event_types=(Reading, Alarm)),
    ]
    assert len({variant.schema for variant in variants}) == len(variants)


def test_the_fingerprint_is_the_same_for_what_only_reads_rows() -> None:
    base = {"m": declare.mean("x", "1h"), "n": declare.count("1h")}
    renamed = {"mean": declare.mean("x", "1h", include_self=True), "n": declare.count("1h")}
    assert plan(base).schema == plan(renamed).schema == plan(dict(base)).schema
    only_x = {"m": declare.mean("x", "1h")}
    assert plan(only_x, event_types=(Reading, Alarm)).schema == plan(only_x).schema
    more = {**base, "r": declare.ratio("m", "n")}
    assert plan(more).schema == plan(base).schema


def test_the_fingerprint_does_not_change_between_processes() -> None:
    features = {"m": declare.mean("x", "1h"), "d": declare.distinct("who", "1h")}
    assert plan(features).schema == "816139ce608d23a6"
    assert np.zeros(1, plan(features).row_dtype).nbytes == plan(features).row_bytes
