//! Directories that earlier builds wrote stay readable: each folder in `fixtures/` was written once
//! and is never edited.
//!
//! Checked for each: it opens read-only without a change; it opens for writing; every entry, page
//! of names and end matches its `expected.txt`; the next append gets the sequence after the last
//! one, and everything is still there after another opening.
//!
//! A format that has not been released may still change. Then its fixture is written again by
//!
//! ```text
//! STRANDLINE_BLESS=1 cargo test -p strandline --test format compat -- --ignored
//! ```
//!
//! After a release the same command with a new version in `format::header` writes the folder of
//! that version beside the old one.
#![allow(clippy::disallowed_methods, reason = "fixtures are files on the disk")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::format::block::block_header;
use strandline::format::header::{VERSION, file_header};
use strandline::format::index::footer;
use strandline::format::layout::get_u32;
use strandline::vfs::{Dir, disk::DiskDirectory};
use strandline::{Batch, Engine, Limit, Options, World};

use crate::two_stores;

const START_MS: u64 = 1_700_000_000_000;
/// The time at which fixtures are read: before anything in `sync` expires.
const READ_MS: u64 = START_MS + 3_600_000;

/// A longer body is shown by its length and checksum.
const SHOWN_BYTES: usize = 48;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/fixtures")
}

fn options() -> Options {
    two_stores::options().memory_budget_bytes(1).wal_file_bytes(8 * 1024).compress_recent(true)
}

fn open(path: &Path, clock: Arc<ManualClock>, options: Options) -> strandline::Result<Engine> {
    let raw = DiskDirectory::open(path).expect("a directory");
    Engine::open_in(World { dir: Dir::new(Arc::new(raw)), clock }, options)
}

fn open_later(path: &Path, read_only: bool) -> Engine {
    let options = options().read_only(read_only);
    let opened = open(path, Arc::new(ManualClock::at(READ_MS)), options);
    opened.unwrap_or_else(|error| panic!("{} does not open: {error}", path.display()))
}

