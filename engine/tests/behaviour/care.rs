//! Verify, backup and restore (P5, P6, P11); salvage, targets and power cuts have files of their
//! own.
//!
//! * verify finds every flipped byte of a segment, names the file, and finds nothing in intact
//!   files, under appends too;
//! * a segment that is truncated, zeroed or exchanged is named, and the timelines of others are
//!   served;
//! * a backup under appends and merges is the state of one moment, with whole batches; a restored
//!   directory has another history.

#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "the engine names its files")]
#![allow(clippy::type_complexity, reason = "a list of closures")]

mod cuts;
mod directory;
mod moment;
mod salvage;
mod targets;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use directory::{
    Entries, changed, contents, dir, names, open, send, try_open, two_segments, verify,
};
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Engine, Error, Limit, restore_in};

use crate::two_stores;

#[test]
fn an_intact_directory_verifies_with_its_totals() {
    let disk = SimulatedDisk::from_image(&two_segments());
    let found = verify(&try_open(&disk, true).expect("opens"));
    assert_eq!((&found.findings[..], found.left_off), (&[][..], 0));
    // Two stores with two segments of two files, and the manifest; 14 batches of four entries, one
    // of which was removed.
    assert_eq!((found.files, found.timelines), (9, 7));
    assert_eq!(found.entries, 14 * 4);
    let bytes: usize = disk
        .contents()
        .files
        .iter()
        .filter(|(name, _)| *name != "LOCK" && !name.starts_with("reserve"))
        .map(|(_, file)| file.len())
        .sum();
    assert_eq!(found.bytes, bytes as u64);
}

#[test]
fn every_flipped_byte_of_a_segment_is_found_and_its_file_named() {
    let image = two_segments();
    for (name, content) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        for at in 0..content.len() {
            let disk =
                changed(&image, |files| files.get_mut(name).expect("it is there")[at] ^= 0x20);
            let found =
                verify(&try_open(&disk, true).expect("a segment does not keep it from opening"));
            assert!(names(&found, name), "byte {at} of {name}: {:?}", found.findings);
        }
    }
}

#[test]
fn a_finding_names_the_timeline_and_the_sequences_in_a_block_that_is_gone() {
    let image = two_segments();
    let name = image
        .files
        .keys()
        .find(|name| name.ends_with(".data"))
        .expect("there is a segment")
        .clone();
    let disk = changed(&image, |files| {
        let file = files.get_mut(&name).expect("it is there");
        let last = file.len() - 1;
        file[last] ^= 1;
    });
    let found = verify(&try_open(&disk, true).expect("opens"));
    let concerned = found
        .findings
        .iter()
        .find(|finding| finding.timeline.is_some())
        .expect("a timeline is named");
    assert_eq!(concerned.timeline.as_ref().expect("just found").0, "messages");
    assert!(concerned.sequences.is_some_and(|(first, last)| first <= last));
}

#[test]
fn a_segment_cut_zeroed_or_exchanged_is_named_and_others_are_served() {
    let image = two_segments();
    let whole = contents(&try_open(&SimulatedDisk::from_image(&image), true).expect("opens"));
    let files: Vec<String> =
        image.files.keys().filter(|name| name.starts_with("segment-")).cloned().collect();
    for name in &files {
        let other = files
            .iter()
            .find(|other| *other != name && other[20..] == name[20..])
            .expect("there are several");
        let damages: [(&str, Box<dyn Fn(&mut BTreeMap<String, Vec<u8>>)>); 3] = [
            (
                "cut",
                Box::new(|files| {
                    let len = files[name].len() / 2;
                    files.get_mut(name).expect("it is there").truncate(len);
                }),
            ),
            ("zeroed", Box::new(|files| files.get_mut(name).expect("it is there").fill(0))),
            (
                "exchanged",
                Box::new(|files| {
                    let (one, two) = (files[name].clone(), files[other].clone());
                    files.insert(name.clone(), two);
                    files.insert(other.clone(), one);
                }),
            ),
        ];
        for (how, damage) in damages {
            let disk = changed(&image, |files| damage(files));
            let engine = try_open(&disk, true).expect("a segment does not keep it from opening");
            assert!(names(&verify(&engine), name), "{name} {how}");
            for ((store, timeline), entries) in &whole {
                let store = engine.store(store).expect("a store");
                match store.range(timeline, .., Limit::entries(usize::MAX)) {
                    Ok(page) => assert_eq!(page.entries.len(), entries.len(), "{name} {how}"),
                    Err(Error::Corrupt { path, .. }) => {
                        let path = path.to_string_lossy();
                        assert!(
                            path.ends_with(name.as_str())
                                || (how == "exchanged" && path.ends_with(other.as_str())),
                            "{name} {how}: {path}"
                        );
                    }
                    Err(error) => panic!("{name} {how}: {error}"),
                }
            }
            let served = |store: &str| engine.store(store).expect("a store").list(b"", None, 100);
            let listed = [served("messages"), served("sync")];
            assert!(how == "exchanged" || listed.iter().any(Result::is_ok), "{name} {how}");
            for error in listed.into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains("segment-"), "{name} {how}: {error}");
            }
        }
    }
}

