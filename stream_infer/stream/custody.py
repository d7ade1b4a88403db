"""What becomes of partitions while Redis is away: their callers wait, or go on without rows."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set

from stream_infer.core.errors import SettingsError
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.connection import UNREACHABLE
from stream_infer.store.state import StateStore
from stream_infer.stream.absence import Absence
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.processing import TP


class Custody:
    """Acquires and gives back holdings, and lets their rows go when Redis cannot be reached.

    Under `while_state_away = "pause"`, every error goes to the caller, who tries again. `still` is
    set while no micro-batch is being folded into rows: they are not let go under its hands.
    """

    def __init__(
        self, holdings: Holdings, store: StateStore, settings: Settings, counters: TopologyCounters
    ) -> None:
        self._holdings = holdings
        self._store = store
        self._absence = Absence(settings, store.answers)
        self._degrades = settings.while_state_away == "degrade"
        self._counters = counters
        self.still = asyncio.Event()
        self.still.set()

    async def take(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> dict[TP, int]:
        """Acquire partitions, or take them without rows; return where to read on."""
        try:
            if self._degrades:
                await self._absence.tried(self._store.answers)
            positions = await self._holdings.acquire(partitions, committed)
        except UNREACHABLE as error:
            if not self._degrades:
                raise
            positions = self._holdings.go_without(partitions, committed)
            await self._leave(error)
        finally:
            self._counters.state_discards = self._holdings.evictions.discards
        await self._settle()
        return positions

    async def attempt(self, call: Callable[[], Awaitable[None]]) -> None:
        """Await a read or a write; where Redis is away, and we are to go on, go on without rows."""
        if not self._degrades:
            await call()
            return
        try:
            await self._absence.tried(call)
        except UNREACHABLE as error:
            await self._leave(error)

    def readable_again(self) -> Set[TP]:
        """Return the partitions that are held without rows, once Redis answers again."""
        return frozenset(self._holdings.away) if self._absence.over else frozenset()

    async def give_back(self, partitions: Sequence[TP]) -> None:
        """Store what is left of partitions, then forget them."""
        try:
            await self._holdings.give_back(partitions)
        finally:
            await self._settle()

    async def _leave(self, error: BaseException) -> None:
        await self.still.wait()
        self._holdings.leave()
        self._absence.begin(error)
        self._counters.state_away = True

    async def _settle(self) -> None:
        """Stop looking for Redis when no partition is without rows any more."""
        if not self._holdings.away:
            await self._absence.end()
            self._counters.state_away = False


def check_away(settings: Settings, topology: Topology) -> None:
    """Raise SettingsError where predicting without state would break what else is promised."""
    if settings.while_state_away != "degrade":
        return
    remedy = 'set while_state_away = "pause"'
    if topology.rekeyed:
        raise SettingsError(
            f"topology {topology.name!r} has rekeyed views, which cannot be sent on without state: "
            f"{remedy}"
        )
    if settings.delivery == "exactly_once":
        raise SettingsError(
            'delivery = "exactly_once" is not tested together with while_state_away = "degrade": '
            f"{remedy}"
        )
