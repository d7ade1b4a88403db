"""An open-loop HTTP client: requests at their times, whatever has become of the earlier ones."""

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

CONNECTIONS = 50
ANSWER_MAX_S = 20.0


@dataclass
class Answers:
    """What became of requests: by status, or by the name of what a connection did."""

    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    """Connections that were not accepted: nothing was asked."""
    broken: Counter[str] = field(default_factory=Counter)
    """Requests sent on an accepted connection, and not answered."""
    farewells: int = 0
    """Answers that said `Connection: close`."""
    slowest_s: float = 0.0
    texts: list[str] = field(default_factory=list)
    """The first few answers of an error."""

    @property
    def failed(self) -> int:
        """Requests with a 5xx, or that were accepted and not answered."""
        return sum(n for status, n in self.statuses.items() if status >= 500) + sum(
            self.broken.values()
        )

    def said(self) -> dict[str, Any]:
        """Return it as notes."""
        return {
            "statuses": dict(self.statuses),
            "refused": self.refused,
            "broken": dict(self.broken),
            "farewells": self.farewells,
            "slowest_s": round(self.slowest_s, 2),
        }


class Load:
    """Posts events to a server, `rate` a second, from a thread of its own, until `stop`."""

    def __init__(self, url: str, path: str, rate: float) -> None:
        self.answers = Answers()
        self._url, self._path, self._rate = url, path, rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Answers:
        """Send no more, wait for the answers under way."""
        self._stopping.set()
        self._thread.join(ANSWER_MAX_S + 10)
        return self.answers

    async def _run(self) -> None:
        limits = httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=60
        )
        asking: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(
            base_url=self._url, limits=limits, timeout=ANSWER_MAX_S
        ) as client:
            start_s, number = time.monotonic(), 0
            while not self._stopping.is_set():
                await asyncio.sleep(max(start_s + number / self._rate - time.monotonic(), 0))
                task = asyncio.create_task(self._ask(client, number))
                asking.add(task)
                task.add_done_callback(asking.discard)
                number += 1
            await asyncio.gather(*asking)

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        event = {
            "type": "sale",
            "sale_id": f"http-{number}",
            "shop": f"shop-{number % 150}",
            "at": "2024-01-01T00:00:00Z",
            "amount": 12.5,
        }
        answers, began_s = self.answers, time.monotonic()
        try:
            answer = await client.post(self._path, content=json.dumps(event).encode())
        except httpx.ConnectError:
            answers.refused += 1
            return
        except httpx.HTTPError as error:
            answers.broken[type(error).__name__] += 1
            return
        answers.slowest_s = max(answers.slowest_s, time.monotonic() - began_s)
        answers.statuses[answer.status_code] += 1
        answers.farewells += answer.headers.get("connection") == "close"
        if answer.status_code != 200 and len(answers.texts) < 3:
            answers.texts.append(answer.text[:200])
