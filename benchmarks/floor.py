"""A server that answers any request with the same bytes: how fast `benchmarks.load` can be.

`python -m benchmarks.floor` prints its port and serves until SIGTERM.
"""

import select
import socket
import sys

_BODY = b'{"score":1.0}' + b" " * 400
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


def _answered(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(65_536)) and bool(connection.send(ANSWER))
    except OSError:
        return False


def main() -> int:
    """Serve."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                made = listener.accept()[0]
                connections[made.fileno()] = made
                poll.register(made.fileno(), select.EPOLLIN)
            elif not _answered(connections[number]):
                poll.unregister(number)
                connections.pop(number).close()


if __name__ == "__main__":
    sys.exit(main())
