"""Writers at full speed, and terminals that connect, drop and resume at random: each entry exactly
once, in order (P10).

Every user is in one pushed conversation with nine others and in one pulled conversation with all
users. Writers send to both, each with a window of unanswered requests, as fast as they are
answered. Each terminal has a user and a cursor. Repeatedly it connects, receives entries by
IM.FOLLOW or page by page by IM.SYNC, sometimes blocked, for a random time, and drops the connection
in the middle of whatever it is doing. It continues after the last entry that it received
completely.

Checked:
  - the sequences that a terminal gets of a conversation are 1, 2, 3, … with no gap and no
    repetition, all the time;
  - at the end it has of each of its conversations everything that was acknowledged, with the bodies
    that were sent;
  - nothing is after its cursor then, and no connection was ended by the server.

    followers.py --server PATH [--followers N] [--messages N] [--seed N]

The long form is `--followers 1000 --messages 5000`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field

from running import RunningServer

GROUP = 10  # members of a pushed conversation
TERMINALS = 2  # of a user
WRITERS = 4
WINDOW = 32  # requests of a writer without an answer
PULLED = 0.1  # the part of all messages that go to all users
PATIENCE_SECONDS = 300  # for terminals to catch up when the writers are done
CROWD = b"crowd"


class Broken(Exception):
    """A promise did not hold; the text is a sentence for the person who runs the check."""


class Incomplete(Exception):
    """The rest of a frame has not arrived yet."""


def parse(data: bytes, at: int) -> tuple[object, int]:
    """The RESP3 frame at a position, and where it ends."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    sign, word = data[at:at + 1], data[at + 1:end]
    at = end + 2
    if sign == b":":
        return int(word), at
    if sign == b"$":
        end = at + int(word)
        if len(data) < end + 2:
            raise Incomplete
        return data[at:end], end + 2
    if sign in b"*>%":
        items = []
        for _ in range(int(word) * (2 if sign == b"%" else 1)):
            item, at = parse(data, at)
            items.append(item)
        return (dict(zip(items[::2], items[1::2])) if sign == b"%" else items), at
    if sign == b"-":
        raise Broken(f"the server says {word.decode()}")
    return word, at


