"""A real Redis for the tests: an embedded one, or a running one whose address is given."""

from pathlib import Path
from typing import Self

import redis

from stream_infer.store.embedded import EmbeddedRedis

DATABASES = 4096


class Redis:
    """One Redis with an append-only file; its data and its address outlive `stop` and `kill`.

    `Redis.running(url)` stands for a server that is not ours: it can be used, not stopped.
    """

    def __init__(self, directory: Path, *, options: dict[str, str] | None = None) -> None:
        databases = {"databases": str(DATABASES)}
        self._server = EmbeddedRedis(directory, options={**databases, **(options or {})})
        self._url = ""

    @classmethod
    def running(cls, url: str) -> Self:
        """The server at `url`, which somebody else runs."""
        server = cls(Path())
        server._url = url
        with redis.Redis.from_url(url) as client:
            client.ping()
        return server

    @property
    def owned(self) -> bool:
        """Whether the tests run this server themselves."""
        return not self._url

    @property
    def url(self) -> str:
        """Address of database 0."""
        return self._url or self._server.url

    @property
    def directory(self) -> Path:
        """Where the append-only file and the log are."""
        return self._server.directory

    def database_url(self, number: int) -> str:
        """Address of database `number`; of database 0 where the server is not ours."""
        return self.url.rsplit("/", 1)[0] + f"/{number}" if self.owned else self.url

    def start(self) -> Self:
        """Start it, again with the same data and address where it ran before."""
        assert self.owned, "this Redis is not ours to start"
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop it cleanly."""
        assert self.owned, "this Redis is not ours to stop"
        self._server.stop()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.owned, "this Redis is not ours to kill"
        self._server.kill()

    def restart(self, *, kill: bool = False) -> Self:
        """Stop it, cleanly or not, and start it with the same data and address."""
        self.kill() if kill else self.stop()
        return self.start()
