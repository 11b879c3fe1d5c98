"""A second process on the directory, and too few file descriptors.

    shortage.py PATH

Checked:
  - a second server on the same directory is refused by name, exits with a status that is not 0, and
    does no damage;
  - with few descriptors (`ulimit -n`), fewer connections are accepted; accepted ones continue,
    flushes and merges work, and when connections end, others are accepted;
  - everything acknowledged meanwhile is there after a restart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from ledger import Broken, Ledger, directory, parser_of, server, told
from resp import Connection, Refused

DESCRIPTORS = 160


def second_open(binary: str) -> int:
    ledger = Ledger()
    with directory() as path, server(binary, f"{path}/data") as running:
        threads, stop = ledger.write(running.address)
        for _ in range(5):
            second = subprocess.run(running.command, capture_output=True, text=True, timeout=60)
            if second.returncode == 0 or "locked" not in second.stderr + second.stdout:
                raise Broken(f"a second server ended with {second.returncode} and said {second.stderr!r}")
        stop.set()
        for thread in threads:
            thread.join()
        ledger.compare(running.address)
        running.stop()
        running.start()
        ledger.compare(running.address, from_start=True)
        running.stop()
    return len(ledger.acknowledged)


def let_in(address: str) -> Connection:
    """A connection after others that were closed: the server must first notice that they ended."""
    for _ in range(100):
        connection = Connection(address, timeout=60)
        try:
            if not isinstance(connection.call("PING"), Refused):
                return connection
        except OSError:
            pass
        connection.close()
        time.sleep(0.05)
    raise Broken("connections went, and for five seconds no other one was let in")


def few_descriptors(binary: str) -> tuple[int, int]:
    ledger = Ledger()
    with directory() as path:
        prefix = ["sh", "-c", f"ulimit -n {DESCRIPTORS}; exec \"$@\"", "sh"]
        with server(binary, f"{path}/data", prefix) as running:
            threads, stop = ledger.write(running.address)
            crowd = []
            refused = 0
            for _ in range(2 * DESCRIPTORS):
                try:
                    connection = Connection(running.address, timeout=10)
                    crowd.append(connection)
                    reply = connection.call("PING")
                    refused += isinstance(reply, Refused)
                except OSError:
                    refused += 1
            if refused == 0:
                raise Broken(f"{len(crowd)} connections were let in with {DESCRIPTORS} descriptors")
            for connection in crowd:
                connection.close()
            maintenance = let_in(running.address)
            for _ in range(10):
                for words in (("TL.FLUSH",), ("TL.COMPACT",)):
                    reply = maintenance.call(*words)
                    if isinstance(reply, Refused):
                        raise Broken(f"{words[0]} with few descriptors gives {reply}")
            if not any(thread.is_alive() for thread in threads):
                raise Broken("no writer was let through")
            stop.set()
            for thread in threads:
                thread.join()
            ledger.compare(running.address)
            running.stop()
        with server(binary, f"{path}/data") as running:
            ledger.compare(running.address, from_start=True)
            running.stop()
    return refused, len(ledger.acknowledged)


def run(arguments: argparse.Namespace) -> str:
    alone = second_open(arguments.binary)
    refused, acknowledged = few_descriptors(arguments.binary)
    return (f"shortage: a second server is refused while {alone} entries were acknowledged; with {DESCRIPTORS} descriptors "
            f"{refused} connections were refused and {acknowledged} entries acknowledged")


def main() -> int:
    arguments = parser_of(__doc__).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
