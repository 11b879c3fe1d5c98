"""An fsync that fails once, at each position: `strace` makes the N-th fdatasync or fsync of each
thread return EIO.

    failed_sync.py PATH [--places N]

Checked (P1):
  - when the server serves and a sync of its log fails, no write is acknowledged any more; writes
    are refused with POISONED, and the server exits by itself with a status that is not 0;
  - when the failure happens while the server starts, it reports it and exits with a status that is
    not 0;
  - after the next start everything that was acknowledged is there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from ledger import Broken, Ledger, directory, parser_of, server, told
from resp import Connection, Refused

PATIENCE_SECONDS = 60


def run(arguments: argparse.Namespace) -> str:
    starts = poisoned = elsewhere = 0
    for call in ("fdatasync", "fsync"):
        for place in range(1, arguments.places + 1):
            ledger = Ledger()
            with directory() as path:
                with server(arguments.binary, f"{path}/data") as running:
                    running.stop()
                outcome = with_failure(arguments.binary, path, call, place, ledger)
                starts += outcome == "start"
                poisoned += outcome == "poisoned"
                elsewhere += outcome == "not met"
                with server(arguments.binary, f"{path}/data") as running:
                    ledger.compare(running.address, from_start=True)
                    running.stop()
    if not starts or not poisoned:
        raise Broken(f"{starts} failures met a start and {poisoned} a running server: both are wanted")
    return (f"failed_sync: of {2 * arguments.places} places, {starts} failed the start, {poisoned} poisoned the running server, "
            f"{elsewhere} were not met; each time all acknowledged was there after a restart")


def with_failure(binary: str, path: str, call: str, place: int, ledger: Ledger) -> str:
    """A life in which one sync fails. Returns the outcome."""
    prefix = ["strace", "-f", "-qq", "-o", f"{path}/trace", "-e", f"trace={call}",
              "-e", f"inject={call}:error=EIO:when={place}"]
    failing = server(binary, f"{path}/data", prefix)
    failing.process = subprocess.Popen(failing.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = failing.process.stdout.readline()
    if not line.startswith("listening on "):
        told_why = failing.process.communicate(timeout=PATIENCE_SECONDS)[1]
        if failing.process.returncode == 0 or not told_why.strip():
            raise Broken(f"{call} {place}: the start failed with status {failing.process.returncode} and said {told_why!r}")
        return "start"
    address = line.split()[-1]
    threads, stop = ledger.write(address)
    deadline = time.monotonic() + 2
    while failing.process.poll() is None and time.monotonic() < deadline:
        try:
            # A flush meets the syncs of segments and manifests.
            connection = Connection(address)
            connection.call("TL.FLUSH")
            connection.close()
        except OSError:
            break
    stop.set()
    for thread in threads:
        thread.join()
    if "INJECTED" not in open(f"{path}/trace").read():
        failing.process.kill()
        failing.process.communicate()
        return "not met"
    for writer in ledger.writers:
        if isinstance(writer.refusal, Refused) and writer.refusal.word != "POISONED":
            raise Broken(f"{call} {place}: a failed sync is told as {writer.refusal}")
    try:
        status = failing.process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        failing.process.kill()
        raise Broken(f"{call} {place}: the server goes on after a failed sync") from None
    failing.process.communicate()
    if status == 0:
        raise Broken(f"{call} {place}: after a failed sync the server ended with status 0")
    return "poisoned"


def main() -> int:
    arguments = parser_of(__doc__, places=6).parse_args()
    return told(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
