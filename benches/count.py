#!/usr/bin/env python3
"""Counts the instructions of the engine's core paths and compares them with a baseline.

    count.py [--runs N] [--report | --report-elsewhere | --record] [PATH ...]

Builds the binary `paths` (benches/src/bin/paths.rs) in release mode. For each path, runs it under
valgrind with two numbers of operations; the difference of the two counts, divided by the difference
of the numbers, is the instructions per operation. All threads of the process are counted, the
kernel is not.

Prints a line per path: instructions per operation (the median of the runs), their spread, the
baseline of benches/baseline.json and the ratio to it. Exits with 1 if a path is more than 3 % above
its baseline, or has none. `--report` prints only; `--report-elsewhere` does so if the compiler or
the processor is not that of the baseline. `--record` writes the baseline instead.

Needs Linux, Python 3, Cargo and valgrind. What else the machine does changes how long it takes, not
what it counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "benches" / "baseline.json"
LIMIT = 1.03

# The two numbers of operations. With the lower one, each timeline is written to twice at least, so
# that no operation of the difference is the first one of a timeline. The differences are above 10^8
# instructions: a start and an open vary by 10^5 (hash seeds, ticks of the engine's threads).
PATHS = {
    "append": (2_000, 22_000),
    "batch": (200, 4_200),
    "fan-out": (8, 408),
    "latest-memory": (100, 5_100),
    "latest-segment": (100, 4_100),
    "get-memory": (1_000, 31_000),
    "get-segment": (1_000, 11_000),
    "replay": (2_000, 32_000),
}

VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--fair-sched=yes"]


class Failed(Exception):
    """Nothing was counted; the text says why."""


def output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise Failed(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    """What counts depend on beside the source."""
    cpus = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "rustc": output(["rustc", "--version"]).strip(),
        "processor": cpus[0] if cpus else platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": output(["valgrind", "--version"]).strip(),
    }


def build() -> Path:
    command = ["cargo", "build", "--release", "-p", "strandline-benches", "--bin", "paths"]
    command += ["--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed("the build failed")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "paths":
            return Path(message["executable"])
    raise Failed("Cargo did not report where the binary is")


def count(binary: Path, path: str, operations: int) -> int:
    """The instructions of a process that opens a prepared directory and does the operations."""
    with tempfile.TemporaryDirectory(prefix="paths-") as folder:
        arguments = [path, str(operations), folder]
        output([str(binary), "prepare", *arguments])
        text = output([*VALGRIND, str(binary), "run", *arguments])
    found = re.search(r"Collected : (\d+)", text)
    if not found:
        raise Failed(f"valgrind reported no count:\n{text}")
    return int(found[1])


def per_operation(binary: Path, path: str) -> float:
    low, high = PATHS[path]
    return (count(binary, path, high) - count(binary, path, low)) / (high - low)


def settle(processors: Queue[int]) -> None:
    """Gives this thread, and the processes that it starts, a processor of their own.

    How often a thread must wait for another depends on who runs first, which is up to 4 % of an
    append. On one processor, and in a policy in which a thread that is woken does not take the
    processor from the one that woke it, the order is almost always the same.
    """
    os.sched_setaffinity(0, {processors.get()})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def count_all(binary: Path, paths: list[str], runs: int) -> dict[str, list[float]]:
    """For each path, the result of each run. Counts one process a processor at the same time."""
    processors: Queue[int] = Queue()
    for processor in os.sched_getaffinity(0):
        processors.put(processor)
    with ThreadPoolExecutor(processors.qsize(), initializer=settle, initargs=(processors,)) as pool:
        counting = {
            path: [pool.submit(per_operation, binary, path) for _ in range(runs)] for path in paths
        }
        return {path: [run.result() for run in of_path] for path, of_path in counting.items()}


def compare(counted: dict[str, list[float]], baseline: dict[str, float]) -> list[str]:
    """Prints the table. Gives the paths that are too far above their baseline, or have none."""
    print(f"{'path':<16}{'instructions':>14}{'spread':>9}{'baseline':>12}{'ratio':>9}")
    above = []
    for path, values in counted.items():
        median = statistics.median(values)
        spread = f"{(max(values) - min(values)) / median:.2%}" if len(values) > 1 else "-"
        before = baseline.get(path)
        ratio = median / before if before else float("inf")
        if ratio > LIMIT:
            above.append(path)
        base = f"{before:,.1f}" if before else "none"
        mark = "  <" if ratio > LIMIT else ""
        print(f"{path:<16}{median:>14,.1f}{spread:>9}{base:>12}{ratio:>9.3f}{mark}")
    return above


def record(counted: dict[str, list[float]], where: dict[str, str]) -> None:
    commit = output(["git", "rev-parse", "HEAD"]).strip()
    paths = {path: round(statistics.median(values), 1) for path, values in counted.items()}
    text = json.dumps({"commit": commit, **where, "instructions": paths}, indent=2)
    BASELINE.write_text(text + "\n")
    print(f"written to {BASELINE.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of: {', '.join(PATHS)}")
    parser.add_argument("--runs", type=int, default=1, help="how often each path is counted")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--report", action="store_true", help="do not fail")
    how.add_argument(
        "--report-elsewhere",
        action="store_true",
        help="do not fail if the compiler or the processor is not that of the baseline",
    )
    how.add_argument("--record", action="store_true", help="write the baseline")
    arguments = parser.parse_args()
    unknown = set(arguments.paths) - set(PATHS)
    if unknown or arguments.runs < 1 or (arguments.record and arguments.paths):
        parser.error("unknown path, no run, or a baseline of some paths only")

    where = environment()
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    counted = count_all(build(), arguments.paths or list(PATHS), arguments.runs)
    above = compare(counted, baseline.get("instructions", {}))
    if arguments.record:
        record(counted, where)
        return 0
    print(f"baseline: commit {baseline.get('commit', 'none')[:12]}")
    other = [name for name, value in where.items() if baseline.get(name) != value]
    for name in other:
        print(f"another {name}: {where[name]}, in the baseline {baseline.get(name)}")
    if above:
        print(f"more than {LIMIT - 1:.0%} above the baseline: {', '.join(above)}")
    is_elsewhere = "rustc" in other or "processor" in other
    if arguments.report or (arguments.report_elsewhere and is_elsewhere):
        return 0
    return 1 if above else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"count.py: {failure}")
