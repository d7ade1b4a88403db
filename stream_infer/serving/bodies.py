"""Request bodies: read within bounds, and cut into events without understanding them."""

import asyncio
import re
from collections.abc import Sequence

import msgspec
from starlette.requests import ClientDisconnect, Request

from stream_infer.core.columns import Reject
from stream_infer.serving.errors import (
    EventProblem,
    InvalidJsonError,
    NotAcceptableError,
    ServingError,
    TooLargeError,
    TooSlowError,
)

_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_PATH = re.compile(r" - at `\$(.*)`$")


class Body(msgspec.Struct, frozen=True, gc=False):
    """Events of one request as bytes; `many` where they came in an array."""

    events: list[bytes]
    many: bool


async def read_body(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """Return a request's body; it is not read on once it is too large or too slow."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                parts.append(part)
    except TimeoutError:
        raise TooSlowError(
            f"the body did not arrive within {timeout_s:g} s", "body", "send it faster"
        ) from None
    except ClientDisconnect:
        raise TooSlowError("the caller went away", "body", "send the whole body") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def cut(body: bytes, events_max: int) -> Body:
    """Cut a body into events: an array holds several, anything else is one.

    Raises InvalidJsonError, and TooLargeError where there are more than `events_max`.
    """
    start = body.lstrip()[:1]
    if not start:
        raise InvalidJsonError(
            "the body is empty", "body", "send an event as JSON, or an array of them"
        )
    if start != b"[":
        return Body([body], False)
    try:
        events = list(map(bytes, _RAW_LIST.decode(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJsonError(
            str(error), "body", "send an event as JSON, or an array of them"
        ) from None
    if not events:
        raise NotAcceptableError("the array is empty", "body", "send at least one event")
    if len(events) > events_max:
        raise TooLargeError(
            f"{len(events)} events are more than {events_max}",
            "body",
            "send fewer at a time, or raise STREAM_INFER_HTTP_EVENTS_MAX",
        )
    return Body(events, True)


def predictions_json(body: Body, predictions: Sequence[bytes]) -> bytes:
    """Return the answer to a body: its event's prediction, or those of its array, in its order."""
    if body.many:
        return b'{"predictions":[%b]}' % b",".join(predictions)
    return predictions[0]


def place_and_reason(reason: str, index: int, many: bool) -> tuple[str, str]:
    """Split a decoder's message into where in the body it is, as `$[2].distance_mi`, and why.

    >>> place_and_reason("Expected `float`, got `str` - at `$.distance_mi`", 2, True)
    ('$[2].distance_mi', 'Expected `float`, got `str`')
    """
    root = f"$[{index}]" if many else "$"
    found = _PATH.search(reason)
    if found is None:
        return root, reason
    return root + found[1], reason[: found.start()]


def refusal(body: Body, start: int, rejects: Sequence[Reject]) -> ServingError:
    """Return the error for a request with unacceptable events; its first event is at `start`."""
    first = rejects[0]
    if not body.many and _is_not_json(body.events[0]):
        return InvalidJsonError(first.reason, "body", "send an event as JSON, or an array of them")
    problems = []
    for reject in rejects:
        index = reject.position - start
        where, what = place_and_reason(reject.reason, index, body.many)
        problems.append(EventProblem(index, where, what))
    what = problems[0].what
    if len(problems) > 1:
        what = f"{len(problems)} of {len(body.events)} events are not acceptable; first: {what}"
    return NotAcceptableError(
        what, problems[0].where, "correct the event; its schema is in /openapi.json", problems
    )


def _is_not_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(
        f"the body is larger than {bytes_max} bytes",
        "body",
        "send less at a time, or raise STREAM_INFER_HTTP_BODY_BYTES_MAX",
    )
