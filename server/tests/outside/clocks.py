"""Wrong wall clocks: 1970, after 2038, after 2262, ten years off in either direction, one life
after the other.

    clocks.py PATH

The library of `faketime` shifts the wall clock of the server's process; its monotonic clock runs
on. It is loaded without the command of that name, which would be between the server and its
signals.

Checked (P2, P8):
  - the server starts, takes appends and answers, whatever the clock says;
  - sequences continue, times of entries do not fall;
  - nothing is destroyed: when the clock is right again, every entry that is alive by it is there,
    in the store with TTL too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ledger import Broken, directory, entries, parser_of, server, told
from resp import Connection, Refused, pairs

KEYS = ("messages:clock", "sync:clock")
# After the first of these, times of entries stay at the highest time so far.
CLOCKS = ("-10y", "@1970-01-02 00:00:00", "+0", "@2038-01-20 00:00:00", "+0", "+10y", "@2262-04-13 00:00:00", "-10y", "+0")


def at(clock: str) -> list[str]:
    """The command that starts a server with this wall clock."""
    if clock == "+0":
        return []
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        raise Broken("the library of faketime is not there: install the package `faketime`")
    return ["env", f"LD_PRELOAD={libraries[0]}", f"FAKETIME={clock}", "FAKETIME_DONT_FAKE_MONOTONIC=1"]


def life(binary: str, path: str, clock: str, expected: list[int]) -> None:
    settings = "memory_budget_bytes = 1048576\nsync_ttl_ms = 604800000\n"
    with server(binary, f"{path}/data", at(clock), settings) as running:
        connection = Connection(running.address)
        for number in range(40):
            for place, key in enumerate(KEYS):
                expected[place] += 1
                reply = connection.call("TL.APPEND", key, f"{clock} {number}")
                if reply != expected[place]:
                    raise Broken(f"with the clock at {clock}, {key} gives {reply}, not {expected[place]}")
            if number % 10 == 9:
                for words in (("TL.FLUSH",), ("TL.COMPACT",)):
                    if isinstance(reply := connection.call(*words), Refused):
                        raise Broken(f"with the clock at {clock}, {words[0]} gives {reply}")
        stats = pairs(connection.call("TL.STATS"))
        if stats["expired_segments"] != 0:
            raise Broken(f"with the clock at {clock}, {stats['expired_segments']} segments were dropped")
        running.stop()


def run(arguments: argparse.Namespace) -> str:
    expected = [0, 0]
    with directory() as path:
        life(arguments.binary, path, "+0", expected)
        for clock in CLOCKS:
            life(arguments.binary, path, clock, expected)
        with server(arguments.binary, f"{path}/data") as running:
            connection = Connection(running.address)
            for key, count in zip(KEYS, expected):
                rows = entries(connection, key, 0)
                seqs, times = [row[0] for row in rows], [row[1] for row in rows]
                if seqs != list(range(1, count + 1)):
                    raise Broken(f"{key} has {len(rows)} of {count} entries")
                if times != sorted(times):
                    raise Broken(f"{key}: times fall")
            running.stop()
    return f"clocks: {len(CLOCKS)} lives with other clocks, {sum(expected)} entries, none destroyed"


def main() -> int:
    arguments = parser_of(__doc__).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
