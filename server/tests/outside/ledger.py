"""A log of acknowledged entries, kept by the client, and the judge that compares a server with it
(P1-P4, P12).

Sixteen writers, each with a connection of its own, send fan-outs to three timelines: one of their
own in `messages`, one of their own in `sync`, and one that all share. Each message has an id, and a
writer that does not know the outcome of its last message sends it again with the same id.

Checked after each restart:
  - each acknowledged entry has its acknowledged sequence and body;
  - each timeline is dense from 1, and no body is there twice, retries included;
  - a message is in all three timelines or in none;
  - nothing is there that was not sent.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "clients"))

from resp import Connection, Refused  # noqa: E402
from running import RunningServer  # noqa: E402

WRITERS = 16
WAIT_SECONDS = 60
SHARED = "messages:all"
# So that a few seconds of writing cause flushes and merges.
SMALL = "memory_budget_bytes = 1048576\n"


class Broken(Exception):
    """A promise did not hold; the text is a sentence for the person who runs the check."""


def server(binary: str, directory: str, prefix: list[str] | None = None, settings: str = SMALL) -> RunningServer:
    """A server with small settings. `prefix`: a command that starts it."""
    config = Path(directory).parent / f"{Path(directory).name}.toml"
    config.write_text(settings)
    running = RunningServer(binary, directory)
    running.command = [*(prefix or []), *running.command, "--config", str(config)]
    return running


class Writer:
    def __init__(self, ledger: Ledger, number: int):
        self.ledger, self.number = ledger, number
        self.keys = (f"messages:w{number}", f"sync:w{number}", SHARED)
        self.random = random.Random(number)
        self.count = 0
        self.pending: bytes | None = None  # sent, outcome unknown
        self.refusal: Refused | None = None

    def body(self) -> bytes:
        self.count += 1
        return f"w{self.number} {self.count} ".encode() + b"." * self.random.choice((0, 60, 200, 3000))

    def run(self, address: str, stop: threading.Event) -> None:
        """Writes until it is stopped, refused, or the connection breaks."""
        try:
            connection = Connection(address)
            while not stop.is_set():
                again = self.pending is not None
                body = self.pending = self.pending or self.body()
                self.ledger.sent.add(body)
                name = body.split(b" ")[1]
                reply = connection.call("TL.FANOUT", body, 3, *self.keys, "ID", b"id-" + name)
                if isinstance(reply, Refused):
                    self.refusal = reply
                    return
                self.pending = None
                self.ledger.acknowledge(self.keys, reply, body, again)
            connection.close()
        except OSError:
            return


class Ledger:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: set[bytes] = set()
        self.acknowledged: dict[tuple[str, int], bytes] = {}
        self.retries = 0
        # The finding of a writer's thread, reported by the next comparison.
        self.problem: str | None = None
        self.writers = [Writer(self, number) for number in range(WRITERS)]
        # Entries found by the last comparison are durable: they must stay.
        self.held: dict[str, list[bytes]] = {}

    def acknowledge(self, keys: tuple[str, ...], seqs: list[int], body: bytes, again: bool) -> None:
        with self.lock:
            self.retries += again
            for place in zip(keys, seqs):
                if self.acknowledged.setdefault(place, body) != body:
                    self.problem = f"{place} was acknowledged twice, with two bodies"

    def write(self, address: str) -> tuple[list[threading.Thread], threading.Event]:
        """Lets all writers write."""
        stop = threading.Event()
        threads = [threading.Thread(target=writer.run, args=(address, stop), daemon=True) for writer in self.writers]
        for thread in threads:
            thread.start()
        return threads, stop

    def expect_no_refusal(self) -> None:
        """When nothing prevents a write."""
        for writer in self.writers:
            if writer.refusal:
                raise Broken(f"writer {writer.number} was refused: {writer.refusal}")

    def expect_work(self, cycles: int) -> None:
        """A server that accepts nothing would lose nothing."""
        if len(self.acknowledged) < 30 * cycles:
            raise Broken(f"only {len(self.acknowledged)} entries were acknowledged in {cycles} cycles")

    def keys(self) -> list[str]:
        return sorted({key for writer in self.writers for key in writer.keys})

    def compare(self, address: str, from_start: bool = False) -> None:
        """Judges the content of the server; of entries found before only the end, unless it is to
        begin from the start."""
        if self.problem:
            raise Broken(self.problem)
        connection = Connection(address)
        found: Counter[bytes] = Counter()
        for key in self.keys():
            held = self.held.setdefault(key, [])
            known = [] if from_start else held
            rows = entries(connection, key, len(known))
            for place, (seq, _, body) in enumerate(rows, start=len(known) + 1):
                if seq != place:
                    raise Broken(f"{key}: sequence {seq} stands at place {place}")
                if body not in self.sent:
                    raise Broken(f"{key} {seq} holds a body that nobody sent")
            bodies = known + [body for _, _, body in rows]
            if bodies[:len(held)] != held:
                raise Broken(f"{key}: what was there after an earlier restart is not there any more")
            self.held[key] = bodies
            found.update(bodies)
        for body, times in found.items():
            if times != 3:
                raise Broken(f"{body[:20]!r} is in {times} places, not in its three")
        for key, bodies in self.held.items():
            if len(set(bodies)) != len(bodies):
                raise Broken(f"{key} holds a body twice")
        with self.lock:
            for (key, seq), body in self.acknowledged.items():
                if seq > len(self.held[key]) or self.held[key][seq - 1] != body:
                    raise Broken(f"{key} {seq} was acknowledged, and is not there")
        connection.close()


def entries(connection: Connection, key: str, after: int) -> list:
    rows: list = []
    while page := connection.call("TL.RANGE", key, f"({after}", "+", "COUNT", 10_000):
        if isinstance(page, Refused):
            raise Broken(f"{key} cannot be read: {page}")
        rows += page
        after = page[-1][0]
    return rows


def until(what: str, look):
    """The first true answer of `look`."""
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if answer := look():
                return answer
        except OSError:
            pass
        if time.monotonic() > ends:
            raise Broken(f"within {WAIT_SECONDS} s not: {what}")
        time.sleep(0.1)


def directory() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="strandline-outside-")


def program(path: str) -> str:
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}: build it with cargo build --release")
    return path


def parser_of(document: str, **numbers: int) -> argparse.ArgumentParser:
    """The arguments of every check: the binary, and its own numbers with their defaults."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=program, help="the server's binary")
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    return parser


def told(run) -> int:
    """Runs a check and prints its result."""
    try:
        print(f"ok {run()}")
    except Broken as problem:
        print(f"{Path(sys.argv[0]).stem}: {problem}", file=sys.stderr)
        return 1
    return 0
