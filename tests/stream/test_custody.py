"""Which declarations and settings go together with predicting while Redis is away."""

import pytest

from stream_infer.core.errors import SettingsError
from stream_infer.settings import Settings
from stream_infer.stream.custody import check_away
from tests.laws.rekeyed_shop import rekeyed_topology
from tests.laws.shop import shop_topology


def test_predicting_without_state_is_refused_where_it_would_break_a_promise() -> None:
    degrade = Settings(while_state_away="degrade")
    with pytest.raises(SettingsError, match=r"rekeyed views.*pause"):
        check_away(degrade, rekeyed_topology("network"))
    exactly_once = Settings(while_state_away="degrade", delivery="exactly_once")
    with pytest.raises(SettingsError, match=r"exactly_once.*pause"):
        check_away(exactly_once, shop_topology("shop"))


def test_everything_else_goes_together() -> None:
    check_away(Settings(), rekeyed_topology("network"))
    check_away(Settings(delivery="exactly_once"), rekeyed_topology("network"))
    check_away(Settings(while_state_away="degrade"), shop_topology("shop"))
