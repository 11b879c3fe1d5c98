//! A salvage keeps every entry that is not damaged (P5).
//!
//! It does not know: a directory that can be opened and has a backup; that is a case for restore.

use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{Batch, Engine, Finding, Trim, World, salvage_in};

use super::directory::{
    Entries, changed, contents, dir, open, send, try_open, two_segments, verify,
};
use crate::gates::{COMPACT, FLUSH, Gates};
use crate::two_stores;
use crate::world::soon;

/// The same engine with entries in the log, too: appends, and changes of entries in segments.
fn with_a_log() -> Image {
    let disk = SimulatedDisk::from_image(&two_segments());
    let engine = open(&disk);
    (14..20).for_each(|number| send(&engine, number));
    let messages = engine.store("messages").expect("a store");
    messages.delete(b"c/1", &[4]).expect("deletes");
    messages.edit(b"c/0", 4, b"edited in the log").expect("edits");
    let sync = engine.store("sync").expect("a store");
    let brief =
        Batch::new().lifetime(two_stores::ttl(3_600_000)).append(&sync, b"u/brief", b"an hour");
    engine.submit(brief).expect("queued").wait().expect("committed");
    drop(engine);
    disk.contents()
}

/// The result of a salvage: the report, and the new engine. The disk is unchanged.
fn salvage(disk: &SimulatedDisk) -> (strandline::Salvage, Engine) {
    let before = disk.contents();
    let target = SimulatedDisk::new();
    let report = salvage_in(&dir(disk), &dir(&target), &two_stores::NAMES).expect("salvages");
    assert_eq!(disk.contents(), before, "the source is not changed");
    let engine = open(&target);
    assert_eq!(verify(&engine).findings, [], "what is salvaged is whole");
    (report, engine)
}

/// Every salvaged entry is one of the original ones; returns how many are missing.
fn missing(salvaged: &Entries, whole: &Entries) -> usize {
    for (key, entries) in salvaged {
        let known = whole.get(key).unwrap_or_else(|| panic!("{key:?} was never there"));
        for entry in entries {
            assert!(known.contains(entry), "{key:?}: {} was never there so", entry.0);
        }
    }
    let count = |entries: &Entries| entries.values().map(Vec::len).sum::<usize>();
    count(whole) - count(salvaged)
}

#[test]
fn everything_intact_is_salvaged_and_continues_to_count() {
    let image = with_a_log();
    let whole = open(&SimulatedDisk::from_image(&image));
    let (report, engine) = salvage(&SimulatedDisk::from_image(&image));
    assert_eq!(report.findings, []);
    assert_eq!(contents(&engine), contents(&whole));
    assert_ne!(engine.epoch(), whole.epoch());
    for ((store, name), _) in contents(&whole) {
        let (old, new) =
            (whole.store(&store).expect("a store"), engine.store(&store).expect("a store"));
        let (info, again) = (old.info(&name).expect("reads"), new.info(&name).expect("reads"));
        assert_eq!(
            (again.last, again.first, again.trimmed_to),
            (info.last, info.first, info.trimmed_to)
        );
        assert_eq!(new.append(&name, b"next").expect("appends"), info.last + 1);
    }
    let sync = engine.store("sync").expect("a store");
    assert_eq!(sync.ttl(), whole.store("sync").expect("a store").ttl());
    engine.compact().expect("merges");
    assert_eq!(verify(&engine).findings, []);
}

#[test]
fn the_expiry_of_a_single_entry_is_salvaged() {
    let disk = SimulatedDisk::from_image(&with_a_log());
    let target = SimulatedDisk::new();
    salvage_in(&dir(&disk), &dir(&target), &two_stores::NAMES).expect("salvages");
    let at = |now_ms| {
        let clock = Arc::new(ManualClock::at(now_ms));
        let options = two_stores::options().memory_budget_bytes(1).read_only(true);
        let engine = Engine::open_in(World { dir: dir(&target), clock }, options).expect("opens");
        engine.store("sync").expect("a store").last(b"u/brief").expect("reads").is_some()
    };
    assert_eq!((at(1_700_000_000_000), at(1_700_000_000_000 + 3_600_001)), (true, false));
}

