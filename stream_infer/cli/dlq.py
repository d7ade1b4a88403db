"""`dlq`: list the dead letters of a topology, look at one, send them back to the stream."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_infer.cli.letter_text import (
    content,
    moment,
    print_table,
    printable,
    readable,
    summary,
)
from stream_infer.cli.options import Broker, Json, TopologyName, settings_of, topology_of
from stream_infer.cli.output import FAILED, emit_json, fail, say

if TYPE_CHECKING:
    from stream_infer.core.topology import Topology
    from stream_infer.stream.letters import Letter, Selection
    from stream_infer.stream.redelivery import Report

LISTED = 100
REASONS_MAX = 1_000
"""Reasons that are counted apart; what has others is counted together."""
OTHER_REASONS = "(other reasons)"

Reason = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Those whose reason contains this.", show_default=False),
]
Stage = Annotated[
    str | None,
    typer.Option(help="Those of a stage: decode, validate, publish, …", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Those set aside from then on: 2026-01-31, 2026-01-31T12:00 (UTC), or 2h ago as 2h.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Those set aside before then.", show_default=False),
]


def ls(
    topology: TopologyName,
    reason: Reason = None,
    stage: Stage = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Show the N oldest.")] = LISTED,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first, and count all that are selected by stage and reason."""
    from stream_infer.cli import kafka

    settings = settings_of(broker=broker)
    declared, selection = topology_of(topology), selection_of(reason, stage, since, until)
    shown, counts = kafka.run(settings.broker, listed(settings.broker, declared, selection, limit))
    if json:
        emit_json(
            {
                "topic": declared.dead_letters,
                "letters": [summary(letter) | {"replayed": done} for letter, done in shown],
                "selected": counts.total(),
                "by_reason": [
                    {"stage": stage, "reason": reason, "letters": count}
                    for (stage, reason), count in counts.most_common()
                ],
            }
        )
        return
    if shown:
        print_table(shown)
    total = counts.total()
    print(f"{declared.dead_letters}: {total:,} letters, {len(shown):,} shown")
    for (stage, reason), count in counts.most_common():
        print(f"{count:>9,}  {printable(stage) or '?'}  {printable(reason)}")


def show(
    topology: TopologyName,
    place: Annotated[
        str,
        typer.Argument(
            metavar="PARTITION:OFFSET", help="Where it is, as `ls` shows it.", show_default=False
        ),
    ],
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Show one dead letter: its headers, its key, its body as text or, if it is none, in hex."""
    from stream_infer.cli import kafka
    from stream_infer.stream.letters import is_mark, letter_of
    from stream_infer.stream.log_reader import LogReader

    settings = settings_of(broker=broker)
    declared = topology_of(topology)
    partition, colon, offset = place.partition(":")
    if not colon or not all(text.isascii() and text.isdigit() for text in (partition, offset)):
        raise typer.BadParameter(
            f"{place!r} is not PARTITION:OFFSET", param_hint="PARTITION:OFFSET"
        )

    async def work() -> Any:
        async with LogReader(settings.broker) as log:
            return await log.at(declared.dead_letters, int(partition), int(offset))

    record = kafka.run(settings.broker, work())
    if record is None:
        fail(f"topic {declared.dead_letters!r} has no record at {place}, or no longer")
    if is_mark(record.headers):
        fail(f"{place} is no letter: it says that another one was replayed")
    letter = letter_of(record)
    headers = [(name, (value or b"").decode("utf-8", "replace")) for name, value in letter.headers]
    if json:
        emit_json(
            summary(letter)
            | {"headers": headers, **content("key", letter.key), **content("body", letter.value)}
        )
        return
    for name, text in (("set aside", moment(letter.timestamp_ms)), *headers):
        print(f"{printable(name)}: {printable(text)}")
    for name, value in (("key", letter.key), ("body", letter.value)):
        print(f"{name}: {readable(value)}")


def replay(
    topology: TopologyName,
    reason: Reason = None,
    stage: Stage = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The N oldest not replayed yet.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Send dead letters back to the stream that they came from, each once.

    They are new records there: what is older than the stream's lateness is dropped as late.
    """
    from stream_infer.cli import kafka
    from stream_infer.stream.redelivery import Replay

    settings = settings_of(broker=broker)
    declared, selection = topology_of(topology), selection_of(reason, stage, since, until)

    async def work() -> "Report":
        return await Replay(settings.broker, declared, selection).run(limit=limit, dry=dry_run)

    report = kafka.run(settings.broker, work())
    if json:
        emit_json(
            {
                "topic": declared.stream.name,
                "dry_run": dry_run,
                "replayed": report.replayed,
                "replayed_before": report.before,
                "accepted_before": report.folded,
                "skipped": dict(report.skipped),
                "failed": dict(report.failed),
                "left_out": [{"letter": at, "reason": why} for at, why in report.named],
            }
        )
    else:
        say_report(declared, report, dry=dry_run)
    if report.failed:
        raise typer.Exit(FAILED)


async def listed(
    broker: str, topology: "Topology", selection: "Selection", limit: int
) -> tuple[list[tuple["Letter", bool]], Counter[tuple[str, str]]]:
    """Return the oldest selected letters, and whether replayed; and all by (stage, reason)."""
    from stream_infer.stream.letters import Oldest, letters, replayed
    from stream_infer.stream.log_reader import LogReader

    topic = topology.dead_letters
    oldest = Oldest(limit)
    counts: Counter[tuple[str, str]] = Counter()
    async with LogReader(broker) as log:
        spans = await log.spans(topic)
        done = await replayed(log, topic, spans)
        async for letter in letters(log, topic, spans, selection):
            oldest.add(letter)
            cause = (letter.stage, letter.reason)
            if cause not in counts and len(counts) >= REASONS_MAX:
                cause = ("", OTHER_REASONS)
            counts[cause] += 1
    return [(letter, letter.source in done) for letter in oldest.letters()], counts


def selection_of(
    reason: str | None, stage: str | None, since: str | None, until: str | None
) -> "Selection":
    """Return what the options select; raises BadParameter for what is no time."""
    from stream_infer.stream.letters import Selection

    return Selection(
        reason=reason,
        stage=stage,
        since_ms=milliseconds(since, "--since"),
        until_ms=milliseconds(until, "--until"),
    )


def milliseconds(text: str | None, option: str) -> int | None:
    """Return a time in milliseconds since the epoch: a date with or without time, or a duration
    before now.
    """
    import time
    from datetime import UTC, datetime

    from stream_infer.core.durations import microseconds
    from stream_infer.core.errors import DeclarationError

    if text is None:
        return None
    try:
        return round(time.time() * 1000) - microseconds(text) // 1000
    except DeclarationError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a date, as 2026-01-31T12:00, nor a duration, as 2h",
            param_hint=option,
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def say_report(topology: "Topology", report: "Report", *, dry: bool) -> None:
    """Say what a replay did; what was left out goes to standard error."""
    verb = "would be sent to" if dry else "sent to"
    names = " and ".join(stream.name for stream in topology.streams)
    print(f"{report.replayed:,} letters {verb} {names}; {report.before:,} were replayed before")
    if report.folded:
        say(
            f"{report.folded:,} of them are events that were accepted before, whose result could "
            "not be published: a stream with event_id drops them as duplicates, another one "
            "counts them twice"
        )
    for at, why in report.named:
        say(f"{at}: {printable(why)}")
    if (more := report.skipped.total() + report.failed.total() - len(report.named)) > 0:
        say(f"and {more:,} more")
