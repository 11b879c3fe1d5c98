//! A damaged segment under a log that changes its content (P5): the open works, readable data is
//! right, and trimmed and removed entries stay so.
//!
//! The log records the end of each timeline that it changes, so that the segment is not needed for
//! it. Data that the damage hides is reported when it is read. The same holds when the log has
//! become a segment of its own.

use std::collections::BTreeMap;

use strandline::vfs::simulated::{Image, SECTOR_BYTES, SimulatedDisk};
use strandline::{Batch, Engine, Limit, Trim};

use super::open;

type Entries = Vec<(u64, Vec<u8>)>;

/// The content of each timeline of `messages`, and its end.
type Expected = BTreeMap<String, (Entries, u64)>;

/// The timelines whose end is in the log.
const CHANGED: usize = 7;

fn body(timeline: usize, sequence: u64) -> Vec<u8> {
    format!("t/{timeline} entry {sequence} {}", "word ".repeat(40)).into_bytes()
}

/// Twelve timelines in two segments, and in the log a change of each kind, each to a timeline of
/// its own.
fn changed_in_the_log() -> (Image, Expected) {
    let disk = SimulatedDisk::new();
    let engine = open(&disk, false).expect("opens");
    let messages = engine.store("messages").expect("a store");
    let mut expected = Expected::new();
    for sequences in [1..=4_u64, 5..=6] {
        for (timeline, sequence) in
            (0..12).flat_map(|timeline| sequences.clone().map(move |at| (timeline, at)))
        {
            let name = format!("t/{timeline}");
            messages.append(name.as_bytes(), body(timeline, sequence)).expect("appends");
            let (entries, last) = expected.entry(name).or_default();
            entries.push((sequence, body(timeline, sequence)));
            *last = sequence;
        }
        engine.flush().expect("flushes");
    }
    let of = |number: usize| format!("t/{number}");
    messages.trim(of(0).as_bytes(), Trim::Before(3)).expect("trims");
    messages.delete(of(1).as_bytes(), &[2, 6]).expect("deletes");
    messages.edit(of(2).as_bytes(), 5, b"edited").expect("edits");
    messages.drop_timeline(of(3).as_bytes()).expect("drops");
    messages.trim(of(4).as_bytes(), Trim::Keep(1)).expect("trims");
    messages.append(of(4).as_bytes(), b"after a trim").expect("appends");
    let batch = Batch::new().append(&messages, b"new", b"with an edit").edit(
        &messages,
        of(5).as_bytes(),
        1,
        b"too",
    );
    engine.submit(batch).expect("queued").wait().expect("committed");
    messages.append(of(6).as_bytes(), b"as ever").expect("appends");
    messages.append(b"other", b"the last group").expect("appends");
    for (number, change) in [
        (
            0,
            (&|entries: &mut Entries| entries.retain(|entry| entry.0 >= 3))
                as &dyn Fn(&mut Entries),
        ),
        (1, &|entries| entries.retain(|entry| ![2, 6].contains(&entry.0))),
        (2, &|entries| entries[4].1 = b"edited".into()),
        (3, &|entries| entries.clear()),
        (4, &|entries| *entries = vec![entries[5].clone(), (7, b"after a trim".into())]),
        (5, &|entries| entries[0].1 = b"too".into()),
        (6, &|entries| entries.push((7, b"as ever".into()))),
    ] {
        let (entries, last) = expected.get_mut(&of(number)).expect("it is there");
        change(entries);
        *last = entries.last().map_or(*last, |entry| entry.0.max(*last));
    }
    expected.insert("new".into(), (vec![(1, b"with an edit".into())], 1));
    expected.insert("other".into(), (vec![(1, b"the last group".into())], 1));
    drop((messages, engine));
    (disk.contents(), expected)
}

/// How many timelines can be read, all of them right; for the others the error names the file.
fn readable(engine: &Engine, expected: &Expected, file: &str) -> usize {
    let messages = engine.store("messages").expect("a store");
    let mut readable = 0;
    for (name, (entries, last)) in expected {
        match messages.range(name.as_bytes(), .., Limit::entries(100)) {
            Ok(page) => {
                let found: Entries = page
                    .entries
                    .iter()
                    .map(|entry| (entry.sequence, entry.body.to_vec()))
                    .collect();
                assert_eq!((&found, page.last), (entries, *last), "{name}");
                readable += 1;
            }
            Err(error) => {
                assert!(
                    error.to_string().contains(file),
                    "{name} fails without naming {file}: {error}"
                );
            }
        }
    }
    readable
}

/// The image with each segment's file missing, empty and as zeros, and with each of its sectors as
/// zeros.
fn damaged(image: &Image) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.starts_with("seg")) {
        let mut with = |content: Option<Vec<u8>>| {
            let mut image = image.clone();
            image.files.remove(name);
            image.files.extend(content.map(|content| (name.clone(), content)));
            all.push((name.clone(), image));
        };
        with(None);
        with(Some(Vec::new()));
        with(Some(vec![0; bytes.len()]));
        for sector in bytes.chunks(SECTOR_BYTES).enumerate().map(|(at, _)| at * SECTOR_BYTES) {
            let end = bytes.len().min(sector + SECTOR_BYTES);
            let mut bytes = bytes.clone();
            bytes[sector..end].fill(0);
            with(Some(bytes));
        }
    }
    all
}

#[test]
fn a_damaged_segment_refuses_no_open_whatever_the_log_changes_in_it() {
    let (image, expected) = changed_in_the_log();
    let whole = open(&SimulatedDisk::from_image(&image), false).expect("opens");
    assert_eq!(readable(&whole, &expected, "no file"), 14);
    let damaged = damaged(&image);
    assert!(damaged.len() > 40, "{} kinds of damage", damaged.len());
    let mut away = 0;
    for (file, image) in damaged {
        let disk = SimulatedDisk::from_image(&image);
        let engine = open(&disk, false)
            .unwrap_or_else(|error| panic!("{file}: the open is refused: {error}"));
        away += 14 - readable(&engine, &expected, &file);
        let mut after = expected.clone();
        let messages = engine.store("messages").expect("a store");
        for number in 0..CHANGED {
            let (entries, last) = after.get_mut(&format!("t/{number}")).expect("it is there");
            let given =
                messages.append(format!("t/{number}").as_bytes(), b"later").expect("appends");
            *last += 1;
            assert_eq!(given, *last, "{file}: t/{number}");
            entries.push((given, b"later".into()));
        }
        let before = readable(&engine, &after, &file);
        drop(messages);
        engine.close().expect("closes");
        let engine =
            open(&disk, false).unwrap_or_else(|error| panic!("{file}: a second open: {error}"));
        assert_eq!(
            readable(&engine, &after, &file),
            before,
            "{file}: from a segment as from the log"
        );
    }
    assert!(away > 100, "{away} timelines were away, all in all");
}