#[test]
fn everything_is_salvaged_without_the_manifest() {
    let image = with_a_log();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    for how in ["gone", "damaged"] {
        let disk = changed(&image, |files| {
            let name = files
                .keys()
                .find(|name| name.starts_with("manifest-"))
                .expect("there is one")
                .clone();
            if how == "gone" {
                files.remove(&name);
            } else {
                files.get_mut(&name).expect("it is there")[100] ^= 1;
            }
        });
        let (report, engine) = salvage(&disk);
        assert!(
            report
                .findings
                .iter()
                .any(|finding| finding.path.to_string_lossy().contains("manifest")),
            "{how}"
        );
        assert_eq!(contents(&engine), whole, "{how}");
    }
}

/// The files of segments that contain these bytes.
fn holders(image: &Image, what: &[u8]) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(what.len()).any(|at| at == what);
    let segments = image.files.iter().filter(|(name, _)| name.starts_with("segment-"));
    segments.filter(|(_, bytes)| holds(bytes)).map(|(name, _)| name.clone()).collect()
}

/// An entry that was edited twice. The second edit is in a flushed segment, and the first one in a
/// merged segment whose file has a higher number: the merge took its number after the flush.
fn an_older_edit_under_a_higher_number() -> Image {
    let gates = Gates::new();
    let (engine, store) = gates.open();
    let append_ten = |timeline: &[u8]| {
        for _ in 0..10 {
            store.append(timeline, [b'~'; 500]).expect("appends");
        }
    };
    store.append(b"x", b"original").expect("appends");
    append_ten(b"other");
    engine.flush().expect("flushes");
    assert!(store.edit(b"x", 1, b"older edit").expect("edits"));
    append_ten(b"most");
    store.append(b"kept", b"alive").expect("appends");
    engine.flush().expect("flushes");
    gates.hold(COMPACT);
    store.trim(b"most", Trim::Keep(0)).expect("trims");
    engine.flush().expect("flushes, and counts most of the older edit's segment as dead");
    assert!(store.edit(b"x", 1, b"newer edit").expect("edits"));
    gates.hold(FLUSH);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| engine.flush());
        soon("the flush has its number", || gates.waits(FLUSH));
        gates.release(COMPACT);
        soon("the segment is rewritten", || engine.stats().merges == 1);
        gates.hold(COMPACT);
        gates.release(FLUSH);
        flush.join().expect("no panic").expect("flushes");
    });
    let count = |what: &[u8]| holders(&gates.disk.contents(), what).len();
    soon("the input of the merge is removed", || count(b"older edit") == 1);
    let image = gates.disk.contents();
    gates.release(COMPACT);
    image
}

#[test]
fn without_its_manifest_the_later_edit_counts_in_whichever_file_it_is() {
    let image = an_older_edit_under_a_higher_number();
    let (older, newer) = (holders(&image, b"older edit"), holders(&image, b"newer edit"));
    assert!(older.len() == 1 && newer.len() == 1 && newer < older, "{older:?}, {newer:?}");
    for damaged in [None, Some(&older[0]), Some(&newer[0])] {
        let disk = changed(&image, |files| {
            files.retain(|name, _| !name.starts_with("manifest-") && !name.ends_with(".log"));
            if let Some(name) = damaged {
                // The bodies of edits are the first block after the file's header.
                files.get_mut(name).expect("is there")[100] ^= 1;
            }
        });
        let (report, engine) = salvage(&disk);
        let is_lost = damaged == Some(&newer[0]);
        let lost: Vec<_> = report.findings.iter().filter_map(|finding| finding.sequences).collect();
        assert_eq!(lost, if is_lost { vec![(1, 1)] } else { Vec::new() }, "{damaged:?}");
        let store = engine.store("messages").expect("a store");
        let body = store.get(b"x", 1).expect("reads").map(|entry| entry.body.to_vec());
        assert_eq!(body, (!is_lost).then(|| b"newer edit".to_vec()), "{damaged:?}");
        assert_eq!(store.info(b"kept").expect("reads").last, 1, "{damaged:?}");
    }
}

