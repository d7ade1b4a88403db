"""aiokafka's connections under uvloop: one that was lost a moment ago must be a lost connection.

Between the loss and the turn of the loop in which aiokafka hears of it, uvloop refuses to write
with a RuntimeError. aiokafka expects none, so whichever of its tasks happens to write ends by it:
that which keeps the cluster's metadata, say, and no partition's new leader is ever found again.
"""

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def expect_lost_connections() -> None:
    """Let all of aiokafka's connections say KafkaConnectionError then, as for any other loss."""
    AIOKafkaConnection.send = send


def send(connection: Any, request: Any, expect_response: bool = True) -> Any:
    """Send a request; raises KafkaConnectionError where the connection was lost."""
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"{connection.host}:{connection.port}: {error}") from error