/// The checksum that `expected.txt` has for long bodies: FNV-1a, which takes five lines in any
/// language.
fn sum(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Everything that a reader can see, as text.
fn shown(engine: &Engine) -> String {
    let mut text = format!("epoch {}\n", engine.epoch());
    let mut line =
        |what: std::fmt::Arguments<'_>| writeln!(text, "{what}").expect("a string takes all");
    for info in engine.stores() {
        let ttl_ms = info.ttl.map_or(0, |ttl| ttl.as_millis());
        line(format_args!("store {} ttl {}", info.name, ttl_ms));
        let store = engine.store(&info.name).expect("a store");
        for name in store.list(b"", None, 10_000).expect("lists") {
            let info = store.info(&name).expect("reads");
            let facts = (info.first, info.last, info.count, info.body_bytes, info.trimmed_to);
            line(format_args!("timeline {} {facts:?}", name.escape_ascii()));
            let page = store.range(&name, .., Limit::entries(10_000)).expect("reads");
            for entry in page.entries {
                let body = if entry.body.len() > SHOWN_BYTES {
                    format!("# {} bytes, sum {:016x}", entry.body.len(), sum(&entry.body))
                } else {
                    entry.body.escape_ascii().to_string()
                };
                line(format_args!("  {} {} {body}", entry.sequence, entry.time_ms));
            }
        }
    }
    text
}

/// All files of a fixture except the text, in a directory of its own.
fn copy_of(fixture: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for (name, bytes) in contents(fixture) {
        if name != "expected.txt" {
            std::fs::write(copy.path().join(name), bytes).expect("a copy");
        }
    }
    copy
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut files: Vec<_> = names
        .map(|name| (name.clone(), std::fs::read(folder.join(name)).expect("a file")))
        .collect();
    files.sort();
    files
}

/// The fixtures that this build must read: one per version, up to its own.
fn readable() -> Vec<PathBuf> {
    (1..=VERSION).map(|version| fixtures().join(format!("v{version}"))).collect()
}

fn expected(fixture: &Path) -> String {
    std::fs::read_to_string(fixture.join("expected.txt")).expect("a fixture says what is in it")
}

#[test]
fn old_directories_show_what_was_written_and_reading_changes_nothing() {
    for fixture in readable() {
        let copy = copy_of(&fixture);
        let before = contents(copy.path());
        let engine = open_later(copy.path(), true);
        assert!(engine.damage().is_empty(), "{}: {:?}", fixture.display(), engine.damage());
        assert_eq!(shown(&engine), expected(&fixture), "{}", fixture.display());
        drop(engine);
        let after = contents(copy.path()).into_iter().filter(|(name, _)| name != "LOCK");
        assert!(before.into_iter().eq(after), "{}: reading changed a file", fixture.display());
    }
}

#[test]
fn old_directories_continue_where_they_ended() {
    for fixture in readable() {
        let copy = copy_of(&fixture);
        let engine = open_later(copy.path(), false);
        assert_eq!(shown(&engine), expected(&fixture), "{}", fixture.display());
        for name in ["messages", "sync"] {
            let store = engine.store(name).expect("a store");
            for timeline in store.list(b"", None, 10_000).expect("lists") {
                let last = store.info(&timeline).expect("reads").last;
                assert_eq!(store.append(&timeline, b"after").expect("appends"), last + 1);
            }
        }
        engine.compact().expect("merges");
        let grown = shown(&engine);
        engine.close().expect("closes");
        drop(engine);
        assert_eq!(shown(&open_later(copy.path(), false)), grown);
        let kept = |line: &&str| line.starts_with("  ") && !line.ends_with(" after");
        assert!(
            grown
                .lines()
                .filter(kept)
                .eq(expected(&fixture).lines().filter(|line| line.starts_with("  ")))
        );
    }
}

#[test]
fn a_fixture_holds_every_kind_of_file_and_block() {
    for (version, fixture) in (1..).zip(readable()) {
        let names: Vec<String> = contents(&fixture).into_iter().map(|(name, _)| name).collect();
        for (start, ending) in
            [("manifest-", ""), ("segment-", ".data"), ("segment-", ".index"), ("wal-", ".log")]
        {
            let is_there =
                names.iter().any(|name| name.starts_with(start) && name.ends_with(ending));
            assert!(is_there, "{}: no {start}…{ending}", fixture.display());
        }
        let has_ending =
            |name: &str, wanted| Path::new(name).extension().is_some_and(|ending| ending == wanted);
        let data = contents(&fixture).into_iter().filter(|(name, _)| has_ending(name, "data"));
        let blocks: BTreeSet<(u8, u8)> =
            data.flat_map(|(_, bytes)| kinds_and_codecs(&bytes)).collect();
        // lz4 was in data of versions 5 and 6, and is in pages since.
        let lz4 = if (5..=6).contains(&version) { vec![(1, 3), (2, 3)] } else { Vec::new() };
        let pages: BTreeSet<(u8, u8)> = contents(&fixture)
            .into_iter()
            .filter(|(name, _)| has_ending(name, "index"))
            .flat_map(|(_, bytes)| kinds_and_codecs(&bytes[..bytes.len() - footer::BYTES]))
            .collect();
        assert_eq!(pages.contains(&(3, 3)), version >= 7, "{}", fixture.display());
        for (kind, codec) in [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().chain(lz4) {
            let name = fixture.display();
            assert!(
                blocks.contains(&(kind, codec)),
                "{name}: no block of kind {kind} and codec {codec}"
            );
        }
        // Except for zeros.
        let files = contents(&fixture).into_iter().filter(|(name, _)| !name.starts_with("reserve"));
        let bytes: usize = files.map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 32 * 1024, "{} has {bytes} bytes", fixture.display());
    }
}

/// The kind and codec of each block of a data file.
fn kinds_and_codecs(file: &[u8]) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let mut at = file_header::BYTES;
    while at < file.len() {
        let block = &file[at..];
        found.push((block[block_header::KIND.start], block[block_header::CODEC.start]));
        let stored = get_u32(block, block_header::STORED_BYTES).expect("a whole header");
        at += block_header::BYTES + stored as usize;
    }
    found
}

