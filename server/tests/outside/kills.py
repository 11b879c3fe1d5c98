"""SIGKILL under sixteen writers, repeatedly; the client keeps the log of acknowledged entries.

    kills.py PATH [--cycles N] [--seed N]

Flushes and merges are requested beside the writers, so that kills hit them too. One in four
restarts is killed as well, most likely in its recovery. `ledger.py` lists what is checked.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time

from ledger import Ledger, directory, parser_of, server, told
from resp import Connection


def maintain(address: str, stop: threading.Event) -> None:
    try:
        connection = Connection(address)
        while not stop.wait(0.05):
            connection.call("TL.FLUSH")
            connection.call("TL.COMPACT")
    except OSError:
        return


def run(arguments: argparse.Namespace) -> str:
    dice, ledger = random.Random(arguments.seed), Ledger()
    in_flight = in_recovery = 0
    with directory() as path, server(arguments.binary, f"{path}/data") as running:
        for cycle in range(arguments.cycles):
            threads, stop = ledger.write(running.address)
            threading.Thread(target=maintain, args=(running.address, stop), daemon=True).start()
            time.sleep(dice.uniform(0.02, 0.4))
            running.kill()
            stop.set()
            for thread in threads:
                thread.join()
            ledger.expect_no_refusal()
            in_flight += any(writer.pending for writer in ledger.writers)
            if cycle % 4 == 3:
                running.start_and_kill(dice.uniform(0, 0.03))
                in_recovery += 1
            running.start()
            ledger.compare(running.address, from_start=cycle % 50 == 49)
        ledger.compare(running.address, from_start=True)
        ledger.expect_work(arguments.cycles)
        running.stop()
    return (f"kills: {arguments.cycles} cycles, {in_flight} with requests in flight, {in_recovery} more while restarting; "
            f"{len(ledger.acknowledged)} acknowledged entries are there, {ledger.retries} retries gave one entry each")


def main() -> int:
    arguments = parser_of(__doc__, cycles=20, seed=1).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
