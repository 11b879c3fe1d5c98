"""The cost of a message: groups of several sizes, and a user in very many conversations.

    python3 groups.py --server PATH [--conversations 100000] [--sends 200] [--seconds 10]

Prints tables for docs/benchmarks.md: for each size the latency of IM.SEND, one after the other,
each durable, and the bytes that the log took for it; a chat of two beside the largest group; then,
for the user of many conversations, the cost of a sync of ten new messages and of a first page. It
asserts what does not depend on the machine: which users get which messages. Run it on a quiet
machine; only figures of one run can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import redis

SIZES = [(2, "auto"), (50, "auto"), (500, "auto"), (2000, "push"), (100_000, "auto")]


def start(server: str, directory: str) -> tuple[subprocess.Popen, redis.Redis]:
    process = subprocess.Popen([server, "serve", "--dir", directory, "--port", "0"], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    port = int(line.rsplit(":", 1)[1])
    return process, redis.Redis(port=port)


def stat(client: redis.Redis, name: bytes) -> int:
    found = client.execute_command("TL.STATS")
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2])
    return int(dict(pairs)[name])


def as_map(reply) -> dict:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def milliseconds(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1000:.3f} · {ordered[int(len(ordered) * 0.99)] * 1000:.3f}"


def groups(client: redis.Redis, sends: int) -> None:
    print("| members | mode | IM.SEND p50 · p99, ms | log bytes a message |\n|---|---|--:|--:|")
    body = b"x" * 200
    for size, mode in SIZES:
        conv = f"g{size}"
        members = [f"m{number}" for number in range(size)]
        assert client.execute_command("IM.CREATE", conv, "MODE", mode, "MEMBERS", *members) == 1
        client.execute_command("IM.SEND", conv, "m0", body)
        before, times = stat(client, b"wal_bytes"), []
        for _ in range(sends):
            begin = time.perf_counter()
            client.execute_command("IM.SEND", conv, "m1", body)
            times.append(time.perf_counter() - begin)
        written = (stat(client, b"wal_bytes") - before) / sends
        print(f"| {size} | {mode} | {milliseconds(times)} | {written:.0f} |", flush=True)
        page = as_map(client.execute_command("IM.SYNC", f"m{size - 1}", "0", "COUNT", 10_000))
        got = [entry for entry in page[b"entries"] if entry[0] == conv.encode()]
        assert len(got) == sends + 1, (size, len(got))


def many_conversations(client: redis.Redis, port: int, count: int, mode: str) -> None:
    user, prefix = f"busy-{mode}", f"{mode}-c"

    def create(part: int, parts: int) -> None:
        own = redis.Redis(port=port)
        for number in range(part, count, parts):
            own.execute_command("IM.CREATE", f"{prefix}{number}", "MODE", mode, "MEMBERS", user, "other")

    threads = [threading.Thread(target=create, args=(part, 16)) for part in range(16)]
    begin = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    made = time.perf_counter() - begin
    cursor = client.execute_command("IM.TAIL", user)
    times = []
    for round_number in range(20):
        expected = []
        for number in range(10):
            conv = f"{prefix}{(round_number * 7919 + number * 104_729) % count}"
            client.execute_command("IM.SEND", conv, "other", b"new")
            expected.append(conv.encode())
        begin = time.perf_counter()
        page = as_map(client.execute_command("IM.SYNC", user, cursor))
        times.append(time.perf_counter() - begin)
        assert sorted(entry[0] for entry in page[b"entries"]) == sorted(expected), page
        cursor = page[b"cursor"]
    begin = time.perf_counter()
    first = as_map(client.execute_command("IM.CONVERSATIONS", user, "COUNT", 20))
    page_time = time.perf_counter() - begin
    assert len(first[b"items"]) == 20 and first[b"next"]
    print(f"| {count} | {mode} | {made:.1f} | {milliseconds(times)} | {page_time * 1000:.0f} |", flush=True)


def beside_a_large_group(client: redis.Redis, port: int, seconds: float) -> None:
    """Two users chat; then again while the group of 100,000 gets a hundred messages a second."""
    client.execute_command("IM.CREATE", "two", "MEMBERS", "ann", "bob")
    stop = threading.Event()

    def write() -> None:
        own, begin, sent = redis.Redis(port=port), time.perf_counter(), 0
        while not stop.is_set():
            own.execute_command("IM.SEND", "g100000", "m0", b"x" * 200)
            sent += 1
            time.sleep(max(0.0, begin + sent / 100 - time.perf_counter()))

    def chat() -> list[float]:
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            client.execute_command("IM.SEND", "two", "ann", b"hello")
            times.append(time.perf_counter() - begin)
        return times

    alone = chat()
    writer = threading.Thread(target=write)
    writer.start()
    together = chat()
    stop.set()
    writer.join()
    print("\n| a chat of two | IM.SEND p50 · p99, ms |\n|---|--:|")
    print(f"| alone | {milliseconds(alone)} |\n| beside 100 messages a second to 100,000 members | {milliseconds(together)} |\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--sends", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10, help="of each of the two chats beside the large group")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        process, client = start(arguments.server, directory)
        try:
            port = client.connection_pool.connection_kwargs["port"]
            groups(client, arguments.sends)
            beside_a_large_group(client, port, arguments.seconds)
            print("| conversations | mode | made in, s | IM.SYNC of 10 new p50 · p99, ms | first IM.CONVERSATIONS, ms |")
            print("|---|---|--:|--:|--:|")
            for mode in ("push", "pull"):
                many_conversations(client, port, arguments.conversations, mode)
        finally:
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
