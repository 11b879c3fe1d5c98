"""The server against the reference model of the wire contract: the same random commands to both
must get the same replies.

    differential.py --server PATH [--seeds 20] [--ops 20000] [--without WORDS] [--jobs 2]

The model (oracle.py, differential.py) is not part of this repository: it is looked for in the
folder that STRANDLINE_ORACLE names, else in ../shared/oracle beside the repository's root. Without
it this check fails. The seeds share one server, `jobs` at a time, so that they disturb each other
as unrelated clients would; each has a model of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from running import RunningServer, announced_address

ROOT = Path(__file__).resolve().parents[3]
SECONDS_PER_SEED = 600


def oracle_folder() -> Path:
    folder = Path(os.environ.get("STRANDLINE_ORACLE") or ROOT.parent / "shared" / "oracle")
    for name in ("oracle.py", "differential.py"):
        if not (folder / name).is_file():
            sys.exit(f"differential: there is no {name} in {folder}; set STRANDLINE_ORACLE to the model's folder")
    return folder


def python(script: Path, *words: str) -> list[str]:
    return [sys.executable, "-B", str(script), *words]  # -B: the model's folder may be read-only


def run_seed(folder: Path, address: str, seed: int, ops: int, profile: str, without: str) -> tuple[bool, str]:
    here = Path(__file__).parent
    model = subprocess.Popen(python(here / "model.py", str(folder), "--port", "0"), stdout=subprocess.PIPE, text=True)
    try:
        done = subprocess.run(
            python(here / "comparison.py", str(folder), "--left", address, "--right", announced_address(model),
                   "--seed", str(seed), "--ops", str(ops), "--seconds", str(SECONDS_PER_SEED),
                   "--profile", profile, "--without", without),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        model.kill()
        model.wait()
    # A run that its time limit cut short also ends with success, with fewer operations.
    return done.returncode == 0 and f" {ops} ops equal" in done.stdout, done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="PATH", required=True, help="the binary; it is started and stopped here")
    parser.add_argument("--seeds", type=int, default=20, help="seeds 1 to this are run")
    parser.add_argument("--ops", type=int, default=20_000, help="commands for each seed")
    parser.add_argument("--profile", choices=("tl", "im", "mixed"), default="tl")
    parser.add_argument("--without", default="", metavar="WORD,WORD", help="commands and options that are left out")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    arguments = parser.parse_args()

    folder, started, differing = oracle_folder(), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="strandline-") as directory, \
            RunningServer(arguments.server, directory) as server, ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(run_seed, folder, server.address, seed, arguments.ops, arguments.profile, arguments.without)
                for seed in range(1, arguments.seeds + 1)]
        for run in runs:
            equal, output = run.result()
            differing += not equal
            print(output, flush=True)
        server.stop()
    if differing:
        print(f"differential: {differing} of {arguments.seeds} seeds differ", file=sys.stderr)
        return 1
    print(f"ok differential: {arguments.seeds} seeds of {arguments.ops} operations, profile {arguments.profile}, "
          f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
