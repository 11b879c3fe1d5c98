//! Keeps docs/format.md true: the text between its markers is rendered from the code, and compared.
//!
//! `<!-- layout: … -->` is a table of fields, `<!-- grammar: … -->` the picture from a module's
//! heading, `<!-- numbers -->` the constants, `<!-- example -->` real bytes of a small group. Each
//! ends at `<!-- end -->`. The document is therefore the golden file of the example, too: different
//! bytes are a change of the format.
//!
//! `STRANDLINE_BLESS=1` writes the rendered text into the document instead of failing. Check the
//! difference before it is committed: a change of the format needs a new version and a new fixture
//! (docs/testing.md).
#![allow(clippy::disallowed_methods, reason = "a test of a document reads it")]

use std::fmt::Write as _;

use strandline::format::checksum::{Seed, crc};
use strandline::format::header::{EngineId, file_header};
use strandline::format::layout::{Field, markdown};
use strandline::format::wal::{
    GroupHeader, GroupWriter, NewRecord, TailWriter, decode_records, group_header, record_header,
};
use strandline::format::{block, header, index, table, wal};
use strandline::{
    Lsn, MAX_BATCH_BYTES, MAX_BODY_BYTES, MAX_NAME_BYTES, MAX_SEQUENCE, StoreId, TimelineRef,
};

use crate::rendered::{END, as_it_should_be, check, root};

/// The text between a marker and its end.
fn rendered(marker: &str) -> String {
    match marker.split_once(": ") {
        Some(("layout", "file_header")) => markdown(file_header::TABLE),
        Some(("layout", "group_header")) => markdown(group_header::TABLE),
        Some(("layout", "record_header")) => markdown(record_header::TABLE),
        Some(("layout", "block_header")) => markdown(block::block_header::TABLE),
        Some(("layout", "footer")) => markdown(index::footer::TABLE),
        Some(("grammar", module)) => grammar(module),
        None if marker == "numbers" => numbers(),
        None if marker == "example" => example(),
        _ => panic!("the document has a marker that nothing renders: {marker}"),
    }
}

