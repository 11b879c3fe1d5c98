"""Debian's Prometheus scrapes a server, and an alert of ops/prometheus/alerts.yml fires when the
server is killed.

    prometheus.py PATH

Needs the package `prometheus` (apt-get install prometheus); promtool comes with it. It uses free
ports and a directory of its own, so a Prometheus that runs already is not touched.

Checked:
  - promtool accepts the alerts, the example of a configuration, and the page /metrics;
  - Prometheus scrapes the server, and knows its commits;
  - no alert fires while the server is well;
  - StrandlineDown fires after the server was killed (its `for` is shortened), and ends when the
    server is back.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from ledger import Broken, directory, server, until
from resp import Connection

OPS = Path(__file__).resolve().parents[3] / "ops" / "prometheus"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def promtool(*words: str, text: str | None = None) -> None:
    ran = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, timeout=60)
    # 3: only advice about style.
    if ran.returncode not in (0, 3):
        raise Broken(f"promtool {' '.join(words)}: {ran.stdout}{ran.stderr}")


class Prometheus:
    def __init__(self, folder: Path, target: int):
        self.port = free_port()
        # The test has no minutes to wait.
        alerts = re.sub(r"for: \d+[mh]", "for: 2s", (OPS / "alerts.yml").read_text())
        (folder / "alerts.yml").write_text(alerts)
        example = (OPS / "prometheus.yml").read_text()
        config = example.replace("15s", "1s").replace("7412", str(target))
        (folder / "prometheus.yml").write_text(config)
        self.log = open(folder / "prometheus.log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self.log, stderr=self.log,
        )

    def ask(self, path: str) -> dict:
        return json.loads(fetched(f"http://127.0.0.1:{self.port}/api/v1/{path}"))["data"]

    def value(self, metric: str) -> float:
        found = self.ask(f"query?query={metric}")["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def firing(self) -> set[str]:
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def check(binary: str) -> None:
    with directory() as path:
        http = free_port()
        settings = f"[http]\nport = {http}\n"
        with server(binary, f"{path}/data", settings=settings) as running:
            client = Connection(running.address)
            for number in range(100):
                client.call("TL.APPEND", "messages:a", f"body {number}")
            page = fetched(f"http://127.0.0.1:{http}/metrics")
            promtool("check", "metrics", text=page)
            promtool("check", "rules", str(OPS / "alerts.yml"))
            prometheus = Prometheus(Path(path), http)
            try:
                promtool("check", "config", f"{path}/prometheus.yml")
                until("Prometheus scrapes the server", lambda: prometheus.value("strandline_commit_entries_total") >= 100)
                time.sleep(5)
                if firing := prometheus.firing():
                    raise Broken(f"the server is well, and these alerts fire: {firing}")
                client.close()
                running.kill()
                until("StrandlineDown fires", lambda: "StrandlineDown" in prometheus.firing())
                running.start()
                until("StrandlineDown ends", lambda: "StrandlineDown" not in prometheus.firing())
                running.stop()
            finally:
                prometheus.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", metavar="PATH")
    arguments = parser.parse_args()
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        sys.exit("prometheus is not installed: apt-get install prometheus")
    try:
        check(arguments.server)
    except Broken as problem:
        sys.exit(f"broken: {problem}")
    print("ok: scraped, quiet while well, StrandlineDown fired after the kill and ended after the start")


if __name__ == "__main__":
    main()
