"""What the terminal shows of dead letters, whose content nobody vouches for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_infer.stream.letters import Letter


def summary(letter: "Letter") -> dict[str, Any]:
    """Return what `ls` says of a letter."""
    return {
        "letter": letter.place,
        "stage": letter.stage,
        "reason": letter.reason,
        "source": letter.source._asdict() if letter.source else None,
        "time": moment(letter.timestamp_ms),
        "bytes": letter.size_bytes,
    }


def content(name: str, value: bytes | None) -> dict[str, str | None]:
    """Return bytes as `NAME`, or as `NAME_hex` where they are no text."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_hex": value.hex()}


def readable(value: bytes | None) -> str:
    """Return bytes for a terminal."""
    if value is None:
        return "none"
    (name, text), *_ = content("text", value).items()
    return printable(text or "") if name == "text" else f"(hex) {text}"


def printable(text: str) -> str:
    """Return text with all that could steer a terminal escaped: line ends, colours, directions.

    >>> printable("red: \\x1b[31m")
    'red: \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def moment(timestamp_ms: int) -> str:
    """Return a time as text, in UTC; "?" for one that no calendar has."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError, OSError):
        return "?"


def print_table(shown: list[tuple["Letter", bool]]) -> None:
    """Print letters as columns; the reason comes last, as it may be long."""
    rows: list[tuple[str, ...]] = [
        ("LETTER", "STAGE", "SOURCE", "SET ASIDE", "BYTES", "REPLAYED", "REASON")
    ]
    for letter, done in shown:
        source = letter.source
        where = f"{source.topic} {source.partition}:{source.offset}" if source else "?"
        cells = (letter.place, letter.stage, where, moment(letter.timestamp_ms))
        more = (f"{letter.size_bytes:,}", "yes" if done else "no", letter.reason)
        rows.append(tuple(printable(cell) for cell in (*cells, *more)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        print(*map(str.ljust, row, widths), row[-1])
