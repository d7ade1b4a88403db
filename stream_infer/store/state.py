"""Rows and log positions in Redis: stored in one transaction, fenced by an ownership epoch.

All keys of one partition of one topology share a hash tag, so that Redis Cluster keeps them
together and the transaction spans all views:

    si:{TOPOLOGY:PARTITION}:meta        hash: epoch, next_offset, stream_time_us, partitions, schema
                                        and, where Redis evicts, evictions, discarding
                                        (a topology of several streams: `123,45`, one for each)
    si:{TOPOLOGY:PARTITION}:SHARD:KEY   string: one packed row, expiring when idle
                                        (and a minute later at most)
"""

import re
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from stream_infer.core.errors import FencedError, StateError, StateLostError
from stream_infer.core.state import RESULTS, Position, Snapshot
from stream_infer.store.eviction import (
    NOT_TOLD,
    UNKNOWN,
    Memory,
    may_lack_rows,
    memory_command,
    read_memory,
)
from stream_infer.store.row_writer import RowWriter, Write

DISCARDED_AT_ONCE = 500


class Ownership(msgspec.Struct, frozen=True):
    """The right to write one partition's rows, until somebody else acquires it.

    `position` has the first offset of each stream that is not folded into the stored rows, None
    where nothing is stored. `suspect` rows must be discarded before any is read: some may be gone.
    """

    partition: int
    epoch: int
    position: Position | None
    stream_times_us: Position | None
    memory: Memory
    suspect: bool = False


def position_text(position: Position | None) -> str:
    """Return a position as it is stored: its numbers with commas between, nothing for none."""
    return "" if position is None else ",".join(map(str, position))


def read_position(stored: bytes | None) -> Position | None:
    """Return a position from its stored text, None where nothing is stored."""
    return tuple(map(int, stored.split(b","))) if stored else None


def partition_prefix(topology: str, partition: int) -> str:
    """Return what all keys of one partition begin with; the hash tag is in braces."""
    return f"si:{{{topology}:{partition}}}:"