/// Two conversations and their members' timelines, in segments of each tier and in a log that was
/// not flushed.
fn write(path: &Path) -> String {
    let clock = Arc::new(ManualClock::at(START_MS));
    let engine = open(path, clock.clone(), options()).expect("opens");
    engine.create_store("audit", None).expect("a store");
    let mut number = 0u64;
    let mut write = |count: u64| {
        for _ in 0..count {
            number += 1;
            clock.set(START_MS + number * 1000);
            send(&engine, number);
        }
    };
    // Merged twice, so that the oldest part is compressed.
    for count in [16, 15, 14] {
        write(count);
        engine.compact().expect("merges");
    }
    write(8);
    change(&engine, 40, b"changed for all, and flushed");
    engine.flush().expect("flushes");
    change(&engine, 38, b"changed for all, in the log");
    write(6);
    let text = shown(&engine);
    drop(engine);
    text
}

/// Changes the body of a message for all its receivers.
fn change(engine: &Engine, number: u64, body: &[u8]) {
    let (messages, sync) = (engine.store("messages").expect("m"), engine.store("sync").expect("s"));
    let room = format!("c/{{room {}}}", number % 2).into_bytes();
    let key = messages.body_of(&room, number / 2).expect("reads").expect("it is shared");
    engine
        .submit(Batch::new().edit_body(key, [&messages, &sync], body))
        .expect("queued")
        .wait()
        .expect("committed");
}

/// A message to a conversation and three of its members; some are long, some of arbitrary bytes,
/// some empty.
fn send(engine: &Engine, number: u64) {
    let (messages, sync) = (engine.store("messages").expect("m"), engine.store("sync").expect("s"));
    let body = match number % 10 {
        3 => Vec::new(),
        5 => (0..=255).collect(),
        7 => format!("long message {number} ").repeat(30).into_bytes(),
        _ => format!("message {number}").into_bytes(),
    };
    let conversation = format!("c/{{room {}}}", number % 2).into_bytes();
    let users: Vec<Vec<u8>> =
        (0..3).map(|user| format!("u/{{{}}}", (number + user) % 7).into_bytes()).collect();
    let targets: Vec<_> = std::iter::once((&messages, conversation.as_slice()))
        .chain(users.iter().map(|user| (&sync, user.as_slice())))
        .collect();
    let batch = if number.is_multiple_of(5) {
        Batch::new().fan_out(&body, targets)
    } else {
        let list = engine.target_list(targets[1..].iter().copied()).expect("a list");
        Batch::new().fan_out_to_list(&body, [targets[0]], &list)
    };
    let batch = if number.is_multiple_of(4) {
        let audit = engine.store("audit").expect("a");
        batch.append(&audit, b"\x00any\xffbytes", format!("seen {number}").as_bytes())
    } else {
        batch
    };
    engine.submit(batch).expect("queued").wait().expect("committed");
}

#[test]
#[ignore = "writes the fixture of this version anew"]
fn write_the_fixture() {
    assert!(
        std::env::var("STRANDLINE_BLESS").is_ok_and(|value| value == "1"),
        "set STRANDLINE_BLESS=1 to replace the fixture of version {VERSION}"
    );
    let written = tempfile::tempdir().expect("a directory");
    let text = write(written.path());
    let fixture = fixtures().join(format!("v{VERSION}"));
    // A missing folder needs no removal.
    let _ = std::fs::remove_dir_all(&fixture);
    std::fs::create_dir_all(&fixture).expect("a folder");
    for (name, bytes) in contents(written.path()) {
        if name != "LOCK" {
            std::fs::write(fixture.join(name), bytes).expect("a file");
        }
    }
    std::fs::write(fixture.join("expected.txt"), text).expect("a file");
}
