"""A RESP2 client of a few lines, so that these checks need nothing but Python.

It knows requests as arrays of bulk strings, and replies of the RESP2 kinds. A refusal is a value
(`Refused`), since these checks test refusals; a broken connection raises OSError.
"""

from __future__ import annotations

import socket


class Refused(str):
    """An error reply, identified by its first word."""

    @property
    def word(self) -> str:
        return self.split(" ", 1)[0]


class Connection:
    def __init__(self, address: str, timeout: float = 60):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")

    def send(self, *words: object) -> None:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(request)

    def receive(self):
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            body = self.input.read(int(rest) + 2)
            if len(body) != int(rest) + 2:
                raise ConnectionError("the server closed the connection")
            return body[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.receive() for _ in range(int(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line!r}")

    def call(self, *words: object):
        self.send(*words)
        return self.receive()

    def close(self) -> None:
        self.input.close()
        self.socket.close()


def pairs(flat: list) -> dict[str, object]:
    """A RESP2 map."""
    return {key.decode(): value for key, value in zip(flat[::2], flat[1::2])}
