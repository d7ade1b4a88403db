"""The flight example with views across origins, beside the one without."""

from stream_infer.core.engine import Engine
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.rekeyed_state import rekeyed_schema
from topologies import flight_delay, flight_network


def test_the_network_has_all_inputs_of_the_plain_example_and_those_across_origins() -> None:
    plain, network = flight_delay.topology, flight_network.topology
    assert not plain.rekeyed
    across = {name for view in network.rekeyed for name in view.feature_names}
    names = network.vector_names(None)
    assert [name for name in names if name not in across] == list(plain.vector_names(None))
    assert [view.by for view in network.rekeyed] == [("dest",), ("carrier",), ("tail_number",)]


def test_what_the_network_adds_leaves_the_streams_own_state_as_it_is() -> None:
    plain, network = flight_delay.topology, flight_network.topology
    assert Engine(network).schema == Engine(plain).schema
    assert rekeyed_schema(network) != rekeyed_schema(plain)


def test_every_event_is_sent_on_by_each_of_the_three_keys() -> None:
    for views in keyed_views(flight_network.topology):
        assert views.kinds == (0, 1)