/// The picture in a module's heading.
fn grammar(module: &str) -> String {
    let path = root().join(format!("engine/src/format/{module}.rs"));
    let source = std::fs::read_to_string(path).expect("the marker names a module of the formats");
    let heading = source.lines().take_while(|line| line.starts_with("//!"));
    let lines = heading.map(|line| line.trim_start_matches("//!").trim_start_matches(' '));
    let picture =
        lines.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```");
    let picture = picture.fold(String::new(), |all, line| all + line + "\n");
    assert!(!picture.is_empty(), "{module}.rs has a picture in its heading");
    format!("```text\n{picture}```\n")
}

fn numbers() -> String {
    let rows: &[(&str, u64, &str)] = &[
        ("format version", u64::from(header::VERSION), "in every file header"),
        ("file header", file_header::BYTES as u64, "bytes at the front of every file"),
        ("sector", wal::SECTOR_BYTES, "bytes; groups start at multiples of it"),
        ("first group", wal::WAL_HEADER_BYTES, "bytes from the front of a log file"),
        (
            "block",
            block::TARGET_RAW_BYTES as u64,
            "raw bytes at which a block of runs or bodies is closed",
        ),
        ("index page", index::TARGET_PAGE_BYTES as u64, "raw bytes at which a page is closed"),
        (
            "table page",
            table::TARGET_LEAF_BYTES as u64,
            "raw bytes at which one of level 0 is closed",
        ),
        (
            "table page above",
            table::TARGET_INNER_BYTES as u64,
            "raw bytes at which one of another level is closed",
        ),
        (
            "listed blocks",
            index::MAX_LISTED_BLOCKS as u64,
            "blocks of a timeline in its entry; more get a run table",
        ),
        ("footer", index::footer::BYTES as u64, "bytes at the end of an index file"),
        ("name", MAX_NAME_BYTES as u64, "bytes at most, one at least"),
        ("body", MAX_BODY_BYTES as u64, "bytes at most, none at least"),
        ("batch", MAX_BATCH_BYTES as u64, "bytes of bodies and names at most"),
        ("sequence", MAX_SEQUENCE, "at most, 1 at least"),
    ];
    let rows =
        rows.iter().map(|(name, value, meaning)| format!("| {name} | {value} | {meaning} |\n"));
    format!("| what | number | meaning |\n|---|---:|---|\n{}", rows.collect::<String>())
}

const ENGINE: EngineId = EngineId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const PLACE: Lsn = Lsn(512);

/// One group of one record: `hello` to a conversation and to one receiver.
fn example_group() -> Vec<u8> {
    let mut tail = TailWriter::default();
    tail.body(b"hello");
    tail.append((false, false), 0, 2);
    tail.timeline(TimelineRef { store: StoreId(1), name: b"c/1" });
    tail.timeline(TimelineRef { store: StoreId(2), name: b"u/2" });
    let (tail, _) = tail.finish();
    let mut group = GroupWriter::new(ENGINE);
    group.start(PLACE);
    group.record(&NewRecord {
        time_ms: 1_700_000_000_000,
        start_ms: 1_700_000_000_000,
        sequences: &[1, 300],
        chosen: false,
        list: None,
        tail: &tail,
        tail_crc: crc(Seed::NONE, &tail),
    });
    group.finish(PLACE).to_vec()
}

/// The bytes of the example, one field per line.
fn example() -> String {
    let bytes = example_group();
    let mut pieces: Vec<(usize, String)> = Vec::new();
    let mut fields = |owner: &str, table: &[Field]| {
        let named = |field: &Field| (field.size, format!("{owner} {}", field.name.to_lowercase()));
        pieces.extend(table.iter().map(named));
    };
    fields("group", group_header::TABLE);
    fields("record", record_header::TABLE);
    let rest = [
        (1, "sequence of the first target: 1"),
        (2, "sequence of the second: 300, as a varint"),
        (4, "tail: one body"),
        (1, "its length"),
        (5, "`hello`"),
        (1, "one operation"),
        (1, "kind: append"),
        (1, "of body 0"),
        (1, "no lifetime of its own"),
        (1, "to two targets"),
        (5, "store 1, name of 3 bytes: `c/1`"),
        (5, "store 2, name of 3 bytes: `u/2`"),
        (4, "zeros up to a multiple of 8"),
    ];
    pieces.extend(rest.into_iter().map(|(len, meaning)| (len, meaning.to_owned())));
    let mut text = String::from("```text\n");
    let mut at = 0;
    for (len, meaning) in pieces {
        let hex: Vec<String> =
            bytes[at..at + len].iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{at:3}  {:<24}{meaning}", hex.join(" ")).expect("a string takes all");
        at += len;
    }
    assert_eq!(at, bytes.len(), "the example explains each byte");
    // The checksum of no bytes is the seed.
    let seed = crc(Seed::new(ENGINE, PLACE.0), &[]);
    writeln!(text, "```\n\nThe seed of both `crc` fields is {seed:#010x}.")
        .expect("a string takes all");
    text
}

#[test]
fn the_document_says_what_the_code_says() {
    check("docs/format.md", rendered);
}

#[test]
fn every_layout_of_the_formats_is_in_the_document() {
    let document =
        std::fs::read_to_string(root().join("docs/format.md")).expect("docs/format.md is there");
    let folder =
        std::fs::read_dir(root().join("engine/src/format")).expect("the formats are there");
    for entry in folder {
        let path = entry.expect("an entry").path();
        let source = std::fs::read_to_string(&path).expect("a source file");
        for declared in source.split("\nlayout! {\n").skip(1) {
            let line = declared
                .lines()
                .find(|line| !line.trim_start().starts_with("///"))
                .unwrap_or_default();
            let name = line.trim().trim_end_matches(" {");
            let marker = format!("<!-- layout: {name} -->");
            assert!(
                document.contains(&marker),
                "{}: {name} has no table in the document",
                path.display()
            );
        }
    }
}

#[test]
fn a_changed_field_would_be_detected() {
    let document = format!("before\n<!-- layout: footer -->\nstale\n{END}after\n");
    let wanted = as_it_should_be(&document, rendered);
    assert!(wanted.contains("| 0 | 4 | `crc` |") && !wanted.contains("stale"));
    assert!(wanted.starts_with("before\n") && wanted.ends_with("after\n"));
    assert_eq!(as_it_should_be(&wanted, rendered), wanted);
}

#[test]
fn the_example_is_a_group_that_reads_back() {
    let bytes = example_group();
    let header = GroupHeader::decode(&bytes, ENGINE, PLACE).expect("a group");
    let records = decode_records(&bytes[group_header::BYTES..], header.records, ENGINE, PLACE)
        .expect("records");
    assert_eq!(records[0].sequences, [1, 300]);
}
