"""SIGTERM under sixteen writers, repeatedly: each stop is graceful and takes at most five seconds.

    terminated.py PATH [--rounds N] [--seed N]

In every second round maintenance is running when the signal comes: flushes, merges and backups.
Beside the writers there are connections that a stop must not wait for: one is idle, one is blocked,
one has sent half of a command, and one does not read its replies. `ledger.py` lists what is checked
after each restart.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time

from ledger import Broken, Ledger, directory, parser_of, server, told
from resp import Connection, Refused

MOST_SECONDS = 5.0


def maintain(address: str, path: str, number: int, stop: threading.Event) -> None:
    """Until the server closes the connection, or the round ends."""
    try:
        connection = Connection(address)
        for turn in range(1_000_000):
            if stop.is_set():
                return
            connection.call("TL.FLUSH")
            connection.call("TL.COMPACT")
            connection.call("TL.BACKUP", f"{path}/backup-{number}-{turn}")
    except OSError:
        return


def stuck(address: str) -> list[Connection]:
    """Connections that never end by themselves."""
    idle, blocked, half, unread = [Connection(address) for _ in range(4)]
    body = b"x" * 200_000
    if isinstance(unread.call("TL.APPEND", "messages:large", body), Refused):
        raise Broken("a body of 200,000 bytes was refused")
    blocked.send("TL.READ", "messages:nothing", "AFTER", 0, "BLOCK", 0)
    half.socket.sendall(b"*2\r\n$4\r\nEC")
    for _ in range(200):
        unread.send("TL.LAST", "messages:large")
    return [idle, blocked, half, unread]


def run(arguments: argparse.Namespace) -> str:
    dice, ledger = random.Random(arguments.seed), Ledger()
    longest, in_flight = 0.0, 0
    with directory() as path, server(
        arguments.binary, f"{path}/data", settings=f'backup_dir = "{path}"\n'
    ) as running:
        for number in range(arguments.rounds):
            threads, stop = ledger.write(running.address)
            if number % 2:
                threading.Thread(target=maintain, args=(running.address, path, number, stop), daemon=True).start()
            others = stuck(running.address)
            time.sleep(dice.uniform(0.1, 0.5))
            begin = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            status = running.process.wait(60)
            seconds = time.monotonic() - begin
            stop.set()
            for thread in threads:
                thread.join()
            del others
            if status != 0:
                raise Broken(f"round {number}: the server ended with status {status}")
            if seconds > MOST_SECONDS:
                raise Broken(f"round {number}: the stop took {seconds:.1f} s")
            longest = max(longest, seconds)
            ledger.expect_no_refusal()
            in_flight += any(writer.pending for writer in ledger.writers)
            running.start()
            ledger.compare(running.address)
        ledger.compare(running.address, from_start=True)
        ledger.expect_work(arguments.rounds)
        running.stop()
    return (f"terminated: {arguments.rounds} stops, the longest took {longest:.2f} s; {in_flight} with requests in flight; "
            f"{len(ledger.acknowledged)} acknowledged entries are there")


def main() -> int:
    arguments = parser_of(__doc__, rounds=10, seed=1).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
