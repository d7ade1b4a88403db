"""Changed rows on their way to Redis: a script for each partition, several in one round trip."""

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError

from stream_infer.core.state import StoredRows
from stream_infer.store.commands import Command, Commands

EXPIRY_KEPT_S = 60
"""Rows expire up to so long after their idle time: a write need not set it anew within this."""
ROWS_TOGETHER_MAX = 1_000
"""Scripts of more rows in all are sent one after the other: what Redis finds in one connection it
does without looking at any other, so that reads would wait for all of them."""
KEYS_KEPT_MAX = 65_536
"""Rows of a partition, at most, of which it is remembered that their expiry was set lately."""


class Write(NamedTuple):
    """What to store of one partition, whose keys begin with `prefix`; positions as texts."""

    prefix: str
    epoch: int
    before: str
    after: str
    stream_times_us: str
    rows: Sequence[StoredRows]


@dataclass(slots=True)
class _Lately:
    """Rows whose expiry this owner set, by group, and until when that counts, by the server."""

    until_s: int = 0
    keys: dict[str, set[str]] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return sum(map(len, self.keys.values())) < KEYS_KEPT_MAX


class _Prepared(NamedTuple):
    keys: list[str]
    arguments: list[Any]
    expiring: list[tuple[str, list[str]]]
    rows: int


class RowWriter:
    """Writes rows and positions; a row that is written often has its expiry set now and then."""

    def __init__(self, redis: Redis, timeout_s: float) -> None:
        self._text = files("stream_infer.store").joinpath("state.lua").read_text()
        self._script = redis.register_script(self._text)
        self._commands = Commands(redis, timeout_s, shared=False)
        # A node that is giving a slot away checks the keys that a script names before it runs it;
        # at any other key it would stop in the middle.
        self._cluster = isinstance(redis, RedisCluster)
        self._lately: dict[str, _Lately] = {}

    async def write(self, writes: Sequence[Write]) -> list[int | BaseException]:
        """Store each partition's rows, all or nothing; return what came of each, in their order.

        An answer is positive where rows were stored, 0 where the epoch is not the newest any more,
        -1 where `before` is not what is stored; or it is an error.
        """
        prepared = [self._prepared(write) for write in writes]
        answers = await self._answers(prepared)
        for write, sent, answer in zip(writes, prepared, answers, strict=True):
            if isinstance(answer, int) and answer > 0:
                self._stored(write, sent, answer)
            else:
                self.forget(write.prefix)
        return answers

    def forget(self, prefix: str) -> None:
        """Set the expiry of all rows anew: the server may have gone back to older ones."""
        self._lately.pop(prefix, None)

    async def _answers(self, prepared: Sequence[_Prepared]) -> list[int | BaseException]:
        if self._cluster:
            scripts = (self._script(keys=p.keys, args=p.arguments) for p in prepared)
            called: list[int | BaseException] = await asyncio.gather(
                *scripts, return_exceptions=True
            )
            return called
        sha = self._script.sha
        evaluations: list[Command] = [
            ("EVALSHA", sha, len(one.keys), *one.keys, *one.arguments) for one in prepared
        ]
        together = sum(one.rows for one in prepared) <= ROWS_TOGETHER_MAX
        answers: list[int | BaseException] = []
        try:
            for calls in [evaluations] if together else [[one] for one in evaluations]:
                answers += await self._called(calls)
        except Exception as error:  # A server that did not answer is not waited for once more.
            answers += [error for _ in evaluations[len(answers) :]]
        return answers

    async def _called(self, calls: Sequence[Command]) -> list[int | BaseException]:
        """Send calls once, and those again that were refused for want of the script."""
        answers = await self._commands.attempt(calls)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server was started anew
            load: Command = ("SCRIPT", "LOAD", self._text)
            _, *again = await self._commands.attempt([load, *(calls[n] for n in unknown)])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return answers

    def _prepared(self, write: Write) -> _Prepared:
        lately = self._lately.get(write.prefix, _Lately())
        groups: list[tuple[str, str, str, list[str], list[int]]] = []
        payloads: list[bytes] = []
        expiring: list[tuple[str, list[str]]] = []

        def add(group: StoredRows, rows: Sequence[tuple[str, bytes]], kept: str) -> list[str]:
            keys, parts = [row[0] for row in rows], [row[1] for row in rows]
            idle_ms = group.ttl_ms + EXPIRY_KEPT_S * 1000
            prefix = f"{write.prefix}{group.shard}:"
            groups.append((prefix, str(idle_ms), kept, keys, list(map(len, parts))))
            payloads.extend(parts)
            return keys

        for group in write.rows:
            known: Container[str] = lately.keys.get(group.shard, ())
            fresh = [row for row in group.rows if row[0] not in known]
            if fresh:
                expiring.append((group.shard, add(group, fresh, "")))
            if len(fresh) < len(group.rows):
                add(group, [row for row in group.rows if row[0] in known], "kept")
        names = [write.prefix + "meta"]
        if self._cluster:
            names += chain.from_iterable((g[0] + key for key in g[3]) for g in groups)
        arguments = [
            write.epoch,
            write.before,
            write.after,
            write.stream_times_us,
            msgspec.json.encode(groups),
            b"".join(payloads),
            lately.until_s,
        ]
        return _Prepared(names, arguments, expiring, len(payloads))

    def _stored(self, write: Write, sent: _Prepared, now_s: int) -> None:
        """Remember whose expiry was set; `now_s` is the server's clock when it stored them."""
        lately = self._lately.setdefault(write.prefix, _Lately())
        if now_s >= lately.until_s:
            lately.until_s = now_s + EXPIRY_KEPT_S
            lately.keys.clear()
        if lately.has_room:
            for shard, keys in sent.expiring:
                lately.keys.setdefault(shard, set()).update(keys)
