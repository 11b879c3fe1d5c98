"""Proves that the tests can fail: each mutant of the source must be caught by its test.

    mutants.py [--limit SECONDS] [--fuzz] [NAME ...]

Copies the tracked files, as they are in the work tree, into a temporary directory. For each mutant,
replaces one piece of text, which must occur exactly once in its file, and runs the mutant's test.
The mutant is caught if the test fails. A test that does not end within the limit also counts as
caught, and the line says so. It is an error, not a catch, if the piece of text is not found, the
mutant does not compile, or the test does not exist.

With --fuzz, runs the mutants that have a fuzz target, and each of them by its target instead of by
its test: the mutant is caught if the target fails within the limit, from the kept seeds on. A run
of each target without a mutant, for a tenth of the limit, must not fail. Needs cargo-fuzz and a
nightly compiler.

Prints one line per mutant. Exits with 1 if a mutant survives or cannot be judged. Does not check
that the tests pass without a mutant: `cargo test` does that.

Builds are incremental, in the directory `mutants` or `mutants-fuzz` of CARGO_TARGET_DIR or of
`target`. It must not be shared with other builds: Cargo would take a mutant's artifacts for those
of the real source.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMPILE_LIMIT = 1800


class Mutant(NamedTuple):
    name: str
    what: str  # what the engine does wrong
    file: str
    old: str
    new: str
    test: tuple[str, str]  # the target of Cargo and the full name of the test
    fuzz: str = ""  # the fuzz target that must find it, too


class Unjudged(Exception):
    """The mutant proves nothing; the text says why."""


DECODERS = (
    "proof",
    "fuzz_bodies::decoders_keep_their_promises_for_good_bytes_changed_bytes_and_noise",
)

MUTANTS = [
    Mutant(
        "same-epoch",
        "sequences that a power cut took are given again under the same epoch",
        "engine/src/write/relaxed.rs",
        "store.generation += 1;",
        "store.generation += 0;",
        (
            "behaviour",
            "relaxed::"
            "sequences_lost_after_they_were_read_are_assigned_again_under_another_epoch",
        ),
    ),
    Mutant(
        "late-note",
        "the first group of a memtable is acknowledged before its stores are noted as relaxed",
        "engine/src/write/active.rs",
        "Ok(self.note_relaxed(group, may_add)? || made_room)",
        "Ok(made_room || !self.memtable.is_empty() && self.note_relaxed(group, may_add)?)",
        (
            "behaviour",
            "relaxed::a_kill_and_a_clean_stop_change_no_epoch_and_each_power_cut_with_relaxed_writes_does",
        ),
    ),
    Mutant(
        "early-view",
        "a backup takes the first view, without the changes that merges have used",
        "engine/src/care/backup.rs",
        "if live.changes_to <= view.flushed_to() {",
        "if true {",
        ("behaviour", "care::moment::a_timeline_that_was_never_empty_is_not_empty_in_a_backup"),
    ),
    Mutant(
        "unsynced-trim",
        "trims and removals are not synced before they are visible, and merges use them",
        "engine/src/write/batch/mod.rs",
        "self.durability = Durability::Disk;",
        "self.durability = Durability::Os;",
        ("behaviour", "care::moment::a_merge_uses_no_trim_that_a_power_cut_can_take"),
    ),
    Mutant(
        "weightless-edit",
        "an edited body does not count in the weight of its segment",
        "engine/src/segment/writer.rs",
        "self.weight += weight;",
        "",
        (
            "behaviour",
            "garbage::"
            "edited_bodies_leave_the_disk_when_their_entries_are_dropped_trimmed_or_deleted",
        ),
    ),
    Mutant(
        "loose-panic",
        "the panic of a waker ends the wake thread",
        "engine/src/notify/wake.rs",
        "catch_unwind(AssertUnwindSafe(|| waker.wake()))",
        "std::thread::Result::Ok(waker.wake())",
        ("alone", "threads::a_waker_that_panics_harms_nobody"),
    ),
    Mutant(
        "unread-copy",
        "the second copy of a file is never read",
        "engine/src/segment/cache.rs",
        "for copy in 0..self.copies {",
        "for copy in 0..self.copies.min(1) {",
        ("behaviour", "copies::damage_to_one_copy_is_read_around_named_and_repaired_byte_for_byte"),
    ),
    Mutant(
        "silent-leader",
        "a caller that commits leaves without a look at who waits for the next group",
        "engine/src/write/pipeline.rs",
        "        drop(role);\n        self.queue.hand_over();\n",
        "        drop(role);\n",
        (
            "behaviour",
            "waiting::a_caller_that_found_another_committing_is_answered_when_that_one_leaves",
        ),
    ),
    Mutant(
        "early-watermark",
        "a reader takes the watermark before the view",
        "engine/src/state/current.rs",
        "            let current = self.current.read();\n            (current.0.clone(), current.1)\n",
        "            let watermark = self.published();\n            std::thread::yield_now();\n"
        "            (self.load(), watermark)\n",
        ("behaviour", "snapshots::a_snapshot_shows_each_batch_as_a_whole"),
    ),
    Mutant(
        "old-group",
        "a group is taken at whatever lsn it has, also an old one in a log file that is used again",
        "engine/src/wal/reader.rs",
        "        let header = GroupHeader::decode(bytes, self.engine, lsn)?;\n",
        "        let lsn = bytes.get(8..16)?.try_into().ok().map(|lsn| Lsn(u64::from_le_bytes(lsn)))?;\n"
        "        let header = GroupHeader::decode(bytes, self.engine, lsn)?;\n",
        (
            "behaviour",
            "log_files::"
            "old_groups_in_a_file_that_is_used_again_are_neither_replayed_nor_reported",
        ),
    ),
    Mutant(
        "old-log",
        "a log file with expired bytes stays in use",
        "engine/src/state/mod.rs",
        "due.is_some_and(|(ttl_ms, since_ms)| age_ms(since_ms) >= (ttl_ms / 4 * 3).max(1000))",
        "due.is_some_and(|(ttl_ms, since_ms)| ttl_ms == 0 && age_ms(since_ms) > 0)",
        ("behaviour", "log_files::expired_bytes_leave_the_log_of_an_idle_engine_in_time"),
    ),
    Mutant(
        "unpinned-reader",
        "the memtable forgets the state that a reader of an earlier moment needs",
        "engine/src/state/current.rs",
        "self.pins.lowest().map_or(published, |lowest| lowest.min(published))",
        "published",
        ("behaviour", "snapshots::whatever_happens_later_the_reads_of_a_snapshot_stay_the_same"),
    ),
    Mutant(
        "list-below-the-memtable",
        "a record refers to a list in the log of an earlier memtable",
        "engine/src/memtable/mod.rs",
        "        self.lists.read().find(hash, bytes).cloned()\n",
        "        static ALL: RwLock<Vec<Arc<KnownList>>> = RwLock::new(Vec::new());\n"
        "        let here = self.lists.read().find(hash, bytes).cloned();\n"
        "        ALL.write().extend(here.clone());\n"
        "        here.or_else(|| ALL.read().iter().find(|known| known.bytes == bytes).cloned())\n",
        ("behaviour", "lists::the_names_of_a_list_are_in_the_log_once_for_each_memtable"),
    ),
    Mutant(
        "last-list-of-a-group",
        "of several records of a group that have a list in full, the last one counts",
        "engine/src/memtable/list.rs",
        "if known.get().at == list.at",
        "if known.get().at > list.at",
        ("behaviour", "lists::a_killed_engine_replays_records_that_refer_to_a_list"),
    ),
    Mutant(
        "block-sum",
        "the checksum of a block is not compared",
        "engine/src/format/block.rs",
        "if get_u32(header, block_header::CRC) != Some(crc(seed, covered)) {",
        "if false {",
        DECODERS,
        "block",
    ),
    Mutant(
        "record-sum",
        "the checksum of a record's header and sequences is not compared",
        "engine/src/format/wal.rs",
        "if sum != get_u32(header, record_header::CRC)? {",
        "if false && sum != get_u32(header, record_header::CRC)? {",
        DECODERS,
        "wal_records",
    ),
    Mutant(
        "body-index",
        "an append in the log gets the body after its own",
        "engine/src/format/tail.rs",
        "let body = bodies.get(reader.length()?)?.clone();",
        "let body = bodies.get(reader.length()?.checked_add(1)?)?.clone();",
        DECODERS,
        "wal_tail",
    ),
    Mutant(
        "body-number",
        "a shared entry of a run gets the body after its own",
        "engine/src/format/run.rs",
        "self.shared = self.shared.checked_add(step.checked_sub(1)?)?;",
        "self.shared = self.shared.checked_add(step)?;",
        DECODERS,
        "run",
    ),
    Mutant(
        "short-body",
        "a body in a run lacks its last byte",
        "engine/src/format/run.rs",
        "body: start..start + len, is_elsewhere, place })",
        "body: start..start + len.saturating_sub(1), is_elsewhere, place })",
        DECODERS,
        "run",
    ),
    Mutant(
        "short-logged-body",
        "a body in the log lacks its last byte",
        "engine/src/format/tail.rs",
        "bodies.push(start..start + len);",
        "bodies.push(start..start + len.saturating_sub(1));",
        DECODERS,
        "wal_tail",
    ),
]


def copy(to: Path) -> None:
    """Copies the tracked files with new times, or Cargo would reuse the build of a mutant."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)


