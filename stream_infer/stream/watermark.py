"""The contiguous acknowledgement watermark of one partition."""


class Watermark:
    """Offset below which every taken range of offsets is acknowledged.

    Ranges are taken in order and may be acknowledged in any order; offsets between two ranges
    (compaction, transaction markers) hold no event and never hold the watermark back.

    >>> mark = Watermark(10)
    >>> first, second = mark.take(12), mark.take(15)
    >>> mark.acknowledge(second), mark.acknowledge(first)
    (10, 15)
    """

    __slots__ = ("_ends", "_next_ticket", "_open", "position", "taken")

    def __init__(self, position: int) -> None:
        self.position = position
        """All events below this offset are acknowledged."""
        self.taken = position
        """All events below this offset were taken."""
        self._open: set[int] = set()
        self._ends: dict[int, int] = {}
        self._next_ticket = 0

    def take(self, end: int) -> int:
        """Take the offsets from the last taken one up to `end`; return a ticket for them.

        Raises ValueError when `end` lies below what was taken before.
        """
        if end < self.taken:
            raise ValueError(f"offsets up to {self.taken} were taken already, not {end}")
        ticket = self._next_ticket
        self._next_ticket += 1
        self.taken = end
        self._ends[ticket] = end
        self._open.add(ticket)
        return ticket

    def acknowledge(self, ticket: int) -> int:
        """Acknowledge a ticket; return the watermark.

        Raises KeyError for a ticket that is unknown or was acknowledged before.
        """
        self._open.remove(ticket)
        for oldest in list(self._ends):
            if oldest in self._open:
                break
            self.position = self._ends.pop(oldest)
        return self.position

    @property
    def in_flight(self) -> int:
        """Number of tickets not yet acknowledged."""
        return len(self._open)
