"""The terminals of docs/examples, two of one user and one of another, over SIGKILL of the server,
absence and lost cursors.

Each terminal is a process as a reader of the documents would run it: lines to send go to its
standard input, the lines it shows are in its file and on its standard output. The server's
IM.HISTORY determines what they must show.

Checked:
  - lines sent by all terminals while the server is killed and started again are in the history once
    each, and each terminal shows each of them once, in the order of its conversation, pushed or
    pulled (P1, P10, P12);
  - a line whose reply is lost with the connection is sent again by the terminal, and is in the
    history once (P12);
  - a terminal that was away while messages were edited, recalled, hidden and read shows the same as
    the one that stayed;
  - a terminal whose position in the sync timeline is gone (TRIMMED), and all of them when the
    server comes back with another history (EPOCH), start again by themselves and show the current
    state.

    terminals.py --server PATH
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from running import RunningServer

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "docs" / "examples"
WAIT_SECONDS = 60
# From each terminal to each conversation; all together are fewer than the window of a terminal that
# starts again.
LINES = 7
CONVERSATIONS = {"pair": "push", "hall": "pull"}


class Broken(Exception):
    """A promise did not hold; the text is a sentence for the person who runs the check."""


class Wire:
    """A proxy for the terminals: passes bytes to and from the server, and can drop the replies."""

    def __init__(self, server: str):
        host, port = server.split(":")
        self.server, self.loses_replies = (host, int(port)), False
        self.connections: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for connection in self.connections:
            end(connection)
        self.connections.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(self.server)
            except OSError:
                client.close()
                continue
            self.connections.append(client)
            for source, sink, is_reply in [(client, server, False), (server, client, True)]:
                threading.Thread(target=self._pass, args=[source, sink, is_reply], daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        try:
            while data := source.recv(65536):
                if not (is_reply and self.loses_replies):
                    sink.sendall(data)
        except OSError:
            pass
        end(source)
        end(sink)


def end(connection: socket.socket) -> None:
    """Ends it for both sides, also for a thread that waits for it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster


class Terminal:
    """One process at a time, with a file that outlives it."""

    def __init__(self, name: str, command: list[str], user: str, directory: Path, address: str):
        self.name, self.user = name, user
        self.file, self.log = directory / f"{name}.json", directory / f"{name}.log"
        self.command = [*command, address, user, str(self.file)]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=log, text=True)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def send(self, conv: str, text: str) -> None:
        assert self.process and self.process.stdin, "start comes first"
        self.process.stdin.write(f"{conv} {text}\n")
        self.process.stdin.flush()

    def state(self) -> dict:
        if self.process and self.process.poll() is not None:
            raise Broken(f"the terminal {self.name} ended with status {self.process.returncode}")
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def printed(self) -> list[list[str]]:
        return [line.split(" ", 4) for line in self.log.read_text().splitlines()]


class Account:
    """The state that a user must be shown, according to the server."""

    def __init__(self, address: str):
        host, port = address.split(":")
        client = redis.Redis(host, int(port), protocol=3, decode_responses=True, retry=Retry(ConstantBackoff(0.1), 100))
        self.call = client.execute_command

    def create(self, users: list[str]) -> None:
        for conv, mode in CONVERSATIONS.items():
            self.call("IM.CREATE", conv, "MODE", mode, "MEMBERS", *users)

    def lines(self, conv: str, user: str) -> dict[str, list[str]]:
        history = self.call("IM.HISTORY", conv, user, "AFTER", 0, "COUNT", 1000)
        return {str(seq): [sender, kind, body] for seq, _, sender, kind, body, *_ in history if kind != "recall"}

    def read(self, user: str) -> dict[str, int]:
        return {item["conv"]: item["read"] for item in self.call("IM.CONVERSATIONS", user)["items"] if item["read"]}


def until(holds, sentence: str):
    ends = time.monotonic() + WAIT_SECONDS
    while not (found := holds()):
        if time.monotonic() > ends:
            raise Broken(f"within {WAIT_SECONDS} s not: {sentence}")
        time.sleep(0.02)
    return found


def await_account(account: Account, terminals: list[Terminal], when: str) -> None:
    """Waits until each terminal shows the server's state; nothing may change meanwhile."""
    for terminal in terminals:
        shown = {conv: account.lines(conv, terminal.user) for conv in CONVERSATIONS}
        read = account.read(terminal.user)

        def equal() -> bool:
            state = terminal.state()
            return (state.get("shown") == shown
                    and {conv: seq for conv, seq in state.get("read", {}).items() if seq} == read)

        until(equal, f"{when}: {terminal.name} shows {shown} and has read {read}; it last showed {terminal.state()}")


def check_refusal(terminals: list[Terminal]) -> None:
    for terminal in terminals:
        terminal.send("nowhere", "is refused, and the terminal goes on")
        until(lambda: any(line[:2] == ["refused:", "NOTFOUND"] for line in terminal.printed()),
              f"{terminal.name} says that there is no such conversation: {terminal.printed()}")


def check_kill(server: RunningServer, account: Account, terminals: list[Terminal]) -> None:
    sent = []
    for turn in range(LINES):
        for terminal in terminals:
            for conv in CONVERSATIONS:
                sent.append((conv, terminal.user, f"{terminal.name} {turn}"))
                terminal.send(conv, f"{terminal.name} {turn}")
        if turn == LINES // 2:
            server.kill()
    server.start()

    def history() -> list[tuple[str, str, str]]:
        lines = [(conv, line) for conv in CONVERSATIONS for line in account.lines(conv, terminals[0].user).values()]
        return [(conv, sender, body) for conv, (sender, _, body) in lines]

    until(lambda: len(history()) >= len(sent), f"{len(sent)} lines are in the history")
    await_account(account, terminals, "after the kill")
    if sorted(history()) != sorted(sent):
        raise Broken(f"the history is {history()} where {sent} were sent")
    for terminal in terminals:
        for conv in CONVERSATIONS:
            printed = [(seq, [sender, kind, body]) for name, seq, sender, kind, body in
                       (line for line in terminal.printed() if line[0] == conv)]
            if printed != list(account.lines(conv, terminal.user).items()):
                raise Broken(f"{terminal.name} printed of {conv}, not each line once and in order: {printed}")


