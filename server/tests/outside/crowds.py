"""Crowds of clients that do nothing, too little, or do not read, and what others notice of them.

    crowds.py PATH [SCENARIO …] [--clients N] [--seconds N] [--rounds N] [--times]

| scenario | the crowd | checked |
|---|---|---|
| idle | 10,000 connections that have sent one PING | at most 16 KiB of memory each |
| still | 200 followers that stop to read under load | memory; all of them continue without a gap |
| unread | a client that sends 1,000,000 commands and reads no reply | memory; it is closed |
| slow | 5,000 clients that send a byte a second, half of them logged in | all are closed by a deadline |
| handshakes | 5,000 TLS handshakes that stop halfway | all are closed by a deadline |
| descriptors | 200 clients of a server with 64 descriptors | service is back when they go |

Of the followers of `still`, one in fifty reads all that it missed, the others 20,000 entries.

Without a scenario it runs all of them. `--clients` and `--seconds` change the size of each. Times
are printed, and judged with `--times` only, since they need a machine that does nothing else:
`idle` compares the p99 of appends with that without the crowd (at most 1.25 times), `still` likewise
(1.5 times); in `slow`, `handshakes` and `unread` a new client is served within 100 ms; in
`descriptors` the server takes at most a quarter of a core, and service is back within a second.

Needs openssl for `handshakes`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from ledger import Broken, directory, parser_of, server, told, until
from resp import Connection, Refused, pairs

PASSWORD = "of a crowd"
MOST_IDLE_BYTES = 16 << 10
MOST_SERVED_SECONDS = 0.1
MOST_IDLE_RATIO, MOST_STILL_RATIO = 1.25, 1.5
MOST_DESCRIPTORS_CORE, MOST_BACK_SECONDS = 0.25, 1.0
DEADLINE_SECONDS = 10
# A client that stops is closed after six windows at most: what it moved before counts for five.
WINDOW_SECONDS, WINDOWS = 3, 6
# Of a second.
TURNS = 20
# After thousands of connections have come or gone.
REST_SECONDS = 2
BUDGET_BYTES, CLIENT_BYTES, LEDGER_BYTES = 64 << 20, 64 << 20, 32 << 20
# One reply for each event loop and each thread of the pool: a quarter of the memory of clients.
REPLY_BYTES = (2 * (os.cpu_count() or 1) + 1) * CLIENT_BYTES // 4
# The program, and what the allocator keeps.
OTHER_BYTES = 64 << 20
SETTINGS = f"""
memory_budget_bytes = {BUDGET_BYTES}
[messaging]
ledger_memory_bytes = {LEDGER_BYTES}
[limits]
max_clients = 12000
client_memory_bytes = {CLIENT_BYTES}
client_stall_seconds = {WINDOW_SECONDS}
auth_seconds = {DEADLINE_SECONDS}
"""


class Judge:
    """Prints what was measured, and refuses what is above a bound."""

    def __init__(self, times: bool):
        self.times = times

    def time(self, what: str, value: float, most: float, unit: str) -> str:
        if self.times and value > most:
            raise Broken(f"{what}: {value:.3g} {unit}, at most {most:.3g}")
        return f"{what} {value:.3g} {unit}"

    @staticmethod
    def count(what: str, value: int, most: int) -> str:
        if value > most:
            raise Broken(f"{what}: {value:,}, at most {most:,}")
        return f"{what} {value:,} of {most:,}"


def resident(process: subprocess.Popen, field: str = "VmRSS") -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", status)[1])


def peak(process: subprocess.Popen) -> int:
    return resident(process, "VmHWM")


def core_seconds(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most_resident(clients: int) -> int:
    """The sum that docs/operations.md states, and the rest."""
    return BUDGET_BYTES + CLIENT_BYTES + LEDGER_BYTES + REPLY_BYTES + clients * (32 << 10) + OTHER_BYTES


def p99(binary: str, address: str, seconds: int) -> float:
    """Of appends at a fixed rate, in milliseconds, as users of the server know it."""
    words = ["bench", "append", "--address", address, "--connections", "16", "--rate", "1000", "--warm-up", "0.5",
             "--seconds", str(seconds), "--json"]
    ran = subprocess.run([binary, *words], capture_output=True, text=True, timeout=60 + 4 * seconds)
    if ran.returncode:
        raise Broken(f"bench: {ran.stderr}")
    fixed = [json.loads(line) for line in ran.stdout.splitlines()][-1]
    if fixed["errors"]:
        raise Broken(f"bench: {fixed['errors']} errors")
    return fixed["latency_us"]["p99"] / 1000


def opened(address: str, count: int) -> list[socket.socket]:
    host, port = address.rsplit(":", 1)
    return [socket.create_connection((host, int(port)), 60) for _ in range(count)]


def closed(crowd: list[socket.socket]) -> None:
    for one in crowd:
        one.close()


def ended(one: socket.socket) -> bool:
    """Whether the server closed it; what it said is dropped."""
    one.setblocking(False)
    try:
        while one.recv(1 << 16):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def served(address: str, password: str | None = None) -> float:
    """How long a new client waits for its first answer."""
    begin = time.monotonic()
    connection = Connection(address)
    for words in [("AUTH", password)] * bool(password) + [("PING",)]:
        if isinstance(reply := connection.call(*words), Refused):
            raise Broken(f"a new client is told: {reply}")
    connection.close()
    return time.monotonic() - begin


def ratio(binary: str, address: str, seconds: int, rounds: int, crowd) -> tuple[float, list[float], list[float]]:
    """The p99 without and with a crowd in turn, and the median of their ratios. `crowd` makes one,
    and returns what takes it away."""
    alone, beside = [], []
    for _ in range(rounds):
        for times in alone, beside:
            leave = crowd() if times is beside else lambda: None
            time.sleep(REST_SECONDS)
            times.append(p99(binary, address, seconds))
            leave()
    return statistics.median(there / none for none, there in zip(alone, beside)), alone, beside


def shown(times: list[float]) -> str:
    return "/".join(f"{one:.3g}" for one in times)


def idle(binary: str, path: str, arguments, judge: Judge) -> str:
    count = arguments.clients or 10_000
    with server(binary, f"{path}/data", settings=SETTINGS) as running:
        control = Connection(running.address)
        clients = lambda: int(re.search(rb"connected_clients:(\d+)", control.call("INFO", "clients"))[1])
        most = []

        def crowd():
            before = resident(running.process)
            there = opened(running.address, count)
            for one in there:
                one.sendall(b"PING\r\n")
            for one in there:
                if one.recv(7) != b"+PONG\r\n":
                    raise Broken("a connection was refused")
            if clients() != count + 1:
                raise Broken(f"{clients() - 1} of {count} connections are open")
            most.append(resident(running.process) - before)

            def leave():
                closed(there)
                until("the connections are gone", lambda: clients() == 1)
            return leave

        p99(binary, running.address, 2)
        times, alone, beside = ratio(binary, running.address, arguments.seconds or 10, arguments.rounds, crowd)
        # Later crowds use memory again that the first has left.
        each = judge.count("bytes each", most[0] // count, MOST_IDLE_BYTES)
        running.stop()
    return (f"{count} connections, {each}; {judge.time('p99 of appends beside them', times, MOST_IDLE_RATIO, 'times')} "
            f"({shown(alone)} ms without, {shown(beside)} ms with)")


class Follower:
    """A connection that follows a user, and stands still until it reads on."""

    def __init__(self, user: str, cursor: bytes, seq: int):
        self.user, self.cursor, self.seq = user, cursor, seq

    def follow(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 60)
        words = [b"IM.FOLLOW", self.user.encode(), self.cursor]
        self.socket.sendall(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*3\r\n" +
                            b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def read_to(self, last: int, address: str) -> int:
        """Reads on to a sequence, and connects again where the server ended the connection. Returns
        how often it did."""
        again, data = 0, b""
        while self.seq < last:
            try:
                more = self.socket.recv(1 << 20)
            except TimeoutError:
                raise Broken(f"{self.user} gets nothing after {self.seq} of {last}") from None
            except OSError:
                more = b""
            if not more:
                again, data = again + 1, b""
                if again > 1000:
                    raise Broken(f"{self.user} was disconnected {again} times at {self.seq}")
                self.follow(address)
                continue
            data += more
            end = 0
            for frame in ENTRY.finditer(data):
                if int(frame["seq"]) != self.seq + 1:
                    raise Broken(f"{self.user} got {frame['seq'].decode()} after {self.seq}")
                self.seq, self.cursor, end = self.seq + 1, frame["cursor"], frame.end()
            data = data[end:]
            if b"im.gap" in data:
                raise Broken(f"{self.user} was sent a gap: {data[:200]!r}")
        self.socket.close()
        return again


BODY = b"m" * 500
READ_ON = 20_000
# The end of a frame of RESP3 that has the user's cursor, conversation, sequence, time, and so on.
ENTRY = re.compile(rb">9\r\n\$8\r\nim\.entry\r\n\$\d+\r\n[^\r]*\r\n\$\d+\r\n(?P<cursor>[^\r]*)\r\n\$\d+\r\ncrowd\r\n"
                   rb":(?P<seq>\d+)\r\n[^m]*?message\r\n\$500\r\n" + BODY + rb"\r\n")


class Load:
    """A writer that keeps 64 messages of one group unanswered."""

    def __init__(self, address: str, last: int):
        self.connection, self.last, self.stop = Connection(address), last, threading.Event()
        self.refusal: Refused | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        sent = self.last
        while not self.stop.is_set() or self.last < sent:
            while not self.stop.is_set() and sent < self.last + 64:
                self.connection.send("IM.SEND", "crowd", "u0", BODY)
                sent += 1
            reply = self.connection.receive()
            if isinstance(reply, Refused):
                self.refusal = reply
                return
            self.last = pairs(reply)["seq"]

    def end(self) -> int:
        self.stop.set()
        self.thread.join()
        if self.refusal:
            raise Broken(f"a message was refused: {self.refusal}")
        return self.last


def still(binary: str, path: str, arguments, judge: Judge) -> str:
    count, seconds = arguments.clients or 200, arguments.seconds or 30
    with server(binary, f"{path}/data", settings=SETTINGS) as running:
        users = [f"u{number}" for number in range(count)]
        control = Connection(running.address)
        control.call("IM.CREATE", "crowd", "MODE", "push", "MEMBERS", *users)
        load = Load(running.address, 0)
        alone = p99(binary, running.address, seconds)
        first = load.end()
        followers = [Follower(user, control.call("IM.TAIL", user), first) for user in users]
        for follower in followers:
            follower.follow(running.address)
        load = Load(running.address, first)
        beside = p99(binary, running.address, seconds)
        last = load.end()
        if last < first + 10 * seconds:
            raise Broken(f"the load made only {last - first} messages")
        # A hundred million entries take long to read: a few followers read all, the others some.
        ends = [last if number % 50 == 0 else min(last, first + READ_ON) for number in range(count)]
        again = sum(one.read_to(end, running.address) for one, end in zip(followers, ends))
        memory = judge.count("resident bytes at the most", peak(running.process), most_resident(count))
        running.stop()
    return (f"{count} followers stood still for {seconds} s while {last - first} messages came to each; they connected again "
            f"{again} times; none has a gap; {memory}; "
            f"{judge.time('p99 of other appends', beside / alone, MOST_STILL_RATIO, 'times')} "
            f"({alone:.3g} ms without, {beside:.3g} ms with)")


def unread(binary: str, path: str, arguments, judge: Judge) -> str:
    count = arguments.clients or 1_000_000
    with server(binary, f"{path}/data", settings=SETTINGS) as running:
        helper = Connection(running.address)
        for _ in range(10):
            helper.call("TL.APPEND", "messages:long", b"x" * 200)
        one = opened(running.address, 1)[0]
        one.settimeout(0.1)
        request = b"*6\r\n$11\r\nTL.REVRANGE\r\n$13\r\nmessages:long\r\n$1\r\n+\r\n$1\r\n-\r\n$5\r\nCOUNT\r\n$2\r\n10\r\n"
        everything = memoryview(request * count)
        sent, longest = 0, 0.0
        most_seconds = (WINDOWS + 3) * WINDOW_SECONDS
        begin, is_open = time.monotonic(), True
        while is_open:
            try:
                sent += one.send(everything[sent:sent + (1 << 20)])
            except TimeoutError:
                pass
            except OSError:
                is_open = False
            longest = max(longest, served(running.address))
            if sent == len(everything):
                raise Broken("the server took all of it: give more --clients")
            if time.monotonic() > begin + most_seconds:
                raise Broken(f"a client that reads nothing is not closed within {most_seconds} s")
        after = time.monotonic() - begin
        taken = sent // len(request)
        memory = judge.count("resident bytes at the most", peak(running.process), most_resident(1))
        running.stop()
    return (f"of {count} commands the server took {taken}, and closed the connection after {after:.1f} s; {memory}; "
            f"{judge.time('a new client is served within', longest, MOST_SERVED_SECONDS, 's')}")


def until_closed(crowd: list[socket.socket], each_second, probe) -> tuple[float, float]:
    """Calls `each_second` for each that is open, spread over the second. Returns when the last one
    was closed, and the longest that a new client waited."""
    begin, longest, left, turn = time.monotonic(), 0.0, list(crowd), 0
    while left:
        for one in left[turn % TURNS::TURNS]:
            try:
                each_second(one)
            except OSError:
                pass
        turn += 1
        longest = max(longest, probe())
        if turn % TURNS == 0:
            left = [one for one in left if not ended(one)]
        if time.monotonic() > begin + 3 * DEADLINE_SECONDS:
            raise Broken(f"{len(left)} of {len(crowd)} are not closed within {3 * DEADLINE_SECONDS} s")
        time.sleep(max(0.0, begin + turn / TURNS - time.monotonic()))
    return time.monotonic() - begin, longest


def slow(binary: str, path: str, arguments, judge: Judge) -> str:
    count = arguments.clients or 5_000
    # Those that have not logged in may hold an eighth of the memory of clients.
    settings = SETTINGS.replace(f"client_memory_bytes = {CLIENT_BYTES}", "")
    with server(binary, f"{path}/data", settings=f'password = "{PASSWORD}"\n{settings}') as running:
        crowd = opened(running.address, count)
        login = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(PASSWORD), PASSWORD.encode())
        for one in crowd[::2]:
            one.sendall(login)
        for one in crowd[::2]:
            if one.recv(5) != b"+OK\r\n":
                raise Broken("a login was refused")
        request = b"*2\r\n$4\r\nECHO\r\n$1000\r\n" + b"e" * 1000
        places = dict.fromkeys(crowd, 0)

        def byte(one: socket.socket) -> None:
            place = places[one]
            places[one] += 1
            one.send(request[place:place + 1])

        last, longest = until_closed(crowd, byte, lambda: served(running.address, PASSWORD))
        running.stop()
    return (f"{count} clients sent a byte a second; the last was closed after {last:.1f} s; "
            f"{judge.time('a new client is served within', longest, MOST_SERVED_SECONDS, 's')}")


def certificate(path: str) -> None:
    """Makes one for this machine."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", f"{path}/key.pem", "-out", f"{path}/cert.pem"], check=True, capture_output=True)


