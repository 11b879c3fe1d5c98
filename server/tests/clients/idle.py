"""The examples of the documents, on a server that is quiet for a minute, with the clients' own
defaults for everything that the examples do not set. They must still run afterwards, continue after
a body that is not UTF-8, and print nothing that controls a terminal.

    idle.py --server PATH

It runs docs/examples/terminal.py and terminal.mjs, and the Python example of docs/protocol.md
unchanged. It knows nothing of how the server is built.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from running import RunningServer

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[2] / "docs"
IDLE_SECONDS = 65
WAIT_SECONDS = 20
NASTY = b"\xff\xfe\x00\x1b[2J\r\nbinary"


def example_of_the_protocol(port: int) -> str:
    text = (DOCS / "protocol.md").read_text()
    found = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "TL.FOLLOW" in block]
    assert len(found) == 1, "docs/protocol.md has one example of TL.FOLLOW"
    assert "port=7411" in found[0], "it connects to the default port"
    return found[0].replace("port=7411", f"port={port}")


def until(holds, sentence: str) -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > ends:
            sys.exit(f"within {WAIT_SECONDS} s not: {sentence}")
        time.sleep(0.1)


def check(address: str, folder: Path) -> None:
    port = int(address.rsplit(":", 1)[1])
    # The terminal needs node-redis, which is found beside its own file.
    script = HERE / "terminal_under_test.mjs"
    shutil.copy(DOCS / "examples" / "terminal.mjs", script)
    commands = {
        "terminal.py": [sys.executable, str(DOCS / "examples" / "terminal.py"), address, "bob", str(folder / "py.json")],
        "terminal.mjs": ["node", str(script), address, "bob", str(folder / "mjs.json")],
        "protocol.md": [sys.executable, "-u", "-c", example_of_the_protocol(port)],
    }
    client = redis.Redis(port=port, protocol=3)
    client.execute_command("IM.CREATE", "room", "MEMBERS", "ann", "bob")
    client.execute_command("IM.SEND", "room", "ann", "before", "ID", "1")
    client.execute_command("TL.APPEND", "messages:room", "before", "ID", "1")
    running = {}
    try:
        for name, command in commands.items():
            log = (folder / f"{name}.log").open("wb")
            running[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        printed = lambda name: (folder / f"{name}.log").read_bytes()
        for name in commands:
            until(lambda: b"before" in printed(name), f"{name} shows what was there: {printed(name)[-500:]!r}")
        time.sleep(IDLE_SECONDS)
        for number, body in enumerate([NASTY, b"after"]):
            client.execute_command("IM.SEND", "room", "ann", body, "ID", f"late{number}")
            client.execute_command("TL.APPEND", "messages:room", body, "ID", f"late{number}")
        for name, process in running.items():
            until(lambda: b"after" in printed(name), f"{name} shows what came after a minute: {printed(name)[-500:]!r}")
            if process.poll() is not None:
                sys.exit(f"{name} ended with status {process.returncode}: {printed(name)[-500:]!r}")
            if b"\x1b" in printed(name) or b"\0" in printed(name):
                sys.exit(f"{name} printed bytes that control a screen: {printed(name)[-500:]!r}")
            print(f"{name}: there after {IDLE_SECONDS} quiet seconds")
    finally:
        for process in running.values():
            process.kill()
        script.unlink(missing_ok=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", required=True)
    path = arguments.parse_args().server
    with tempfile.TemporaryDirectory(prefix="strandline-idle-") as folder, \
            RunningServer(path, str(Path(folder) / "data"), log=Path(folder) / "server.log") as server:
        check(server.address, Path(folder))


if __name__ == "__main__":
    main()