#[test]
fn a_lost_index_loses_no_entry_and_two_exchanged_files_lose_nothing() {
    let image = two_segments();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    let indexes: Vec<&String> =
        image.files.keys().filter(|name| name.ends_with(".index")).collect();
    for name in &indexes {
        let (report, engine) =
            salvage(&changed(&image, |files| files.get_mut(*name).expect("there").fill(0)));
        assert!(report.findings.iter().any(|finding| finding.path.ends_with(name)), "{name}");
        // Without the index of the younger segment, its removals and edits are lost; no append is.
        let (found, expected) = (contents(&engine), &whole);
        for (key, entries) in expected {
            for (sequence, ..) in entries {
                assert!(
                    found[key].iter().any(|(found, ..)| found == sequence),
                    "{name}: {key:?} {sequence}"
                );
            }
        }
    }
    let disk = changed(&image, |files| {
        let (one, two) = (files[indexes[0]].clone(), files[indexes[1]].clone());
        files.insert(indexes[0].clone(), two);
        files.insert(indexes[1].clone(), one);
    });
    assert_eq!(contents(&salvage(&disk).1), whole);
}

#[test]
fn a_flipped_byte_of_a_data_file_costs_its_block_and_the_loss_is_reported() {
    let image = two_segments();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    for name in image.files.keys().filter(|name| name.ends_with(".data")) {
        for at in (0..image.files[name].len()).step_by(3) {
            let (report, engine) =
                salvage(&changed(&image, |files| files.get_mut(name).expect("there")[at] ^= 1));
            let lost = missing(&contents(&engine), &whole);
            let reported = report.findings.iter().filter(|finding| finding.timeline.is_some());
            assert!(
                report.findings.iter().any(|finding| finding.path.ends_with(name)),
                "byte {at} of {name}"
            );
            assert_eq!(
                lost > 0,
                reported.count() > 0,
                "byte {at} of {name}: {lost} lost, {:?}",
                report.findings
            );
        }
    }
}

#[test]
fn a_hole_in_the_log_costs_what_was_there_and_the_loss_is_reported() {
    let image = with_a_log();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    let name =
        image.files.keys().find(|name| name.ends_with(".log")).expect("there is a log").clone();
    let groups: Vec<usize> = (512..image.files[&name].len())
        .step_by(512)
        .filter(|at| image.files[&name][*at..].starts_with(b"SLgr"))
        .collect();
    assert!(groups.len() > 5);
    for at in &groups[..groups.len() - 4] {
        let disk = changed(&image, |files| files.get_mut(&name).expect("there")[at + 40] ^= 1);
        assert!(try_open(&disk, false).is_err(), "an open refuses it");
        let (report, engine) = salvage(&disk);
        assert!(report.findings.iter().any(|finding| finding.path.ends_with(&name)));
        let lost = missing(&contents(&engine), &whole);
        let reported = report.findings.iter().any(|finding| finding.timeline.is_some());
        assert!(
            (1..=4).contains(&lost) && reported,
            "group at {at}: {lost} lost, {:?}",
            report.findings
        );
    }
}

#[test]
fn a_change_in_the_log_shows_the_end_of_a_timeline_of_which_nothing_is_left() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    let messages = engine.store("messages").expect("a store");
    for _ in 0..5 {
        messages.append(b"c", b"body").expect("appends");
    }
    engine.flush().expect("flushes");
    messages.trim(b"c", Trim::Before(3)).expect("trims");
    drop((messages, engine));
    let gone = changed(&disk.contents(), |files| {
        files
            .iter_mut()
            .filter(|(name, _)| name.starts_with("segment-"))
            .for_each(|(_, bytes)| bytes.fill(0));
    });
    let (report, engine) = salvage(&gone);
    let lost = |finding: &Finding| {
        finding.timeline == Some(("messages".into(), b"c".into()))
            && finding.sequences == Some((3, 5))
    };
    assert!(report.findings.iter().any(lost), "{:?}", report.findings);
    let messages = engine.store("messages").expect("a store");
    assert_eq!(messages.append(b"c", b"next").expect("appends"), 6);
}
