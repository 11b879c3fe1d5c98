"""SIGSTOP in the middle of a flush, a merge or a backup; then SIGKILL, or SIGCONT.

    stopped.py PATH [--cycles N] [--seed N]

A stopped process is like one on a machine that was suspended: its clocks jump, its clients wait.
`ledger.py` lists what is checked; in addition, a continued server answers as before, and an
interrupted backup does not affect the server.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time

from ledger import SMALL, Broken, Ledger, directory, parser_of, server, told
from resp import Connection, Refused


def ask(address: str, words: tuple, replies: list) -> None:
    try:
        replies.append(Connection(address).call(*words))
    except OSError:
        replies.append(None)


def run(arguments: argparse.Namespace) -> str:
    dice, ledger = random.Random(arguments.seed), Ledger()
    killed, continued, kinds = 0, 0, {}
    with directory() as path, server(arguments.binary, f"{path}/data", settings=f'backup_dir = "{path}"\n{SMALL}') as running:
        can_back_up = b"tl.backup" in [name.lower() for name in Connection(running.address).call("COMMAND", "LIST")]
        for cycle in range(arguments.cycles):
            threads, stop = ledger.write(running.address)
            time.sleep(dice.uniform(0.05, 0.3))
            works = [("TL.FLUSH",), ("TL.COMPACT",)]
            if can_back_up:
                works.append(("TL.BACKUP", f"{path}/backup-{cycle}"))
            work = works[cycle % len(works)]
            replies: list = []
            asked = threading.Thread(target=ask, args=(running.address, work, replies), daemon=True)
            asked.start()
            time.sleep(dice.uniform(0, 0.05))
            kinds[work[0]] = kinds.get(work[0], 0) + (not replies)
            running.process.send_signal(signal.SIGSTOP)
            time.sleep(dice.uniform(0.01, 0.2))
            if cycle % 3 == 2:
                running.process.send_signal(signal.SIGCONT)
                continued += 1
                asked.join(60)
                if asked.is_alive() or isinstance(replies[0], Refused):
                    raise Broken(f"{work[0]} of a process that was stopped for a moment gives {replies}")
                stop.set()
            else:
                running.kill()
                killed += 1
                stop.set()
            for thread in threads:
                thread.join()
            ledger.expect_no_refusal()
            if cycle % 3 != 2:
                running.start()
            ledger.compare(running.address)
        ledger.compare(running.address, from_start=True)
        ledger.expect_work(arguments.cycles)
        running.stop()
    middle = ", ".join(f"{count} in the middle of {name}" for name, count in kinds.items())
    return f"stopped: {killed} killed and {continued} continued ({middle}); {len(ledger.acknowledged)} acknowledged are there"


def main() -> int:
    arguments = parser_of(__doc__, cycles=12, seed=1).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
