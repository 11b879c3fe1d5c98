"""A real conversation corpus through the server by stock redis-py, optionally under SIGKILL,
compared to the last byte.

The corpus is the PyPI package chitchat-dataset: 7,168 conversations of one or two senders. Its
messages, in the order of their timestamps over all conversations, are sent one TL.FANOUT each: to
`messages:<conversation>` and to `sync:<user>` of every participant. One connection sends them all,
with a window of unanswered requests.

Checked while it runs:
  - each reply has exactly the sequences that counting gives: dense, from 1, none twice (P2, P4);
  - after a SIGKILL in the middle of that window, the TL.INFO of all conversations and users
    describes a prefix of the order of sending that is complete for each message (P3) and holds
    everything acknowledged (P1). The server commits one connection's requests in order, so anything
    but a prefix is a loss. Sending continues after the prefix;
  - a message that survived unacknowledged is not sent again, one that did not is: the result does
    not depend on kills;
  - a server that is killed once more while it restarts (every third time) holds no less;
  - the epoch of a timeline is the same after every restart (P11).

Checked at the end, with and without kills, from memory and again after a flush and a restart:
  - each conversation, paged by TL.READ, equals the dataset in sender, text and timestamp;
  - each sync timeline, paged by TL.RANGE, equals the union of its user's conversations in the order
    of sending;
  - every acknowledged (key, sequence) holds the body that was acknowledged.

    chitchat.py (--server PATH [--dir D] [--kills N] | --address HOST:PORT)
                [--messages N] [--window N] [--seed N]

With --address, or a --dir that exists, sending resumes after the messages that are there already.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import chitchat_dataset
import redis

from running import RunningServer, directory_bytes

PIPELINE = 64  # requests handed to the socket at once
# Entries of one page: above the default, so that COUNT matters; below long timelines, so that
# paging does.
PAGE = 500
LONGEST_FUSE_SECONDS = 0.02  # between the request that lights it and the SIGKILL


class Broken(Exception):
    """A promise did not hold; the text is a sentence for the person who runs the check."""


@dataclass(frozen=True)
class Message:
    keys: tuple[str, ...]  # the conversation's timeline, then the participants'
    seqs: tuple[int, ...]  # the sequences that counting gives
    body: bytes


@dataclass
class Corpus:
    order: list[Message]
    conversations: dict[str, list[dict]]  # key: its messages as the dataset has them
    participants: dict[str, list[str]]  # key: the sync timelines of its senders

    @classmethod
    def load(cls, limit: int | None) -> Corpus:
        conversations = {f"messages:{name}": list(itertools.chain.from_iterable(conversation["messages"]))
                         for name, conversation in chitchat_dataset.Dataset().items()}
        participants = {key: [f"sync:{user}" for user in dict.fromkeys(each["sender"] for each in messages)]
                        for key, messages in conversations.items()}
        # All timestamps are UTC of one width, so that they sort as text; the sort is stable and
        # each conversation is ascending, so that it keeps its own order.
        arrivals = sorted(((key, each) for key, messages in conversations.items() for each in messages),
                          key=lambda arrival: arrival[1]["timestamp"])[:limit]
        ends: Counter[str] = Counter()
        order: list[Message] = []
        kept: dict[str, list[dict]] = {key: [] for key, _ in arrivals}
        for key, each in arrivals:
            keys = (key, *participants[key])
            ends.update(keys)
            kept[key].append(each)
            order.append(Message(keys, tuple(ends[target] for target in keys), body_of(key, each)))
        return cls(order, kept, {key: participants[key] for key in kept})

    def users(self) -> list[str]:
        return sorted(set(itertools.chain.from_iterable(self.participants.values())))

    def ends(self, count: int) -> Counter[str]:
        """The last sequence of each timeline after the first `count` messages."""
        return Counter(itertools.chain.from_iterable(message.keys for message in self.order[:count]))


def body_of(key: str, message: dict) -> bytes:
    return json.dumps({"conversation": key, **message}, ensure_ascii=False).encode()


@dataclass
class Figures:
    found: int = 0  # messages that were there before this run
    kills: int = 0
    killed_restarts: int = 0
    most_in_flight: int = 0
    survived_unacknowledged: int = 0
    sending_seconds: float = 0.0
    reading_seconds: float = 0.0
    restart_seconds: list[float] = field(default_factory=list)


class Sending:
    """The state of the run: how much of the order was acknowledged, and each acknowledgement."""

    def __init__(self, corpus: Corpus, window: int, server: RunningServer | None = None,
                 kill_points: Iterable[int] = (), seed: int = 0):
        self.corpus, self.window, self.server = corpus, window, server
        self.kill_points = deque(sorted(kill_points))
        self.random = random.Random(seed)
        self.acknowledged: dict[tuple[str, int], int] = {}  # (key, sequence): hash of the body
        self.confirmed = 0  # of these, found again by the last comparison
        self.epoch: bytes | None = None
        self.figures = Figures()

    def run(self, address: str) -> None:
        started = time.monotonic()
        done = self.resume(connect(address), floor=0, ceiling=len(self.corpus.order))
        self.figures.found = done
        while True:
            sent, answered = self.send_from(done, address)
            if not self.server or self.server.alive():
                break
            address = self.restart(in_flight=sent - answered)
            done = self.resume(connect(address), floor=answered, ceiling=sent)
            self.figures.survived_unacknowledged += done - answered
        self.figures.sending_seconds = time.monotonic() - started

    def send_from(self, first: int, address: str) -> tuple[int, int]:
        """Send until everything is answered or the connection breaks: counts sent and answered."""
        order, sent, answered = self.corpus.order, first, first
        connection = connect(address).connection_pool.get_connection()
        fuse: threading.Thread | None = None
        try:
            while answered < len(order):
                while sent < len(order) and sent - answered <= self.window - PIPELINE:
                    chunk = order[sent:sent + PIPELINE]
                    # Before it is sent: a part of it may arrive although sending fails.
                    sent += len(chunk)
                    connection.send_packed_command(connection.pack_commands(map(self.request, chunk)))
                    if self.kill_points and sent >= self.kill_points[0] and fuse is None:
                        self.kill_points.popleft()
                        fuse = self.light_fuse()
                for _ in range(min(PIPELINE, sent - answered)):
                    self.acknowledge(order[answered], connection.read_response())
                    answered += 1
        except (redis.ConnectionError, OSError) as error:
            if fuse is None:
                raise Broken(f"the connection broke with no kill, behind {answered} answers: {error}") from error
        finally:
            if fuse:
                fuse.join()
            connection.disconnect()
        return sent, answered

    def request(self, message: Message) -> tuple:
        return "TL.FANOUT", message.body, len(message.keys), *message.keys

    def light_fuse(self) -> threading.Thread:
        assert self.server is not None, "only a server of our own is killed"
        fuse = threading.Timer(self.random.uniform(0, LONGEST_FUSE_SECONDS), self.server.kill)
        fuse.start()
        return fuse

    def acknowledge(self, message: Message, reply: object) -> None:
        if reply != list(message.seqs):
            raise Broken(f"{message.keys} got {reply!r} where counting says {list(message.seqs)}")
        for place in zip(message.keys, message.seqs):
            if self.acknowledged.setdefault(place, hash(message.body)) != hash(message.body):
                raise Broken(f"{place} was acknowledged twice, with two bodies")

    def restart(self, in_flight: int) -> str:
        assert self.server is not None, "only a server of our own is killed"
        if in_flight:
            self.figures.kills += 1
        self.figures.most_in_flight = max(self.figures.most_in_flight, in_flight)
        if self.figures.kills % 3 == 0:
            self.server.start_and_kill(self.random.uniform(0, LONGEST_FUSE_SECONDS))
            self.figures.killed_restarts += 1
        started = time.monotonic()
        self.server.start()
        self.figures.restart_seconds.append(time.monotonic() - started)
        return self.server.address

    def resume(self, client: redis.Redis, floor: int, ceiling: int) -> int:
        """How many messages the server holds, by TL.INFO of every timeline; must be a prefix."""
        keys = [*self.corpus.conversations, *self.corpus.users()]
        infos = dict(zip(keys, pipelined(client, [("TL.INFO", key) for key in keys])))
        held = sum(infos[key][b"last"] for key in self.corpus.conversations)
        if not floor <= held <= ceiling:
            raise Broken(f"{held} messages are there, where {floor} were acknowledged and {ceiling} sent")
        ends = self.corpus.ends(held)
        for key, info in infos.items():
            if info[b"last"] != ends[key]:
                raise Broken(f"{key} ends at {info[b'last']}; the {held} messages that are there make it {ends[key]}")
            if info[b"count"] != ends[key] or info[b"first"] != 1 or info[b"trimmed_to"] != 0:
                raise Broken(f"{key} is not dense from 1 to {ends[key]}: {info}")
            self.epoch = self.epoch or info[b"epoch"]
            if info[b"epoch"] != self.epoch:
                raise Broken(f"{key} is of epoch {info[b'epoch']!r}, it was {self.epoch!r}: no history was restored")
        return held

    def compare(self, address: str) -> None:
        """Reads everything back and compares it with the dataset, the order and the replies."""
        started = time.monotonic()
        client = connect(address)
        self.confirmed = 0
        due: dict[str, list[bytes]] = {key: [] for key in self.corpus.users()}
        for message in self.corpus.order:
            for user in message.keys[1:]:
                due[user].append(message.body)
        for key, messages in self.corpus.conversations.items():
            bodies = self.checked(key, read_pages(client, key))
            texts, wanted = [json.loads(body) for body in bodies], [{"conversation": key, **each} for each in messages]
            if texts != wanted:
                raise Broken(f"{key} differs from the dataset at sequence {first_difference(texts, wanted)}")
        for key, sent in due.items():
            bodies = self.checked(key, range_pages(client, key))
            if bodies != sent:
                raise Broken(f"{key} differs from its conversations at sequence {first_difference(bodies, sent)}")
        if self.confirmed != len(self.acknowledged):
            raise Broken(f"{len(self.acknowledged) - self.confirmed} acknowledged entries are not there")
        self.figures.reading_seconds = time.monotonic() - started

    def checked(self, key: str, entries: Iterator[list]) -> list[bytes]:
        """The bodies; checks that sequences are dense, times do not fall, acknowledgements hold."""
        bodies, newest = [], 0
        for expected, (seq, when, body) in enumerate(entries, start=1):
            if seq != expected or when < newest:
                raise Broken(f"{key}: sequence {seq} of time {when} stands behind {expected - 1} of time {newest}")
            acknowledged = self.acknowledged.get((key, seq))
            if acknowledged is not None:
                if acknowledged != hash(body):
                    raise Broken(f"{key}: {seq} was acknowledged with another body")
                self.confirmed += 1
            bodies.append(body)
            newest = when
        return bodies


# --- redis-py


def connect(address: str) -> redis.Redis:
    host, port = address.rsplit(":", 1)
    return redis.Redis(host, int(port))


def pipelined(client: redis.Redis, commands: list[tuple]) -> list:
    replies = []
    for at in range(0, len(commands), PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for command in commands[at:at + PIPELINE]:
            pipeline.execute_command(*command)
        replies += pipeline.execute()
    return replies


def read_pages(client: redis.Redis, key: str) -> Iterator[list]:
    cursor, more = 0, True
    while more:
        page = client.execute_command("TL.READ", key, "AFTER", cursor)
        if page[b"verdict"] != b"OK":
            raise Broken(f"{key} after {cursor}: {page[b'verdict']!r}")
        yield from page[b"entries"]
        cursor, more = page[b"next"], page[b"more"]


def range_pages(client: redis.Redis, key: str) -> Iterator[list]:
    start = "-"
    while page := client.execute_command("TL.RANGE", key, start, "+", "COUNT", PAGE):
        yield from page
        start = f"({page[-1][0]}"


def first_difference(found: list, wanted: list) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, wanted))
    return 1 + sum(1 for _ in same)


# --- the run


def print_figures(sending: Sending) -> None:
    corpus, figures = sending.corpus, sending.figures
    entries = sum(len(message.keys) for message in corpus.order)
    print(f"messages         {len(corpus.order)} in {len(corpus.conversations)} conversations, {entries} entries, "
          f"{len(corpus.users())} users")
    sent = len(corpus.order) - figures.found
    print(f"sending          {sent} in {figures.sending_seconds:.1f} s, {sent / figures.sending_seconds:.0f} a second, "
          f"{sending.window} outstanding; {figures.found} were there")
    print(f"reading back     {figures.reading_seconds:.1f} s, {entries / figures.reading_seconds:.0f} entries/s")
    if figures.kills:
        print(f"kills            {figures.kills} with requests in flight (at most {figures.most_in_flight}), "
              f"{figures.killed_restarts} more while restarting")
        print(f"resuming         {figures.survived_unacknowledged} messages survived unacknowledged; "
              f"slowest restart {max(figures.restart_seconds):.2f} s")


def print_sizes(corpus: Corpus, stored: int) -> None:
    once = sum(len(message.body) for message in corpus.order)
    copies = sum(len(message.body) * len(message.keys) for message in corpus.order)
    print(f"on disk          {stored} bytes: {stored / once:.2f} of the bodies once, {stored / copies:.2f} of a copy "
          f"for each entry")


def check_own_server(sending: Sending, server: RunningServer, directory: str, kills: int) -> None:
    sending.run(server.address)
    sending.compare(server.address)
    print_figures(sending)
    if sending.figures.kills < kills:
        raise Broken(f"only {sending.figures.kills} of {kills} kills found requests in flight: use another --seed")
    if connect(server.address).execute_command("TL.FLUSH") not in (b"OK", True):
        raise Broken("TL.FLUSH did not say OK")
    server.stop()
    print_sizes(sending.corpus, directory_bytes(directory))
    server.start()
    sending.resume(connect(server.address), floor=len(sending.corpus.order), ceiling=len(sending.corpus.order))
    sending.compare(server.address)
    server.stop()


def kills_among(total: int, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> list[int]:
    """The message counts at which the server is killed: away from both ends of the order."""
    if arguments.kills > total // 100:
        parser.error("at most one kill for each hundred messages")
    return random.Random(arguments.seed).sample(range(total // 50, total - total // 20), arguments.kills)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--server", metavar="PATH", help="the binary; it is started and stopped here")
    place.add_argument("--address", metavar="HOST:PORT", help="a server that runs already")
    parser.add_argument("--dir", help="the server's directory; default: a temporary one")
    parser.add_argument("--kills", type=int, default=0, help="how often to SIGKILL the server in the middle")
    parser.add_argument("--messages", type=int, help="only the first so many; default: all")
    parser.add_argument("--window", type=int, default=512, help="requests without an answer at any time")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    arguments = parser.parse_args()
    if arguments.kills and arguments.address:
        parser.error("--kills needs --server: a server that somebody else runs is not killed")
    if arguments.window < PIPELINE:
        parser.error(f"--window is at least {PIPELINE}")

    corpus = Corpus.load(arguments.messages)
    total = len(corpus.order)
    kill_points = kills_among(total, arguments, parser)
    try:
        if arguments.address:
            sending = Sending(corpus, arguments.window)
            sending.run(arguments.address)
            sending.compare(arguments.address)
            print_figures(sending)
        else:
            with tempfile.TemporaryDirectory(prefix="strandline-") as temporary:
                directory = arguments.dir or temporary
                with RunningServer(arguments.server, directory) as server:
                    sending = Sending(corpus, arguments.window, server, kill_points, arguments.seed)
                    check_own_server(sending, server, directory, arguments.kills)
    except (Broken, redis.RedisError) as problem:
        print(f"chitchat: {problem}", file=sys.stderr)
        return 1
    print(f"ok chitchat: {total} messages equal the dataset, {sending.figures.kills} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
