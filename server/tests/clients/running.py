"""A server process for the checks: started on a directory, killed or stopped, started again.

It knows the three rules of the process contract: the server prints `listening on HOST:PORT` when it
is ready, SIGTERM ends it gracefully with status 0, and SIGKILL is survived. It knows nothing of the
stored data.

    running.py PATH COMMAND [WORD ...]

runs a command against a fresh server in a temporary directory, with its address as the last word,
and exits with the command's status.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 60


class RunningServer:
    """One server process at a time on one directory; each start may get another port."""

    def __init__(self, binary: str, directory: str, port: int = 0, log: Path | None = None):
        self.command = [binary, "serve", "--dir", directory, "--port", str(port)]
        self.log = log  # the file for its standard error; default: the standard error of the check
        self.process: subprocess.Popen | None = None
        self.address = ""

    def start(self) -> None:
        with self.log.open("a") if self.log else nullcontext() as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.address = announced_address(self.process)

    def start_and_kill(self, seconds: float) -> None:
        """SIGKILL before the server is ready, most likely in the recovery."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        self.kill()

    def alive(self) -> bool:
        return self._process().poll() is None

    def kill(self) -> None:
        """SIGKILL: no handler runs, data not passed to the kernel is lost."""
        self._process().kill()
        self._process().wait()

    def stop(self) -> None:
        self._process().send_signal(signal.SIGTERM)
        status = self._process().wait(STOP_SECONDS)
        if status != 0:
            sys.exit(f"SIGTERM: the server ended with status {status} instead of 0")

    def __enter__(self) -> RunningServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.kill()

    def _process(self) -> subprocess.Popen:
        assert self.process is not None, "start comes first"
        return self.process


def announced_address(process: subprocess.Popen[str]) -> str:
    """The address it listens on. The rest of its output is read, so that no full pipe stops it."""
    announced: queue.Queue[str] = queue.Queue()

    def read_on() -> None:
        assert process.stdout is not None, "the output is a pipe"
        for line in process.stdout:
            if line.startswith("listening on "):
                announced.put(line.split()[-1])
        announced.put("")

    threading.Thread(target=read_on, daemon=True).start()
    try:
        address = announced.get(timeout=START_SECONDS)
    except queue.Empty:
        address = ""
    if not address:
        process.kill()
        sys.exit(f"the server did not say `listening on HOST:PORT` within {START_SECONDS} s")
    return address


def directory_bytes(directory: str) -> int:
    """The space of the files on disk; differs from the length of preallocated and sparse files."""
    return sum(path.stat().st_blocks * 512 for path in Path(directory).rglob("*") if path.is_file())


def main() -> int:
    if len(sys.argv) < 3:
        sys.exit("usage: running.py PATH COMMAND [WORD ...]")
    with tempfile.TemporaryDirectory(prefix="strandline-") as directory, \
            RunningServer(sys.argv[1], directory) as server:
        status = subprocess.run([*sys.argv[2:], server.address]).returncode
        if status == 0:
            server.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