class StateStore:
    """State of one topology; `schema` and `partitions` must equal what made the stored rows.

    Every method raises redis.RedisError when Redis does not answer, `write` within `timeout_s`.
    """

    def __init__(
        self, redis: Redis, topology: str, schema: str, partitions: int, *, timeout_s: float = 10.0
    ) -> None:
        self._redis = redis
        self.topology = topology
        self._schema = schema
        self._partitions = partitions
        discard = files("stream_infer.store").joinpath("discard.lua").read_text()
        self._discard = redis.register_script(discard)
        self._writer = RowWriter(redis, timeout_s)

    async def check(self) -> None:
        """Raise StateError when stored rows do not fit, of any partition (see `acquire`)."""
        for partition in range(self._partitions):
            meta = partition_prefix(self.topology, partition) + "meta"
            self._check(
                partition, await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(meta))
            )

    async def answers(self) -> None:
        """Ask for every partition's header; raises where one of them cannot be read."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(self._partitions):
            pipeline.execute_command(*self.header_command(partition))
        await pipeline.execute()

    async def acquire(self, partition: int) -> Ownership:
        """Take a partition: all earlier owners are fenced from now on.

        Raises StateError when the stored rows were made with another number of partitions or other
        features: they would not mean what they say.
        """
        prefix = partition_prefix(self.topology, partition)
        meta = prefix + "meta"
        self._writer.forget(prefix)
        stored = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(meta))
        self._check(partition, stored)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hincrby(meta, "epoch", 1)
        pipeline.hset(meta, mapping={"partitions": self._partitions, "schema": self._schema})
        pipeline.hmget(meta, ["next_offset", "stream_time_us"])
        epoch, _, (next_offset, stream_time_us) = await pipeline.execute()
        # Asked for when all earlier owners are fenced: what is evicted from now on is noticed.
        memory = await self._memory(meta)
        suspect = may_lack_rows(stored, memory)
        if not suspect:
            await self._mark_evictions(meta, stored, memory)
        return Ownership(
            partition,
            int(epoch),
            read_position(next_offset),
            read_position(stream_time_us),
            memory,
            suspect,
        )

    async def discard(self, ownership: Ownership) -> Ownership:
        """Delete all rows of a partition, in batches; return the ownership of an empty one.

        Raises as `write` does; what is left of an interrupted call, the next owner deletes.
        """
        prefix = partition_prefix(self.topology, ownership.partition)
        meta = prefix + "meta"

        async def step(what: str, keys: Sequence[bytes | str] = (), mark: str = "") -> None:
            answer = await self._discard(keys=[meta, *keys], args=[ownership.epoch, what, mark])
            if answer <= 0:
                raise self._fenced(ownership) if answer == 0 else self._lost(ownership)

        await step("begin")
        batch: list[bytes | str] = []
        async for key in self._scan(prefix):
            if key != meta.encode():
                batch.append(key)
            if len(batch) >= DISCARDED_AT_ONCE:
                await step("rows", batch)
                batch = []
        await step("rows", batch)
        memory = await self._memory(meta)
        await step("end", (), memory.mark if memory.may_evict else "")
        return replace(ownership, position=None, stream_times_us=None, memory=memory, suspect=False)

    def _scan(self, prefix: str) -> AsyncIterator[bytes]:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        options: dict[str, Any] = {"match": pattern, "count": DISCARDED_AT_ONCE}
        if isinstance(self._redis, RedisCluster):
            options["target_nodes"] = self._redis.get_node_from_key(prefix + "meta")
        return self._redis.scan_iter(**options)

    async def _memory(self, meta: str) -> Memory:
        try:
            command = memory_command(meta)
            return read_memory(await self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if not any(word in str(error) for word in NOT_TOLD):
                raise
            return UNKNOWN

    async def _mark_evictions(self, meta: str, stored: dict[bytes, bytes], memory: Memory) -> None:
        if memory.may_evict:
            await cast(Awaitable[int], self._redis.hset(meta, "evictions", memory.mark))
        elif b"evictions" in stored:
            await cast(Awaitable[int], self._redis.hdel(meta, "evictions"))

    def _check(self, partition: int, stored: dict[bytes, bytes]) -> None:
        made_with = stored.get(b"partitions")
        if made_with is not None and int(made_with) != self._partitions:
            raise StateError(
                f"topology {self.topology!r}: its state was made with {int(made_with)} partitions, "
                f"the topic has {self._partitions}: keys lie elsewhere now. Restore the partition "
                "count, or give the topology a new name to start from empty state"
            )
        schema = stored.get(b"schema")
        if schema is not None and schema.decode() != self._schema:
            raise StateError(
                f"topology {self.topology!r}, partition {partition}: its state was made by other "
                "feature declarations. Give the topology a new name to start from empty state, "
                "or restore the declarations"
            )

    def row_keys(self, partition: int, shard: str, keys: Iterable[str]) -> list[str]:
        """Return the Redis keys of rows, for a caller that reads them."""
        prefix = f"{partition_prefix(self.topology, partition)}{shard}:"
        return [prefix + key for key in keys]

    async def write(self, ownership: Ownership, snapshot: Snapshot) -> Ownership:
        """Store rows and position, all or nothing; return the ownership with the new position.

        Raises FencedError when the partition has another owner by now, and StateLostError when
        what is stored is not what `ownership` says: nothing is stored then.
        """
        (written,) = await self.write_all([(ownership, snapshot)])
        if isinstance(written, BaseException):
            raise written
        return written

    async def write_all(
        self, writes: Sequence[tuple[Ownership, Snapshot]]
    ) -> list[Ownership | BaseException]:
        """Store what `write` would, of several partitions at once; return what it would, or raise.

        Each partition is stored for itself: what happens to one says nothing of another.
        """
        answers = await self._writer.write(
            [
                Write(
                    partition_prefix(self.topology, ownership.partition),
                    ownership.epoch,
                    position_text(ownership.position),
                    position_text(snapshot.position),
                    position_text(snapshot.stream_times_us),
                    snapshot.rows,
                )
                for ownership, snapshot in writes
            ]
        )
        return [
            self._written(ownership, snapshot, answer)
            for (ownership, snapshot), answer in zip(writes, answers, strict=True)
        ]

    def _written(
        self, ownership: Ownership, snapshot: Snapshot, answer: int | BaseException
    ) -> Ownership | BaseException:
        if isinstance(answer, BaseException):
            return answer
        if answer <= 0:
            return self._fenced(ownership) if answer == 0 else self._lost(ownership)
        return replace(ownership, position=snapshot.position)

    def memory_command(self, partition: int) -> tuple[str | int, ...]:
        """Return the command whose reply an `EvictionWatch` takes, for a caller to send."""
        return memory_command(partition_prefix(self.topology, partition) + "meta")

    def header_command(self, partition: int) -> tuple[str, ...]:
        """Return the command whose reply `check_header` takes, for a caller to send."""
        meta = partition_prefix(self.topology, partition) + "meta"
        return ("HMGET", meta, "epoch", "next_offset")

    def check_header(self, ownership: Ownership, header: Sequence[bytes | None]) -> None:
        """Check that rows read together with `header` are at least as new as `ownership` says.

        Raises as `write` does.
        """
        epoch, position = header[0], read_position(header[1])
        if epoch is not None and int(epoch) != ownership.epoch:
            raise self._fenced(ownership)
        known = ownership.position or ()
        now = position or (0,) * len(known)
        # Any topic's number that is lower means an earlier place.
        if epoch is None or any(map(int.__lt__, now, known)):
            raise self._lost(ownership)

    def _fenced(self, ownership: Ownership) -> FencedError:
        return FencedError(
            f"topology {self.topology!r}, partition {ownership.partition}: another worker has "
            "taken it over; this one gives it up"
        )

    def _lost(self, ownership: Ownership) -> StateLostError:
        return StateLostError(
            f"topology {self.topology!r}, partition {ownership.partition}: Redis has lost rows "
            f"that it had stored up to offset {position_text(ownership.position)}; folding on "
            "from what it has"
        )

    async def latest_result(self, key: str) -> bytes | None:
        """Return the result of a key with the latest event time, whichever partition it is in."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(self._partitions):
            pipeline.get(self.row_keys(partition, RESULTS, [key])[0])
        found = [payload for payload in await pipeline.execute() if payload is not None]
        return max(found, key=lambda result: _decode(result).event_time) if found else None


class _Timed(msgspec.Struct):
    event_time: datetime


_decode = msgspec.json.Decoder(_Timed).decode