def cargo(tree: Path, target: Path, limit: float, arguments: list[str]) -> tuple[int | None, str]:
    """Exit status, or None if it did not end in time, and output. Leaves no process behind."""
    command = ["cargo", *arguments]
    environment = {
        **os.environ,
        "CARGO_INCREMENTAL": "1",
        "CARGO_TARGET_DIR": str(target),
        "CARGO_TERM_COLOR": "never",
    }
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return status, output.read()


def message(output: str) -> str:
    """The start of the last panic's, if possible of one outside the engine's threads, on a line."""
    pattern = r"^thread '([^']*)'.* panicked at .*:\n(.*(?:\n +(?:left|right): .*)*)$"
    panics = re.findall(pattern, output, re.MULTILINE)
    own = [text for thread, text in panics if not thread.startswith("strandline-")]
    text = (own or [text for _, text in panics] or ["no panic"])[-1]
    return " ".join(text.split())[:300]


def judge(mutant: Mutant, tree: Path, target: Path, limit: float, fuzz: bool) -> str | None:
    """How the mutant was caught; None if it survives."""
    path = tree / mutant.file
    text = path.read_text()
    if (count := text.count(mutant.old)) != 1:
        raise Unjudged(f"{mutant.file} has `{mutant.old}` {count} times instead of once")
    try:
        path.write_text(text.replace(mutant.old, mutant.new))
        if fuzz:
            return failure_of(mutant.fuzz, tree, target, limit)
        return failed_test(mutant, tree, target, limit)
    finally:
        path.write_text(text)


