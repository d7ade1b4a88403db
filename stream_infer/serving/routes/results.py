"""Looking results up, and following them live."""

import asyncio
from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stream_infer.core.checks import KEY_LENGTH_MAX
from stream_infer.serving.errors import NotFoundError
from stream_infer.serving.limits import LIVE_HEARTBEAT_S, LIVE_SEND_TIMEOUT_S
from stream_infer.serving.live import Follower, Hub
from stream_infer.serving.routes.common import services_of

router = APIRouter(tags=["results"])


class LiveResponse(EventSourceResponse):
    """A live stream that gives its place back however it ends."""

    def __init__(self, hub: Hub, follower: Follower) -> None:
        frames: AsyncIterable[bytes] = follower.frames()
        super().__init__(
            frames,
            sep="\n",
            ping=LIVE_HEARTBEAT_S,
            ping_message_factory=lambda: ServerSentEvent(comment="still here"),
            send_timeout=LIVE_SEND_TIMEOUT_S,
        )
        self._hub = hub
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the caller leaves or the server stops."""
        try:
            await super().__call__(scope, receive, send)
        except TimeoutError:
            pass  # The caller reads nothing any more.
        finally:
            self._hub.leave(self._follower)


@router.get("/v1/topologies/{name}/predictions", operation_id="follow", summary="Follow results")
async def follow(
    name: str,
    request: Request,
    per_second: Annotated[int | None, Query(ge=1, le=100_000)] = None,
) -> Response:
    """Follow results live as server-sent events, from now on.

    Events: `prediction`, `outcome`, each second a `summary`; `history` (earlier summaries) first;
    `lost` with the number of events so far that came too fast for this caller; `goodbye` at the
    end. `per_second` bounds the predictions and outcomes sent each second; the others are skipped,
    and counted in the summaries all the same.
    """
    services = services_of(request)
    services.topology(name)
    return LiveResponse(services.hub, services.hub.join(name, per_second))


@router.get(
    "/v1/topologies/{name}/predictions/{key:path}",
    operation_id="latest",
    summary="Latest prediction of a key",
)
async def latest(name: str, key: str, request: Request) -> Response:
    """Return the latest prediction that the stream made for a key."""
    services = services_of(request)
    served = services.topology(name)
    async with asyncio.timeout(services.settings.request_timeout_s):
        found = await served.store.latest_result(key) if len(key) <= KEY_LENGTH_MAX else None
    if found is None:
        raise NotFoundError(
            f"there is no prediction for this {served.topology.key}",
            "path",
            "it has not been predicted yet, or longer ago than the topology's keep_results",
        )
    return Response(found, media_type="application/json")