class Connection:
    """A RESP3 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.data, self.at = b"", 0

    @classmethod
    async def open(cls, address: str) -> Connection:
        host, port = address.rsplit(":", 1)
        connection = cls(*await asyncio.open_connection(host, int(port)))
        await connection.call("HELLO", "3")
        return connection

    def send(self, *words: str | bytes | int) -> None:
        raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.writer.write(b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw))

    async def receive(self) -> object:
        while True:
            try:
                value, self.at = parse(self.data, self.at)
                return value
            except Incomplete:
                more = await self.reader.read(1 << 16)
                if not more:
                    raise Broken("the server closed a connection") from None
                self.data, self.at = self.data[self.at:] + more, 0

    async def call(self, *words: str | bytes | int) -> object:
        self.send(*words)
        return await self.receive()

    def drop(self) -> None:
        self.writer.transport.abort()


@dataclass
class Run:
    address: str
    dice: random.Random
    sent: dict[bytes, list[bytes | None]]  # conversation: the bodies by sequence
    is_over: bool = False  # the writers are done
    ways: dict[str, int] = field(default_factory=lambda: {"follow": 0, "sync": 0, "block": 0})


class Terminal:
    def __init__(self, user: str, group: bytes):
        self.user, self.cursor = user, b"0"
        self.got: dict[bytes, list[bytes]] = {group: [], CROWD: []}

    def take(self, conv: bytes, seq: int, kind: bytes, body: bytes) -> None:
        got = self.got[conv]
        if seq != len(got) + 1 or kind != b"message":
            raise Broken(f"{self.user} was given {conv!r} {seq} ({kind!r}) behind {len(got)}, at {self.cursor!r}")
        got.append(body)

    def has_all(self, run: Run) -> bool:
        return run.is_over and all(len(got) == len(run.sent[conv]) for conv, got in self.got.items())

    async def live(self, run: Run) -> None:
        while not self.has_all(run):
            await asyncio.sleep(run.dice.uniform(0, 0.3))
            connection = await Connection.open(run.address)
            way = run.dice.choice(list(run.ways))
            run.ways[way] += 1
            try:
                async with asyncio.timeout(run.dice.uniform(0, 1.5)):
                    await (self.follow(connection, run) if way == "follow" else self.sync(connection, run, way))
            except TimeoutError:
                pass
            finally:
                connection.drop()

    async def follow(self, connection: Connection, run: Run) -> None:
        reply = await connection.call("IM.FOLLOW", self.user, self.cursor)
        if reply[b"verdict"] != b"OK":
            raise Broken(f"{self.user} at {self.cursor!r}: {reply[b'verdict']!r}")
        while not self.has_all(run):
            frame = await connection.receive()
            if frame[0] == b"im.cursor":
                self.cursor = frame[2]
                continue
            if frame[0] != b"im.entry":
                raise Broken(f"{self.user} was sent {frame[:4]!r}")
            _, _, cursor, conv, seq, _, _, kind, body = frame
            self.take(conv, seq, kind, body)
            self.cursor = cursor

    async def sync(self, connection: Connection, run: Run, way: str) -> None:
        block = ("BLOCK", 0) if way == "block" else ()
        while not self.has_all(run):
            reply = await connection.call("IM.SYNC", self.user, self.cursor, "COUNT", run.dice.randint(1, 200), *block)
            if reply[b"verdict"] != b"OK":
                raise Broken(f"{self.user} at {self.cursor!r}: {reply[b'verdict']!r}")
            for conv, seq, _, _, kind, body, *_ in reply[b"entries"]:
                self.take(conv, seq, kind, body)
            self.cursor = reply[b"cursor"]
            if not (block or reply[b"more"]):
                return


async def write(run: Run, writer: int, count: int, groups: dict[bytes, list[str]]) -> None:
    """Sends, with a window, and notes the sequence under which each body was acknowledged."""
    connection, dice = await Connection.open(run.address), random.Random(run.dice.random())
    waiting: list[tuple[bytes, bytes]] = []
    for number in range(count + WINDOW):
        if number < count:
            conv = CROWD if dice.random() < PULLED else dice.choice(list(groups))
            members = groups[conv] if conv != CROWD else groups[dice.choice(list(groups))]
            body = b"%d of writer %d" % (number, writer)
            connection.send("IM.SEND", conv, dice.choice(members), body)
            waiting.append((conv, body))
        if waiting and (number >= count or len(waiting) == WINDOW):
            reply, (conv, body) = await connection.receive(), waiting.pop(0)
            bodies = run.sent[conv]
            bodies.extend([None] * (reply[b"seq"] - len(bodies)))
            if bodies[reply[b"seq"] - 1] is not None:
                raise Broken(f"{conv!r} {reply[b'seq']} was given twice")
            bodies[reply[b"seq"] - 1] = body
    connection.drop()


async def check_end(run: Run, terminals: list[Terminal]) -> None:
    connection = await Connection.open(run.address)
    for terminal in terminals:
        for conv, got in terminal.got.items():
            if got != run.sent[conv]:
                raise Broken(f"{terminal.user} has other bodies of {conv!r} than were sent")
        reply = await connection.call("IM.SYNC", terminal.user, terminal.cursor)
        if reply[b"entries"] or reply[b"verdict"] != b"OK":
            raise Broken(f"{terminal.user} has everything, and is given {reply!r}")
    connection.drop()


async def play(address: str, followers: int, messages: int, seed: int) -> None:
    users = [f"u{number}" for number in range(max(GROUP, followers // TERMINALS // GROUP * GROUP))]
    groups = {b"group%d" % at: users[at:at + GROUP] for at in range(0, len(users), GROUP)}
    run = Run(address, random.Random(seed), {conv: [] for conv in [*groups, CROWD]})
    connection = await Connection.open(address)
    for conv, members in groups.items():
        await connection.call("IM.CREATE", conv, "MODE", "push", "MEMBERS", *members)
    await connection.call("IM.CREATE", CROWD, "MODE", "pull", "MEMBERS", *users)
    connection.drop()
    homes = {user: conv for conv, members in groups.items() for user in members}
    terminals = [Terminal(user, homes[user]) for user in (users[at % len(users)] for at in range(followers))]
    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for terminal in terminals:
            tasks.create_task(terminal.live(run))
        async with asyncio.TaskGroup() as writers:
            for writer in range(WRITERS):
                writers.create_task(write(run, writer, messages // WRITERS, groups))
        writing_seconds = time.monotonic() - started
        run.is_over = True
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(terminal.has_all(run) for terminal in terminals):
            if time.monotonic() > deadline:
                raise Broken(f"after {PATIENCE_SECONDS} s there are terminals that lack something")
            await asyncio.sleep(0.05)
    await check_end(run, terminals)
    entries = sum(len(got) for terminal in terminals for got in terminal.got.values())
    print(f"writers          {WRITERS} sent {sum(map(len, run.sent.values()))} messages in {writing_seconds:.1f} s, "
          f"{len(run.sent[CROWD])} of them to {len(users)} users in pull mode")
    print(f"terminals        {len(terminals)} got {entries} entries by {run.ways['follow']} follows, "
          f"{run.ways['sync']} syncs and {run.ways['block']} blocked syncs, in {time.monotonic() - started:.1f} s")


def leaves(group: BaseExceptionGroup) -> list[BaseException]:
    """The exceptions themselves: nested tasks wrap them twice."""
    return [leaf for one in group.exceptions
            for leaf in (leaves(one) if isinstance(one, BaseExceptionGroup) else [one])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="PATH", required=True, help="the binary; it is started and stopped here")
    parser.add_argument("--followers", type=int, default=50, help="terminals; at least 10")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    status = 0
    try:
        with tempfile.TemporaryDirectory(prefix="strandline-") as directory, \
                RunningServer(arguments.server, directory) as server:
            asyncio.run(play(server.address, arguments.followers, arguments.messages, arguments.seed))
            server.stop()
    except* Broken as problems:
        print(f"followers: {leaves(problems)[0]}", file=sys.stderr)
        status = 1
    if status:
        return status
    print(f"ok followers: {arguments.followers} terminals got each entry once, in order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
