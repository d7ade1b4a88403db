"""A declaration that does not fit is refused when it is built, with the culprit's name."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    count,
    ewm_mean,
    feast_service,
    fields,
    mean,
    ratio,
    weighted_mean,
)
from stream_infer.core.engine import Engine
from stream_infer.core.errors import DeclarationError
from stream_infer.core.inputs import BatchLayout


class Click(Event, tag="click"):
    user: str
    page: str
    at: datetime
    dwell_s: float
    referrer: str | None = None


class Purchase(Event, tag="purchase"):
    user: str
    at: datetime
    amount: float


CLICKS = Stream("clicks", Click | Purchase, key="user", time="at")
BY_USER = CLICKS.view("by_user", by=["user"], features={"clicks_1h": count(over="1h", of=Click)})
BY_PAGE = CLICKS.view("by_page", by=["page"], rekey=True, features={"n": count(over="1h")})


def topology(**changes: Any) -> Topology:
    declared: dict[str, Any] = {
        "name": "ranking",
        "on": Click,
        "inputs": [fields("dwell_s"), BY_USER],
        "graph": weighted_mean({"linear": 1.0}),
        "output": "ranking.predictions",
    }
    declared.update(changes)
    return Topology(**declared)


def test_a_topology_names_its_vector_in_the_order_of_its_inputs() -> None:
    assert topology().vector_names(None) == ("dwell_s", "by_user__clicks_1h")
    assert topology().key == "user"
    assert topology(label=Label(of=Purchase, key="user", value="amount")).key == "user"


def test_a_rekeyed_view_has_its_place_in_the_vector_and_no_part_in_the_streams_state() -> None:
    rekeyed = topology(inputs=[BY_PAGE, fields("dwell_s"), BY_USER])
    assert rekeyed.vector_names(None) == ("by_page__n", "dwell_s", "by_user__clicks_1h")
    assert (rekeyed.views, rekeyed.rekeyed) == ((BY_USER,), (BY_PAGE,))
    assert Engine(rekeyed).schema == Engine(topology()).schema


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "field": (lambda: topology(inputs=[fields("dwel_s"), BY_USER]), "did you mean 'dwell_s'"),
    "text field": (lambda: topology(inputs=[fields("page"), BY_USER]), "text, not a number"),
    "type": (lambda: topology(on=Event), "not in stream 'clicks'"),
    "key": (lambda: topology(key="usr"), "did you mean 'user'"),
    "output": (lambda: topology(output="clicks"), "topic that it reads"),
    "name": (lambda: topology(name="a b"), "identifier"),
    "twice": (lambda: topology(inputs=[fields("dwell_s", "dwell_s"), BY_USER]), "two inputs"),
    "no stream": (lambda: topology(inputs=[fields("dwell_s")]), "which stream"),
    "label value": (
        lambda: topology(label=Label(of=Purchase, key="user", value="amont")),
        "did you mean 'amount'",
    ),
    "label key": (
        lambda: topology(label=Label(of=Purchase, key="page", value="amount")),
        "no field of Purchase",
    ),
    "two services": (
        lambda: topology(inputs=[BY_USER, feast_service("a"), feast_service("b")]),
        "one feature service",
    ),
    "view key": (
        lambda: CLICKS.view("by_page", by=["page"], features={"n": count(over="1h")}),
        "partition key",
    ),
    "view key, its remedy": (
        lambda: CLICKS.view("by_page", by=["page"], features={"n": count(over="1h")}),
        "rekey=True",
    ),
    "needless rekey": (
        lambda: CLICKS.view("v", by=["user"], rekey=True, features={"n": count(over="1h")}),
        "exact without it",
    ),
    "rekeyed topic": (
        lambda: topology(name="clicks", inputs=[BY_USER, BY_PAGE], output="clicks.rekeyed"),
        "topic that it",
    ),
    "view field": (
        lambda: CLICKS.view("v", by=["user", "pge"], features={"n": count(over="1h")}),
        "did you mean 'page'",
    ),
    "feature field": (
        lambda: CLICKS.view("v", by=["user"], features={"m": mean("dwel_s", over="1h")}),
        "did you mean 'dwell_s'",
    ),
    "ratio": (
        lambda: CLICKS.view(
            "v", by=["user"], features={"n": count(over="1h"), "r": ratio("n", "m")}
        ),
        "'m'",
    ),
    "window": (lambda: count(over="1s"), "outside 1m"),
    "long window": (lambda: count(over="31d"), "outside 1m"),
    "duration": (lambda: count(over="an hour"), "not a duration"),
    "half-life": (lambda: ewm_mean("dwell_s", half_life=""), "not a duration"),
    "tile": (lambda: count(over="1h", tile=""), "not a duration"),
    "topic": (lambda: Stream("my clicks", Click, key="user", time="at"), "no name of a topic"),
    "output topic": (lambda: topology(output="a/b"), "no name of a topic"),
    "name beyond ASCII": (lambda: topology(name="größe"), "no name of a topic"),
    "endless resolution": (
        lambda: Stream("s", Click, key="user", time="at", resolution={"dwell_s": float("inf")}),
        "above 0, finite",
    ),
    "stream key": (lambda: Stream("s", Click, key="usr", time="at"), "did you mean 'user'"),
    "stream time": (lambda: Stream("s", Click, key="user", time="page"), "datetime"),
    "nullable key": (lambda: Stream("s", Click, key="referrer", time="at"), "never null"),
    "no event": (lambda: Stream("s", dict, key="user", time="at"), "not an Event"),
    "no view": (lambda: CLICKS.view("v", by=["user"], features={}), "no features"),
    "resolution": (
        lambda: Stream("s", Click, key="user", time="at", resolution={"dwel_s": 1.0}),
        "did you mean 'dwell_s'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_with_the_culprit(name: str) -> None:
    build, message = WRONG[name]
    with pytest.raises(DeclarationError) as caught:
        build()
    assert message in str(caught.value)


def test_a_feature_service_joined_by_an_unknown_field_is_refused() -> None:
    layout = BatchLayout(("user__age",), ("user",), np.array([0]), np.array([0]), (("usr",),))
    with pytest.raises(DeclarationError, match="did you mean 'user'"):
        Engine(topology(inputs=[BY_USER, feast_service("s")]), layout)


@pytest.mark.parametrize("field", ["dwell_s", "user", "at"])
def test_a_feature_service_joined_by_a_field_of_another_type_is_refused(field: str) -> None:
    one = np.array([0])
    layout = BatchLayout(("user__age",), ("user",), one, one, ((field,),), (("whole",),))
    with pytest.raises(DeclarationError, match=rf"'user' is joined by a whole key.*Click\.{field}"):
        Engine(topology(inputs=[BY_USER, feast_service("s")]), layout)
