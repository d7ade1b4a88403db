"""The year's events, prepared once for the tests of the flight example."""

import pytest

from topologies.flights_data import Paths, prepare


@pytest.fixture(scope="session")
def flight_events(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The event log of 2013."""
    return prepare(tmp_path_factory.mktemp("flights"))