/// Appends, flushes and merges until `work` is done.
fn while_written(engine: &Engine, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                send(engine, number);
                number += 1;
                if number % 50 == 0 {
                    engine.flush().expect("flushes");
                }
                if number % 400 == 0 {
                    engine.compact().expect("merges");
                }
            }
        });
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn verify_finds_nothing_during_writes_and_merges() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = two_stores::options().memory_budget_bytes(1 << 20);
    let engine = Engine::open(folder.path(), options).expect("opens");
    while_written(&engine, || {
        for _ in 0..20 {
            assert_eq!(verify(&engine).findings, []);
        }
    });
}

/// Whether the entries are those of the first n batches of `send`, for some n, which is returned.
fn batches(contents: &Entries) -> usize {
    let count: usize = contents.values().map(Vec::len).sum();
    assert_eq!(count % 4, 0, "a batch is here in part");
    let n = count / 4;
    for ((_, name), entries) in contents {
        for (place, (sequence, _, body)) in entries.iter().enumerate() {
            assert_eq!(*sequence, place as u64 + 1, "{}", name.escape_ascii());
            let body = String::from_utf8_lossy(body);
            let number: usize =
                body.split(' ').nth(1).expect("a number").parse().expect("a number");
            assert!(number < n, "batch {number} is here, and only {n} batches");
        }
    }
    n
}

#[test]
fn a_backup_under_appends_and_merges_is_the_state_of_one_moment() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = two_stores::options().memory_budget_bytes(1 << 20);
    let engine = Engine::open(folder.path().join("engine"), options.clone()).expect("opens");
    let mut seen = 0;
    while_written(&engine, || {
        for round in 0..6 {
            let (backup, restored) =
                (folder.path().join(format!("b{round}")), folder.path().join(format!("r{round}")));
            let copied = engine.backup(&backup).expect("backs up");
            strandline::restore(&backup, &restored).expect("restores");
            let again = Engine::open(&restored, options.clone()).expect("opens");
            assert_eq!(verify(&again).findings, []);
            let n = batches(&contents(&again));
            assert!(n >= seen, "a later backup holds no less");
            assert_eq!(copied.entries, 4 * n as u64);
            assert_ne!(again.epoch(), engine.epoch());
            seen = n;
        }
    });
    assert!(
        matches!(engine.backup(folder.path().join("b0")), Err(Error::Invalid { .. })),
        "it is not empty"
    );
    assert!(
        strandline::restore(folder.path().join("b0"), folder.path().join("r0")).is_err(),
        "it is not empty"
    );
}

#[test]
fn a_restored_engine_continues_and_the_backup_stays_unchanged() {
    let (disk, backup, restored) =
        (SimulatedDisk::new(), SimulatedDisk::new(), SimulatedDisk::new());
    let engine = open(&disk);
    (0..10).for_each(|number| send(&engine, number));
    engine.backup_in(&dir(&backup)).expect("backs up");
    let image = backup.contents();
    restore_in(&dir(&backup), &dir(&restored)).expect("restores");
    let again = open(&restored);
    assert_eq!(contents(&again), contents(&engine));
    (10..20).for_each(|number| send(&again, number));
    again.compact().expect("merges");
    assert_eq!(batches(&contents(&again)), 20);
    again.close().expect("closes");
    assert_eq!(batches(&contents(&open(&restored))), 20);
    assert_eq!(backup.contents(), image);
}

/// The names of a store, two at a time until the list is empty, and the damage if that comes last.
fn listed(engine: &Engine, store: &str) -> (Vec<Vec<u8>>, Option<Error>) {
    let store = engine.store(store).expect("a store");
    let mut names: Vec<Vec<u8>> = Vec::new();
    loop {
        match store.list(b"", names.last().map(Vec::as_slice), 2) {
            Ok(more) if more.is_empty() => return (names, None),
            Ok(more) => names.extend(more),
            Err(error) => return (names, Some(error)),
        }
    }
}

#[test]
fn a_list_returns_all_names_that_damage_does_not_hide_and_then_the_damage() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    for flush in ["one", "two", "both"] {
        for store in ["messages", "sync"] {
            let store = engine.store(store).expect("a store");
            for name in [format!("only {flush}"), "in both".into()] {
                store.append(name.as_bytes(), b"body").expect("appends");
            }
        }
        if flush != "both" {
            engine.flush().expect("flushes");
        }
    }
    drop(engine);
    let image = disk.contents();
    let indexes: Vec<&String> = image.files.keys().filter(|name| name.contains(".index")).collect();
    assert_eq!(indexes.len(), 4, "two flushes of two stores");
    for index in indexes {
        let engine = open(&changed(&image, |files| files.get_mut(index).expect("there").fill(0)));
        let answers = ["messages", "sync"].map(|store| listed(&engine, store));
        let damaged: Vec<_> = answers.iter().filter(|(_, damage)| damage.is_some()).collect();
        let [(names, Some(damage))] = damaged.as_slice() else { panic!("{index}: {answers:?}") };
        assert!(damage.to_string().contains(index.as_str()), "{index}: {damage}");
        assert_eq!(names.len(), 3, "{index} hides one name of four: {names:?}");
        assert!(names.iter().any(|name| name == b"in both"), "{index}: {names:?}");
        assert!(
            answers.iter().any(|(names, damage)| names.len() == 4 && damage.is_none()),
            "{index}"
        );
    }
}