def hello() -> bytes:
    """The first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def handshakes(binary: str, path: str, arguments, judge: Judge) -> str:
    count = arguments.clients or 5_000
    certificate(path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    tls = f'[tls]\nport = {address.split(":")[1]}\ncertificate = "{path}/cert.pem"\nkey = "{path}/key.pem"\n'
    with server(binary, f"{path}/data", settings=SETTINGS + tls) as running:
        context = ssl.create_default_context(cafile=f"{path}/cert.pem")

        def probe() -> float:
            begin = time.monotonic()
            with context.wrap_socket(opened(address, 1)[0], server_hostname="127.0.0.1") as one:
                one.sendall(b"*1\r\n$4\r\nPING\r\n")
                if one.recv(7) != b"+PONG\r\n":
                    raise Broken("a new TLS client is not served")
            return time.monotonic() - begin

        crowd, first = opened(address, count), hello()
        # A third sends a part of its first message, a third all of it, a third nothing.
        flights = {one: (first[:100], first, b"")[number % 3] for number, one in enumerate(crowd)}
        last, longest = until_closed(crowd, lambda one: one.send(flights.pop(one, b"")), probe)
        running.stop()
    return (f"{count} handshakes stopped halfway; the last was closed after {last:.1f} s; "
            f"{judge.time('a new TLS client is served within', longest, MOST_SERVED_SECONDS, 's')}")


def descriptors(binary: str, path: str, arguments, judge: Judge) -> str:
    count, seconds = arguments.clients or 200, arguments.seconds or 5
    prefix = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]
    with server(binary, f"{path}/data", prefix, settings=SETTINGS) as running:
        begin, used, crowd = time.monotonic(), core_seconds(running.process), []
        while time.monotonic() < begin + seconds:
            # Those that were refused come again.
            crowd = [one for one in crowd if not ended(one)]
            crowd += opened(running.address, count - len(crowd))
            time.sleep(0.1)
        core = (core_seconds(running.process) - used) / (time.monotonic() - begin)
        closed(crowd)
        begin = time.monotonic()
        while True:
            try:
                served(running.address)
                break
            except (OSError, Broken):
                if time.monotonic() > begin + 60:
                    raise Broken("the crowd went, and for a minute nobody was served") from None
                time.sleep(0.01)
        back = time.monotonic() - begin
        running.stop()
    return (f"{count} clients of 64 descriptors: {judge.time('the server took', core, MOST_DESCRIPTORS_CORE, 'cores')}; "
            f"{judge.time('service was back after', back, MOST_BACK_SECONDS, 's')}")


SCENARIOS = {one.__name__: one for one in (idle, still, unread, slow, handshakes, descriptors)}


def main() -> int:
    parser = parser_of(__doc__, clients=0, seconds=0, rounds=3)
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], metavar="SCENARIO")
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    status = 0
    for name in arguments.scenarios or SCENARIOS:

        def run() -> str:
            with directory() as path:
                return f"{name}: {SCENARIOS[name](arguments.binary, path, arguments, Judge(arguments.times))}"

        status |= told(run)
    return status


if __name__ == "__main__":
    sys.exit(main())
