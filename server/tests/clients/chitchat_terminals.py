"""The corpus of chitchat.py as conversations: IM.CREATE, IM.SEND with ids, and three terminals per
user that IM.SYNC.

Every conversation of the dataset is made with its senders as members; every fourth is pulled, the
others are pushed. One connection sends all messages in the order of their timestamps, each with an
id. While it sends, three terminals of every user sync, each with its own page size, from nothing
but their own cursors; they drop connections, also between a request and its reply, and forget what
they did not read to the end. After a SIGKILL everything that was not acknowledged is sent again
with its id.

Checked:
  - each reply has the sequence that counting gives, whether the message was sent once or twice (P2,
    P4, P12);
  - no terminal ever gets an entry that it has, or one out of the order of its conversation, or
    times that go back, or a body that differs from the dataset's, with and without kills (P1, P10);
  - at the end the three terminals of a user have the same entries, and these are the messages of
    the user's conversations in the order of sending. Only messages of one millisecond may come in
    another order between conversations, and not even these for a user all of whose conversations
    are pushed;
  - a fourth terminal that starts after a flush and a restart, with nothing, gets the same.

    chitchat_terminals.py --server PATH [--kills N] [--messages N] [--window N] [--seed N]
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

import redis

from chitchat import Broken, Corpus, Message, Sending, connect, kills_among
from running import RunningServer

PULLED = 4  # one conversation in this many
PAGES = (("COUNT", 3), ("COUNT", 100), ("COUNT", 1000, "BYTES", 20_000))
LATECOMER = ("COUNT", 10_000)
WORKERS = 3  # threads that play the terminals
DROP = 0.05  # the part of all syncs that lose their connection before the reply is read


def bare(key: str) -> str:
    """The name after the store."""
    return key.split(":", 1)[1]


class Terminal:
    """One device: its cursor and the entries it got, as positions in the order of sending."""

    def __init__(self, user: str, page: tuple, truth: Truth):
        self.user, self.page, self.truth = user, page, truth
        self.cursor: bytes = b"0"
        self.places: list[int] = []
        self.times: list[int] = []
        self.ends: Counter[str] = Counter()

    def take(self, reply: dict) -> bool:
        """A page; returns whether there is more."""
        if reply[b"verdict"] != b"OK":
            raise Broken(f"{self.user} at {self.cursor!r}: {reply[b'verdict']!r}")
        for conv, seq, when, sender, kind, body, *_ in reply[b"entries"]:
            key = f"messages:{conv.decode()}"
            if seq != self.ends[key] + 1:
                raise Broken(f"{self.user} {self.page} was given {key} {seq} behind {self.ends[key]}")
            if self.times and when < self.times[-1]:
                raise Broken(f"{self.user} {self.page}: {key} {seq} of {when} stands behind {self.times[-1]}")
            place = self.truth.places.get((key, seq))
            if place is None or (sender, kind, body) != self.truth.event(place):
                raise Broken(f"{self.user} {self.page}: {key} {seq} is {kind!r} of {sender!r}: {body[:80]!r}")
            self.ends[key] = seq
            self.times.append(when)
            self.places.append(place)
        self.cursor = reply[b"cursor"]
        return bool(reply[b"more"])

    def command(self) -> tuple:
        return "IM.SYNC", self.user, self.cursor, *self.page

    def drain(self, client: redis.Redis) -> None:
        while self.take(client.execute_command(*self.command())):
            pass

    def in_order(self) -> list[int]:
        """Its positions, those of one millisecond in the order of sending."""
        return [place for _, group in itertools.groupby(zip(self.times, self.places), lambda pair: pair[0])
                for place in sorted(place for _, place in group)]


class Truth:
    """What each user must get according to the dataset."""

    def __init__(self, corpus: Corpus):
        self.order = corpus.order
        self.places = {(message.keys[0], message.seqs[0]): place for place, message in enumerate(corpus.order)}
        self.senders = {(key, seq): message["sender"].encode() for key, messages in corpus.conversations.items()
                        for seq, message in enumerate(messages, 1)}
        self.pulled = {key for number, key in enumerate(corpus.conversations) if number % PULLED == 0}
        self.due: dict[str, list[int]] = defaultdict(list)
        self.pushed_only = {bare(user) for user in corpus.users()}
        for place, message in enumerate(corpus.order):
            for user in map(bare, message.keys[1:]):
                self.due[user].append(place)
                if message.keys[0] in self.pulled:
                    self.pushed_only.discard(user)

    def event(self, place: int) -> tuple[bytes, bytes, bytes]:
        message = self.order[place]
        return self.senders[message.keys[0], message.seqs[0]], b"message", message.body

    def check(self, terminal: Terminal) -> None:
        user, due = terminal.user, self.due[terminal.user]
        found = terminal.places if user in self.pushed_only else terminal.in_order()
        if found != due:
            place = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, due)))
            raise Broken(f"{user} {terminal.page}: {len(found)} entries where the dataset has {len(due)}; "
                         f"they part at {place + 1}")


class Conversations(Sending):
    """Sending by IM.SEND: after a kill all unanswered messages are sent again, with their ids."""

    def __init__(self, corpus: Corpus, truth: Truth, window: int, server: RunningServer,
                 kill_points: Iterable[int], seed: int):
        super().__init__(corpus, window, server, kill_points, seed)
        self.truth = truth
        self.repeated = 0

    def create_all(self, address: str) -> None:
        """Several connections: each creation waits for the disk."""
        names = list(self.corpus.participants.items())
        problems: list[Exception] = []

        def create(share: list[tuple[str, list[str]]]) -> None:
            try:
                pipeline = connect(address).pipeline(transaction=False)
                for key, users in share:
                    mode = "pull" if key in self.truth.pulled else "push"
                    pipeline.execute_command("IM.CREATE", bare(key), "MODE", mode, "MEMBERS", *map(bare, users))
                if set(pipeline.execute()) != {1}:
                    raise Broken("a conversation was there before it was made")
            except Exception as problem:  # noqa: BLE001 - raised again below, in the thread that counts
                problems.append(problem)

        threads = [threading.Thread(target=create, args=(names[at::8],)) for at in range(8) if names[at::8]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def request(self, message: Message) -> tuple:
        key, seq = message.keys[0], message.seqs[0]
        return "IM.SEND", bare(key), self.truth.senders[key, seq], message.body, "ID", f"{seq}"

    def acknowledge(self, message: Message, reply: object) -> None:
        if not isinstance(reply, dict) or reply[b"seq"] != message.seqs[0]:
            raise Broken(f"{message.keys[0]} got {reply!r} where counting says {message.seqs[0]}")
        self.repeated += reply[b"duplicate"]

    def resume(self, client: redis.Redis, floor: int, ceiling: int) -> int:
        return floor


class Playing:
    """Threads in which terminals connect, sync, lose their connection, and connect again."""

    def __init__(self, terminals: list[Terminal], server: RunningServer, seed: int):
        self.terminals, self.server, self.seed = terminals, server, seed
        self.over = threading.Event()
        self.problem: Exception | None = None
        self.syncs = self.drops = self.broken = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.play, args=(worker,)) for worker in range(WORKERS)]

    def __enter__(self) -> Playing:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def play(self, worker: int) -> None:
        mine, dice = self.terminals[worker::WORKERS], random.Random(self.seed + worker)
        connection = None
        while not self.over.is_set():
            terminal = dice.choice(mine)
            try:
                connection = connection or connect(self.server.address).connection_pool.get_connection()
                for _ in range(dice.randint(1, 5)):
                    connection.send_command(*terminal.command())
                    dropped = dice.random() < DROP
                    with self.lock:
                        self.syncs += 1
                        self.drops += dropped
                    if dropped:
                        connection.disconnect()
                        connection = None
                        break
                    if not terminal.take(connection.read_response()):
                        break
            except (redis.ConnectionError, OSError):  # the server was killed
                with self.lock:
                    self.broken += 1
                connection = None
                time.sleep(0.05)
            except Exception as problem:  # noqa: BLE001 - the run ends with it
                self.problem = self.problem or problem
                return


def run(corpus: Corpus, server: RunningServer, kill_points: list[int], window: int, seed: int) -> None:
    truth = Truth(corpus)
    terminals = [Terminal(user, page, truth) for user in truth.due for page in PAGES]
    sending = Conversations(corpus, truth, window, server, kill_points, seed)
    started = time.monotonic()
    sending.create_all(server.address)
    print(f"conversations    {len(corpus.conversations)} in {time.monotonic() - started:.1f} s, "
          f"{len(truth.pulled)} of them pulled")
    with Playing(terminals, server, seed) as playing:
        sending.run(server.address)
    if playing.problem:
        raise playing.problem
    figures = sending.figures
    print(f"sending          {len(corpus.order)} messages in {figures.sending_seconds:.1f} s while {len(terminals)} "
          f"terminals of {len(truth.due)} users synced {playing.syncs} times")
    print(f"disconnects      {playing.drops} before a reply was read, {playing.broken} by a dead server")
    print(f"kills            {figures.kills} with requests in flight (at most {figures.most_in_flight}), "
          f"{figures.killed_restarts} more while restarting; {sending.repeated} messages sent again were there")
    if figures.kills < len(kill_points):
        raise Broken(f"only {figures.kills} of {len(kill_points)} kills found requests in flight: use another --seed")
    finish(terminals, server, truth)


def finish(terminals: list[Terminal], server: RunningServer, truth: Truth) -> None:
    started = time.monotonic()
    client = connect(server.address)
    live = sum(len(terminal.places) for terminal in terminals)
    for terminal in terminals:
        terminal.drain(client)
        truth.check(terminal)
    total = sum(len(terminal.places) for terminal in terminals)
    print(f"terminals        {total} entries, {live} of them while sending went on; "
          f"the rest in {time.monotonic() - started:.1f} s")
    if client.execute_command("TL.FLUSH") not in (b"OK", True):
        raise Broken("TL.FLUSH did not say OK")
    server.stop()
    server.start()
    started, client = time.monotonic(), connect(server.address)
    for user in truth.due:
        latecomer = Terminal(user, LATECOMER, truth)
        latecomer.drain(client)
        truth.check(latecomer)
    print(f"latecomers       {sum(map(len, truth.due.values()))} entries in {time.monotonic() - started:.1f} s")
    server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="PATH", required=True, help="the binary; it is started and stopped here")
    parser.add_argument("--kills", type=int, default=0, help="how often to SIGKILL the server in the middle")
    parser.add_argument("--messages", type=int, help="only the first so many; default: all")
    parser.add_argument("--window", type=int, default=512, help="requests without an answer at any time")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills and disconnects")
    arguments = parser.parse_args()
    corpus = Corpus.load(arguments.messages)
    kill_points = kills_among(len(corpus.order), arguments, parser)
    try:
        with tempfile.TemporaryDirectory(prefix="strandline-") as directory, \
                RunningServer(arguments.server, directory) as server:
            run(corpus, server, kill_points, arguments.window, arguments.seed)
    except (Broken, redis.RedisError) as problem:
        print(f"chitchat_terminals: {problem}", file=sys.stderr)
        return 1
    print(f"ok chitchat_terminals: all terminals equal the dataset, {arguments.kills} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