def failure_of(fuzz: str, tree: Path, target: Path, limit: float) -> str | None:
    """How a fuzz target failed, and after how long; None if it did not."""
    # Mutants give wrong values: the sanitizer would add nothing, and the debug build is fast.
    command = ["+nightly", "fuzz", "build", "--dev", "--sanitizer", "none", fuzz]
    status, output = cargo(tree, target, COMPILE_LIMIT, command)
    if status != 0:
        raise Unjudged("it does not compile, or not in time:\n" + output)
    binaries = list(target.glob(f"*/debug/{fuzz}"))
    if len(binaries) != 1:
        raise Unjudged(f"{len(binaries)} binaries of the target `{fuzz}`")
    corpus, seeds = tree / "corpus", tree / "fuzz/seeds" / fuzz
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    begin = time.monotonic()
    run = subprocess.run(
        [binaries[0], f"-max_total_time={limit:.0f}", "-seed=1", corpus, seeds],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=limit + 60,
    )
    seconds = time.monotonic() - begin
    if run.returncode == 0:
        return None
    if " panicked at " not in run.stderr:
        raise Unjudged("its target ended without a panic:\n" + run.stderr)
    return f"after {seconds:.1f} s: {message(run.stderr)}"


def failed_test(mutant: Mutant, tree: Path, target: Path, limit: float) -> str | None:
    """How the mutant's test failed; None if it did not."""
    suite, test = mutant.test
    command = ["test", "-p", "strandline", "--test", suite]
    status, output = cargo(tree, target, COMPILE_LIMIT, [*command, "--no-run"])
    if status != 0:
        raise Unjudged("it does not compile, or not in time:\n" + output)
    status, output = cargo(tree, target, limit, [*command, "--", "--exact", test])
    if "running 1 test\n" not in output:
        raise Unjudged("its test does not exist, or did not start in time:\n" + output)
    if status is None:
        return f"did not end within {limit:.0f} s"
    if status == 0:
        return None
    if "test result: FAILED" not in output and " panicked at " not in output:
        raise Unjudged("its test ended without a result:\n" + output)
    return message(output)


def failing_targets(mutants: list[Mutant], tree: Path, target: Path, limit: float) -> int:
    """The number of fuzz targets that fail without a mutant. They cannot judge one."""
    failed = 0
    for fuzz in sorted({mutant.fuzz for mutant in mutants}):
        begin = time.monotonic()
        try:
            how = failure_of(fuzz, tree, target, limit)
            outcome = f"FAILS: {how}" if how else "passes"
            failed += how is not None
        except Unjudged as error:
            outcome = f"ERROR: {error}"
            failed += 1
        seconds = time.monotonic() - begin
        print(f"no mutant ({seconds:.0f} s), fuzz target {fuzz}: {outcome}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run (default: all)")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="time per test")
    parser.add_argument("--fuzz", action="store_true", help="run fuzz targets instead of tests")
    options = parser.parse_args()
    if unknown := set(options.names) - {mutant.name for mutant in MUTANTS}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if mutant.name in (options.names or [mutant.name])]
    if options.fuzz:
        chosen = [mutant for mutant in chosen if mutant.fuzz]
    folder = "mutants-fuzz" if options.fuzz else "mutants"
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / folder
    failed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = Path(directory)
        copy(tree)
        if options.fuzz:
            failed += failing_targets(chosen, tree, target, options.limit / 10)
        for mutant in chosen:
            begin = time.monotonic()
            try:
                how = judge(mutant, tree, target, options.limit, options.fuzz)
                outcome = f"caught: {how}" if how else "SURVIVES"
                failed += how is None
            except Unjudged as error:
                outcome = f"ERROR: {error}"
                failed += 1
            seconds = time.monotonic() - begin
            by = f"fuzz target {mutant.fuzz}" if options.fuzz else "::".join(mutant.test)
            print(f"{mutant.name} ({seconds:.0f} s), {by}: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
