"""A small file system filled, freed and filled again, with reads all the time.

    full_disk.py PATH [--cycles N]

It mounts a tmpfs of 48 MiB in a mount namespace of its own (`unshare -Urm`), which needs no
privileges. Each cycle fills the free space with a file of zeros and writes until the server refuses
with FULL; then the zeros are removed.

Checked (P1, P6):
  - a write is refused with FULL or acknowledged, nothing else; the server stays up;
  - reads of old and of fresh entries are right at any time;
  - a write is acknowledged within a second after space is freed, without a restart;
  - at the end, and after a restart, everything acknowledged is there and nothing that was refused.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ledger import SMALL, Broken, directory, entries, parser_of, server, told
from resp import Connection, Refused

KEY, OLD = "messages:disk", "messages:old"
SPACE_SECONDS = 1.0


class Reader(threading.Thread):
    """Reads continuously, and compares."""

    def __init__(self, address: str, acknowledged: list[bytes], old: list[bytes]):
        super().__init__(daemon=True)
        self.connection, self.acknowledged, self.old = Connection(address), acknowledged, old
        self.reads, self.stop, self.problem = 0, threading.Event(), ""

    def run(self) -> None:
        while not self.stop.is_set() and not self.problem:
            known = len(self.acknowledged)
            fresh = self.connection.call("TL.REVRANGE", KEY, "+", "-", "COUNT", 3)
            if isinstance(fresh, Refused) or any(self.wrong(seq, body) for seq, _, body in fresh):
                self.problem = f"a read of fresh entries gave {fresh!r:.200}"
            elif fresh and fresh[0][0] < known:
                self.problem = f"{known} entries were acknowledged, and a read ends at {fresh[0][0]}"
            old = self.connection.call("TL.RANGE", OLD, "-", "+", "COUNT", 10)
            if isinstance(old, Refused) or [body for _, _, body in old] != self.old:
                self.problem = f"a read of old entries gave {old!r:.200}"
            self.reads += 1

    def wrong(self, seq: int, body: bytes) -> bool:
        return seq <= len(self.acknowledged) and self.acknowledged[seq - 1] != body


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        piece = b"\0" * 65536
        try:
            while True:
                file.write(piece)
        except OSError:
            return


def cycle(connection: Connection, zeros: Path, acknowledged: list[bytes]) -> tuple[int, float]:
    """Fills the disk, is refused, frees it. Returns the number of refused writes, and the time of
    the first accepted one."""
    fill(zeros)
    refused = 0
    for _ in range(5000):
        reply = append(connection, acknowledged)
        if reply is None:
            continue
        if reply.word != "FULL":
            raise Broken(f"a full disk is told as {reply}")
        refused += 1
        if refused == 20:
            break
    if refused == 0:
        raise Broken("5000 writes found space on a full disk")
    zeros.unlink()
    freed = time.monotonic()
    while reply := append(connection, acknowledged):
        if reply.word != "FULL":
            raise Broken(f"a disk with space again is told as {reply}")
        if time.monotonic() - freed > SPACE_SECONDS:
            raise Broken(f"there is space since {SPACE_SECONDS} s, and a write is refused: {reply}")
        time.sleep(0.005)
    return refused, time.monotonic() - freed


def append(connection: Connection, acknowledged: list[bytes]) -> Refused | None:
    body = f"{len(acknowledged) + 1} ".encode() + b"." * 2000
    reply = connection.call("TL.APPEND", KEY, body)
    if isinstance(reply, Refused):
        return reply
    acknowledged.append(body)
    if reply != len(acknowledged):
        raise Broken(f"entry {len(acknowledged)} got the sequence {reply}")
    return None


def run(arguments: argparse.Namespace) -> str:
    mount = Path(arguments.mount)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", mount], check=True)
    acknowledged: list[bytes] = []
    refused, slowest, first = 0, 0.0, 1
    settings = SMALL
    with server(arguments.binary, f"{mount}/data", settings=settings) as running:
        connection = Connection(running.address)
        old = [b"old %d" % number for number in range(10)]
        for body in old:
            connection.call("TL.APPEND", OLD, body)
        connection.call("TL.FLUSH")
        reader = Reader(running.address, acknowledged, old)
        reader.start()
        for number in range(arguments.cycles):
            more, seconds = cycle(connection, mount / "zeros", acknowledged)
            refused, slowest = refused + more, max(slowest, seconds)
            if reader.problem or not reader.is_alive():
                raise Broken(f"in cycle {number}: {reader.problem or 'the reader ended'}")
            if not running.alive():
                raise Broken(f"in cycle {number} the server ended")
            if number % 8 == 7:
                # Otherwise the data itself would fill the disk in the end.
                connection.call("TL.TRIM", KEY, "KEEP", 10)
                connection.call("TL.COMPACT")
                first = len(acknowledged) - 9
        reader.stop.set()
        reader.join()
        for _ in range(2):
            expect_from(first, Connection(running.address), acknowledged)
            running.kill()
            running.start()
        running.stop()
    return (f"full_disk: {arguments.cycles} cycles, {refused} writes refused, {len(acknowledged)} acknowledged "
            f"(those from {first} on are kept and there), {reader.reads} reads meanwhile; with space again a write took at most "
            f"{slowest * 1000:.0f} ms")


def expect_from(first: int, connection: Connection, acknowledged: list[bytes]) -> None:
    rows = [(seq, body) for seq, _, body in entries(connection, KEY, 0)]
    if rows != list(enumerate(acknowledged, start=1))[first - 1:]:
        raise Broken("what is there is not what was acknowledged")


def main() -> int:
    parser = parser_of(__doc__, cycles=5)
    parser.add_argument("--mount", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.mount:
        with directory() as path:
            inside = [sys.executable, *sys.argv, "--mount", path]
            return subprocess.run(["unshare", "-Urm", *inside], env=os.environ).returncode
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
