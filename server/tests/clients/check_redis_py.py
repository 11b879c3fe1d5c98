"""Stock redis-py against the server, with the library's defaults and with each protocol version.

    check_redis_py.py HOST:PORT

Every check asserts replies, not only that there was one. Keys are fresh for each run, so that the
server need not be empty. MULTI is not part of the contract: pipelines are used without a
transaction. TL.FOLLOW's push frames are not pub/sub, so they are read from the library's
connection, whose parser returns them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import redis
from redis.utils import str_if_bytes

RECEIVE_SECONDS = 10
VERSIONS = {"default": None, "RESP2": 2, "RESP3": 3}


class Check:
    """The checks of one protocol version. Each method is one, and its name says what it shows."""

    def __init__(self, address: str, label: str, version: int | None):
        self.host, port = address.rsplit(":", 1)
        self.port, self.version = int(port), version
        self.stamp = f"py{time.time_ns():x}{label}"
        self.client = self.connect()
        self.call = self.client.execute_command

    def connect(self) -> redis.Redis:
        return redis.Redis(self.host, self.port, protocol=self.version)  # None is the library's default

    def key(self, name: str, store: str = "messages") -> str:
        return f"{store}:{self.stamp}-{name}"

    # --- the connection

    def connection_speaks_as_redis_does(self) -> None:
        equal(self.client.ping(), True)
        equal(self.client.echo("hello"), b"hello")
        assert self.client.info()["redis_version"].startswith("7."), "INFO names a Redis version"
        assert self.client.client_id() > 0, "CLIENT ID"
        assert self.client.client_setname("checks"), "CLIENT SETNAME"
        assert str_if_bytes(self.client.client_getname()) == "checks", "CLIENT GETNAME"
        assert self.client.command_count() > 20, "COMMAND COUNT"
        keys = self.client.command_getkeys("TL.FANOUT", "body", 2, "messages:a", "sync:b")
        equal([str_if_bytes(key) for key in keys], ["messages:a", "sync:b"])
        equal(self.client.config_get("save").keys(), {"save"})
        seconds, _ = self.client.time()
        assert abs(seconds - time.time()) < 60, "TIME is near this machine's"

    def errors_begin_with_a_word(self) -> None:
        key = self.key("errors")
        refused(lambda: self.call("TL.APPEND", key), "wrong number of arguments")
        refused(lambda: self.call("TL.NOSUCH"), "unknown command")
        refused(lambda: self.call("TL.APPEND", "nostore:x", "body"), "NOSTORE")
        refused(lambda: self.call("TL.APPEND", "messages:" + "n" * 256, "body"), "TOOBIG")
        refused(lambda: self.call("TL.APPEND", key, b"x" * (16 * 1024 * 1024 + 1)), "TOOBIG")
        refused(lambda: self.call("TL.RANGE", key, "-", "nonsense"), "integer")
        refused(lambda: self.map("TL.READ", key, "AFTER", 2**63), "integer")
        equal(self.map("TL.INFO", key)[b"last"], 0)  # the connection is open, and nothing was written

    # --- timelines

    def appends_are_numbered_and_read_back(self) -> None:
        key, bodies = self.key("read"), [b"first", b"", bytes(range(256)), b"\r\n$5\r\n", b"x" * 100_000]
        equal([self.call("TL.APPEND", key, body) for body in bodies], [1, 2, 3, 4, 5])
        equal(self.call("TL.GET", key, 3)[::2], [3, bodies[2]])
        equal(self.call("TL.GET", key, 6), None)
        equal(numbered(self.call("TL.RANGE", key, "-", "+")), list(enumerate(bodies, 1)))
        equal(numbered(self.call("TL.RANGE", key, "(1", 4, "COUNT", 2)), [(2, bodies[1]), (3, bodies[2])])
        equal(numbered(self.call("TL.REVRANGE", key, "+", "-", "COUNT", 2)), [(5, bodies[4]), (4, bodies[3])])
        equal(self.call("TL.LAST", key)[::2], [5, bodies[4]])
        info = self.map("TL.INFO", key)
        equal([info[word] for word in (b"first", b"last", b"count", b"bytes", b"trimmed_to")],
              [1, 5, 5, sum(map(len, bodies)), 0])
        equal(self.call("TL.SEQAT", key, info[b"last_time"] + 1), 6)
        equal(self.call("TL.SEQAT", key, 0), 1)

    def read_pages_until_nothing_is_more(self) -> None:
        key, bodies = self.key("pages"), [b"%d" % number for number in range(250)]
        self.pipeline([("TL.APPEND", key, body) for body in bodies])
        found, cursor, more = [], 0, 1
        while more:
            page = self.map("TL.READ", key, "AFTER", cursor)
            equal((page[b"verdict"], page[b"first"], page[b"last"]), (b"OK", 1, 250))
            found += [body for _, _, body in page[b"entries"]]
            cursor, more = page[b"next"], page[b"more"]
        equal((found, cursor), (bodies, 250))
        ahead = self.map("TL.READ", key, "AFTER", 251)
        equal((ahead[b"verdict"], ahead[b"entries"]), (b"FUTURE", []))
        equal(self.map("TL.READ", key, "AFTER", 0, "EPOCH", "another")[b"verdict"], b"EPOCH")
        equal(self.map("TL.READ", key, "AFTER", 0, "EPOCH", page[b"epoch"], "COUNT", 1)[b"verdict"], b"OK")

    def fan_out_reaches_every_key(self) -> None:
        keys = [self.key("conversation"), *(self.key(user, "sync") for user in ("ann", "bob", "cy"))]
        equal(self.call("TL.APPEND", keys[2], "earlier"), 1)
        equal(self.call("TL.FANOUT", "to all", len(keys), *keys), [1, 1, 2, 1])
        equal([self.call("TL.LAST", key)[2] for key in keys], [b"to all"] * 4)
        replies = self.call("TL.MREAD", 3, *keys[1:], "AFTER", 1, 1, 0)
        equal([(name, numbered(as_map(page)[b"entries"])) for name, page in replies],
              [(keys[2].encode(), [(2, b"to all")]), (keys[3].encode(), [(1, b"to all")])])
        equal(self.call("TL.LIST", f"sync:{self.stamp}-", "COUNT", 2), [key.encode() for key in keys[1:3]])

    def pipelines_answer_in_order(self) -> None:
        key = self.key("pipeline")
        equal(self.pipeline([("TL.APPEND", key, "body")] * 2000), list(range(1, 2001)))
        replies = self.pipeline([("TL.APPEND", key, "a"), ("TL.NOSUCH",), ("TL.APPEND", key, "b")])
        equal(replies[::2], [2001, 2002])
        assert isinstance(replies[1], redis.ResponseError), "one refusal stops nothing behind it"

    def stores_are_made_and_told(self) -> None:
        name = f"s{time.time_ns():x}"[:32]
        equal(self.call("TL.STORE", "CREATE", name, "TTL", 3_600_000), b"OK")
        equal(self.map("TL.STORE", "INFO", name)[b"ttl"], 3_600_000)
        assert {b"messages", b"sync", name.encode()} <= set(self.call("TL.STORE", "LIST")), "TL.STORE LIST"
        refused(lambda: self.call("TL.STORE", "CREATE", name, "TTL", 1), "CONFLICT")
        equal(self.call("TL.APPEND", f"{name}:x", "body"), 1)
        equal(self.call("TL.FLUSH"), b"OK")
        equal(self.call("TL.GET", f"{name}:x", 1)[2], b"body")
        assert self.call("TL.STATS"), "TL.STATS tells something"

    def blocked_read_wakes_at_the_append(self) -> None:
        key = self.key("block")
        later = threading.Timer(0.2, lambda: self.connect().execute_command("TL.APPEND", key, "woken"))
        started = time.monotonic()
        later.start()
        page = self.map("TL.READ", key, "AFTER", 0, "BLOCK", 4000)
        equal(numbered(page[b"entries"]), [(1, b"woken")])
        assert time.monotonic() - started < 3, "the append ends the wait, not the limit"
        later.join()
        equal(self.map("TL.READ", key, "AFTER", 1, "BLOCK", 50)[b"entries"], [])

    # --- pushes

    def subscribers_are_sent_each_entry(self) -> None:
        plain, sharded = self.key("push"), self.key("shard", "sync")
        pubsub = self.client.pubsub()
        pubsub.subscribe(plain)
        pubsub.ssubscribe(sharded)
        equal([pubsub.get_message(timeout=RECEIVE_SECONDS)["type"] for _ in range(2)], ["subscribe", "ssubscribe"])
        equal([tuple(pair) for pair in self.client.pubsub_numsub(plain)], [(plain.encode(), 1)])
        bodies = [b"hello", b"", b"two\nlines"]
        for body in bodies:
            self.call("TL.FANOUT", body, 2, plain, sharded)
        received: dict[str, list] = {"message": [], "smessage": []}
        for _ in range(2 * len(bodies)):
            message = pubsub.get_message(timeout=RECEIVE_SECONDS)
            received[message["type"]].append((message["channel"], message["data"]))
        for kind, key in (("message", plain), ("smessage", sharded)):
            entries = self.call("TL.RANGE", key, "-", "+")
            equal(received[kind], [(key.encode(), b"%d %d\n%s" % tuple(entry)) for entry in entries])
        pubsub.close()

    def follow_catches_up_and_goes_on(self) -> None:
        key = self.key("follow")
        for number in range(5):
            self.call("TL.APPEND", key, f"before {number}")
        connection = self.connect().connection_pool.get_connection()
        connection.send_command("TL.FOLLOW", key, "AFTER", 2)
        if self.version == 2:
            refused(connection.read_response, "HELLO 3")
            return
        equal(as_map(connection.read_response())[b"verdict"], b"OK")
        for number in range(3):
            self.call("TL.APPEND", key, f"after {number}")
        pushes = [connection.read_response(push_request=True) for _ in range(6)]
        equal(pushes, [[b"tl.entry", key.encode(), *entry] for entry in self.call("TL.RANGE", key, 3, "+")])
        connection.send_command("TL.UNFOLLOW", key)
        equal(connection.read_response(), 1)
        connection.disconnect()

    # --- calls

    def map(self, *command: object) -> dict:
        return as_map(self.call(*command))

    def pipeline(self, commands: list[tuple]) -> list:
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)


CHECKS: tuple[Callable[[Check], None], ...] = (
    Check.connection_speaks_as_redis_does,
    Check.errors_begin_with_a_word,
    Check.appends_are_numbered_and_read_back,
    Check.read_pages_until_nothing_is_more,
    Check.fan_out_reaches_every_key,
    Check.pipelines_answer_in_order,
    Check.stores_are_made_and_told,
    Check.blocked_read_wakes_at_the_append,
    Check.subscribers_are_sent_each_entry,
    Check.follow_catches_up_and_goes_on,
)


def as_map(reply: dict | list) -> dict:
    """RESP2 has no maps: pairs come as a flat array."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def numbered(entries: list) -> list[tuple]:
    return [(seq, body) for seq, _, body in entries]


def equal(found: object, wanted: object) -> None:
    assert found == wanted, f"got {found!r:.300}, wanted {wanted!r:.300}"


def refused(attempt: Callable[[], object], word: str) -> None:
    try:
        reply = attempt()
    except redis.ResponseError as error:
        assert word in str(error), f"the refusal {str(error)!r} does not say {word!r}"
    else:
        raise AssertionError(f"got {reply!r:.300}, wanted a refusal that says {word!r}")


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("usage: check_redis_py.py HOST:PORT")
    for label, version in VERSIONS.items():
        check = Check(sys.argv[1], label, version)
        for step in CHECKS:
            try:
                step(check)
            except (AssertionError, redis.RedisError) as problem:
                sentence = step.__name__.replace("_", " ")
                print(f"redis-py {redis.__version__} {label}: {sentence}: {problem}", file=sys.stderr)
                return 1
        print(f"ok redis-py {redis.__version__} {label}: {len(CHECKS)} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