def check_lost_replies(wire: Wire, account: Account, terminals: list[Terminal]) -> None:
    wire.loses_replies = True
    for terminal in terminals:
        terminal.send("pair", f"{terminal.name}, once")

    def arrived() -> list[str]:
        bodies = [body for _, _, body in account.lines("pair", "ann").values()]
        return sorted(body for body in bodies if body.endswith(", once"))

    wanted = sorted(f"{terminal.name}, once" for terminal in terminals)
    until(lambda: arrived() == wanted, "lines arrive whose replies are lost")
    wire.loses_replies = False
    wire.cut()
    for terminal in terminals:
        # A terminal sends in order, so the repetition came before this line.
        terminal.send("pair", f"{terminal.name}, behind")

    def followed() -> bool:
        return sum(body.endswith(", behind") for _, _, body in account.lines("pair", "ann").values()) == len(terminals)

    until(followed, "the terminals send again what had no reply, and go on")
    if arrived() != wanted:
        raise Broken(f"{arrived()} is in the history where {wanted} was sent: a repetition became a message")


def check_absence(account: Account, away: Terminal, present: list[Terminal]) -> None:
    away.kill()
    sent = {conv: [account.call("IM.SEND", conv, "bob", f"to be changed {at}")["seq"] for at in range(4)]
            for conv in CONVERSATIONS}
    await_account(account, present, "before the changes")
    for conv, seqs in sent.items():
        changes = [("IM.EDIT", conv, "bob", seqs[0], "edited"), ("IM.EDIT", conv, "bob", seqs[1], "edited in vain"),
                   ("IM.RECALL", conv, "bob", seqs[1]), ("IM.HIDE", conv, "ann", seqs[2]),
                   ("IM.READ", conv, "ann", seqs[3]), ("IM.JOIN", conv, "carl"), ("IM.LEAVE", conv, "carl")]
        for change in changes:
            if account.call(*change) != 1:
                raise Broken(f"{change} did not say 1")
    away.start()
    await_account(account, [away, *present], f"after the absence of {away.name}")


def check_trimmed(account: Account, terminals: list[Terminal]) -> None:
    trimmed = terminals[0]
    trimmed.kill()
    for conv in CONVERSATIONS:
        account.call("IM.SEND", conv, "bob", "while it was away")
    await_account(account, terminals[1:], "before the trim")
    # The effect of the sync timeline's TTL after a week.
    account.call("TL.TRIM", "sync:u/{ann}", "KEEP", 0)
    trimmed.start()
    await_account(account, terminals, "after the trim")
    if ["start", "TRIMMED"] not in trimmed.printed():
        raise Broken(f"{trimmed.name} was not told TRIMMED")


def check_other_history(account: Account, terminals: list[Terminal]) -> None:
    account.create(["ann", "bob"])
    for conv in CONVERSATIONS:
        account.call("IM.SEND", conv, "bob", "a new beginning")
    await_account(account, terminals, "with another history")
    for terminal in terminals:
        if ["start", "EPOCH"] not in terminal.printed():
            raise Broken(f"{terminal.name} was not told EPOCH")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check(binary: str, directory: Path) -> None:
    # A terminal in JavaScript finds its client library in its own folder, as in a normal project.
    script = shutil.copy(EXAMPLES / "terminal.mjs", directory)
    (directory / "node_modules").symlink_to(HERE / "node_modules")
    log = directory / "server.log"
    python, node = [sys.executable, str(EXAMPLES / "terminal.py")], ["node", script]
    port = free_port()
    address = f"127.0.0.1:{port}"
    wire = Wire(address)
    terminals = [Terminal(name, command, user, directory, wire.address) for name, command, user in
                 [("ann-python", python, "ann"), ("ann-javascript", node, "ann"), ("bob-python", python, "bob")]]
    account = Account(address)
    try:
        with RunningServer(binary, str(directory / "first"), port, log) as server:
            account.create(["ann", "bob"])
            for terminal in terminals:
                terminal.start()
            for terminal in terminals:
                until(terminal.state, f"{terminal.name} has started")
            check_refusal(terminals)
            check_kill(server, account, terminals)
            check_lost_replies(wire, account, terminals)
            # Each of ann's terminals is away once and sees the other one's changes as they happen.
            python_of_ann, javascript_of_ann, of_bob = terminals
            check_absence(account, javascript_of_ann, [python_of_ann, of_bob])
            check_absence(account, python_of_ann, [javascript_of_ann, of_bob])
            check_trimmed(account, terminals)
        with RunningServer(binary, str(directory / "second"), port, log):
            check_other_history(account, terminals)
    finally:
        for terminal in terminals:
            terminal.kill()
    # Terminals retry, which would hide a session that broke off.
    if "panicked" in log.read_text():
        raise Broken(f"the server panicked:\n{log.read_text()[-4000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="PATH", required=True, help="the binary; it is started and killed here")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="strandline-") as directory:
            check(arguments.server, Path(directory))
    except (Broken, redis.RedisError) as problem:
        print(f"terminals: {problem}", file=sys.stderr)
        return 1
    print(f"ok terminals: Python and JavaScript, a kill, lost replies, absences, TRIMMED and EPOCH in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
