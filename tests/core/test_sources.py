"""Several streams of one topology: what must fit is checked when it is built."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from stream_infer import Event, Label, Stream, Topology, count, fields, last, total, weighted_mean
from stream_infer.core.engine import Engine
from stream_infer.core.errors import DeclarationError
from stream_infer.core.partitioned import Partitioned
from stream_infer.core.state import new_state
from stream_infer.stream.service import common_count


class Departure(Event, tag="departure"):
    origin: str
    gate: int
    at: datetime
    delay_min: float
    note: str


class Arrival(Event, tag="arrival"):
    origin: str
    at: datetime
    delay_min: float


class Observation(Event, tag="observation"):
    origin: str
    seen_at: datetime
    wind: float | None = None


class AtGate(Event, tag="at_gate"):
    origin: str
    gate: float
    seen_at: datetime


class Elsewhere(Event, tag="elsewhere"):
    station: str
    seen_at: datetime


class Repeated(Event, tag="arrival"):
    origin: str
    seen_at: datetime


class Noted(Event, tag="noted"):
    origin: str
    seen_at: datetime
    note: float


FLIGHTS = Stream("flights", Departure | Arrival, key="origin", time="at")
BY_ORIGIN = FLIGHTS.view("by_origin", by=["origin"], features={"n": count(over="1h")})


def weather(name: str = "weather", of: Any = Observation, *by: str, **options: Any) -> Any:
    stream = Stream(name, of, key=options.get("key", "origin"), time="seen_at")
    return stream.view("sky", by=by or ("origin",), features={"n": count(over="1h")})


def topology(*inputs: Any, **changes: Any) -> Topology:
    declared: dict[str, Any] = {
        "name": "delays",
        "on": Departure,
        "inputs": [fields("delay_min"), *(inputs or (BY_ORIGIN, weather()))],
        "graph": weighted_mean({"linear": 1.0}),
        "output": "delays.predictions",
    }
    return Topology(**{**declared, **changes})


def test_views_of_several_streams_make_one_vector() -> None:
    made = topology()
    assert made.vector_names(None) == ("delay_min", "by_origin__n", "sky__n")
    assert made.stream is FLIGHTS
    assert [stream.name for stream in made.streams] == ["flights", "weather"]
    assert [made.event_types[i] for i in (0, 1, 2)] == [Departure, Arrival, Observation]
    assert made.on_kind == 0


def test_streams_stand_in_the_order_in_which_they_are_declared() -> None:
    sky = weather()
    assert [s.name for s in topology(sky, BY_ORIGIN).streams] == ["weather", "flights"]
    assert [s.name for s in topology(sky, stream=FLIGHTS).streams] == ["flights", "weather"]
    assert topology(sky, BY_ORIGIN).on_kind == 1


def test_the_schema_of_the_state_names_the_streams_in_their_order() -> None:
    sky = weather()
    schemas = {Engine(topology(*views)).schema for views in ((BY_ORIGIN, sky), (sky, BY_ORIGIN))}
    assert len(schemas) == 2
    assert Engine(topology(BY_ORIGIN)).schema.startswith("flights(origin);by_origin")


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no stream has the scored type": (
        lambda: topology(weather()),
        "Departure is not in stream 'weather'",
    ),
    "none of several has it": (
        lambda: topology(weather(), weather("more", Elsewhere, "station", key="station")),
        "Departure is not in stream 'weather' or 'more'; say which stream",
    ),
    "the same type in two streams": (
        lambda: topology(
            BY_ORIGIN,
            weather(),
            weather("weather2").stream.view(
                "sky2", by=["origin"], features={"n": count(over="1h")}
            ),
        ),
        "two of its event types are named 'Observation'",
    ),
    "two streams of one topic": (
        lambda: topology(BY_ORIGIN, weather("flights")),
        "two of its streams are named 'flights'",
    ),
    "a tag twice": (
        lambda: topology(BY_ORIGIN, weather(of=Repeated)),
        "Repeated of stream 'weather' has the tag 'arrival', and so has Arrival of stream",
    ),
    "a field that is a number in one only": (
        lambda: topology(BY_ORIGIN, weather(of=Noted)),
        "Departure.note is text, but Noted.note is number: rename one",
    ),
    "a look-up by a field that the scored type lacks": (
        lambda: topology(BY_ORIGIN, weather("weather", Elsewhere, "station", key="station")),
        "looked up by 'station', no field of Departure",
    ),
    "a look-up by a field of another kind": (
        lambda: topology(BY_ORIGIN, weather("weather", AtGate, "origin", "gate")),
        "by 'gate', but Departure.gate is a whole number and AtGate.gate is number",
    ),
    "an output that is one of the topics": (
        lambda: topology(output="weather"),
        "write into the topic that it reads",
    ),
    "a label that is in no stream": (
        lambda: topology(label=Label(of=Elsewhere, key="origin", value="x")),
        "label Elsewhere is not in stream 'flights' or 'weather'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_with_the_culprit(name: str) -> None:
    build, message = WRONG[name]
    with pytest.raises(DeclarationError) as caught:
        build()
    assert message in str(caught.value)


class Late(Event, tag="late"):
    origin: str
    seen_at: datetime
    delay_min: float


def test_fields_of_the_same_name_in_two_streams_stay_apart() -> None:
    late = Stream("late", Late, key="origin", time="seen_at")
    sums = {"sum": total("delay_min", over="3h"), "last": last("delay_min")}
    made = topology(
        FLIGHTS.view("ours", by=["origin"], features=sums),
        late.view("theirs", by=["origin"], features=sums),
    )
    engine, state = Engine(made), new_state(made, 0)
    departure = (
        b'{"type":"departure","origin":"JFK","gate":1,"note":"","at":"2013-01-01T0%d:00:00Z",'
    )
    other = b'{"type":"late","origin":"JFK","seen_at":"2013-01-01T01:30:00Z","delay_min":7}'
    values = [departure % 1 + b'"delay_min":5}', other, departure % 2 + b'"delay_min":50}']
    sources = np.array([0, 1, 0], np.int8)
    batch = engine.decode(values, np.array([0, 0, 1]), None, sources)
    assert [batch.rejects, batch.kinds.tolist()] == [[], [0, 2, 0]]
    work = Partitioned.alone(state, batch)
    found = engine.look_up(work)
    for name, keys in found.lacking().items():
        state.shards[name].insert(keys, [None] * len(keys))
    vectors = engine.fold_batch(work, found, None).vectors.values
    assert vectors[1].tolist() == [50.0, 5.0, 5.0, 7.0, 7.0]


def test_topics_with_different_numbers_of_partitions_are_refused_by_name() -> None:
    made = topology()
    assert common_count(made, {"flights": 4, "weather": 4, "other": 7}) == 4
    with pytest.raises(DeclarationError, match="'flights' has 4 partitions, but 'weather' has 3"):
        common_count(made, {"flights": 4, "weather": 3})
