//! Looking after a directory (P5, P6, P11): verify, backup, restore, salvage.
//!
//!  * verify finds every flipped byte of a segment, names the file, and finds nothing in what is whole, under appends too;
//!  * a segment cut short, zeroed or exchanged is named, and the timelines of others are served;
//!  * a backup under appends and merges is the state of one moment, batches as a whole; one that a power cut met is whole or
//!    refused; what is restored has another history;
//!  * a salvage keeps every entry that is not damaged.

#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "the engine names its files")]
#![allow(clippy::type_complexity, reason = "a list of closures")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::{
    Batch, Engine, Error, Finding, Limit, Options, Trim, Verification, World, restore_in, salvage_in,
};

fn dir(disk: &SimulatedDisk) -> Dir {
    Dir::new(Arc::new(disk.clone()))
}

fn try_open(disk: &SimulatedDisk, read_only: bool) -> Result<Engine, Error> {
    let options = Options { memory_budget_bytes: 1, read_only, ..Options::default() };
    Engine::open_in(World { dir: dir(disk), clock: Arc::new(ManualClock::at(1_700_000_000_000)) }, options)
}

fn open(disk: &SimulatedDisk) -> Engine {
    try_open(disk, false).expect("opens")
}

fn verify(engine: &Engine) -> Verification {
    engine.verify(|done, total| assert!(done <= total, "{done} of {total}")).expect("verifies")
}

/// One batch: its number to three inboxes, and a body of its own to a conversation.
fn send(engine: &Engine, number: usize) {
    let (messages, sync) =
        (engine.store("messages").expect("a store"), engine.store("sync").expect("a store"));
    let inboxes: Vec<Vec<u8>> =
        (0..3).map(|user| format!("u/{}", (number + user) % 5).into_bytes()).collect();
    let batch = Batch::new()
        .append(
            &messages,
            format!("c/{}", number % 2).as_bytes(),
            format!("body {number} of its own").as_bytes(),
        )
        .fan_out(format!("shared {number}").as_bytes(), inboxes.iter().map(|name| (&sync, name.as_slice())))
        .id(format!("id {number}").as_bytes());
    engine.submit(batch).expect("queued").wait().expect("committed");
}

type Entries = BTreeMap<(String, Vec<u8>), Vec<(u64, u64, Vec<u8>)>>;

/// Everything that can be read: sequence, time and body of each entry.
fn contents(engine: &Engine) -> Entries {
    let mut contents = Entries::new();
    for info in engine.stores() {
        let store = engine.store(&info.name).expect("a store");
        for name in store.list(b"", None, usize::MAX).expect("lists") {
            let page = store.range(&name, .., Limit::entries(usize::MAX)).expect("reads");
            let entries =
                page.entries.iter().map(|entry| (entry.sequence, entry.time_ms, entry.body.to_vec()));
            contents.insert((info.name.clone(), name), entries.collect());
        }
    }
    contents
}

/// Two segments a store, with edits, removals and a trim that concern the older ones, and nothing in the log.
fn two_segments() -> Image {
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    (0..10).for_each(|number| send(&engine, number));
    engine.flush().expect("flushes");
    let messages = engine.store("messages").expect("a store");
    messages.edit(b"c/0", 2, b"another body").expect("edits");
    messages.delete(b"c/0", &[3]).expect("deletes");
    messages.trim(b"c/1", Trim::Before(2)).expect("trims");
    (10..14).for_each(|number| send(&engine, number));
    engine.close().expect("closes");
    disk.contents()
}

fn changed(image: &Image, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> SimulatedDisk {
    let mut image = image.clone();
    change(&mut image.files);
    SimulatedDisk::from_image(&image)
}

fn names(found: &Verification, file: &str) -> bool {
    found.findings.iter().any(|finding: &Finding| finding.path.ends_with(file))
}

#[test]
fn what_is_whole_verifies_with_its_sums() {
    let disk = SimulatedDisk::from_image(&two_segments());
    let found = verify(&try_open(&disk, true).expect("opens"));
    assert_eq!((&found.findings[..], found.left_off), (&[][..], 0));
    // Two stores with two segments of two files, and the manifest; 14 batches of four entries, of which one was removed.
    assert_eq!((found.files, found.timelines), (9, 7));
    assert_eq!(found.entries, 14 * 4);
    let bytes: usize = disk
        .contents()
        .files
        .iter()
        .filter(|(name, _)| !["LOCK", "reserve"].contains(&name.as_str()))
        .map(|(_, file)| file.len())
        .sum();
    assert_eq!(found.bytes, bytes as u64);
}

#[test]
fn every_flipped_byte_of_a_segment_is_found_and_its_file_named() {
    let image = two_segments();
    for (name, content) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        for at in 0..content.len() {
            let disk = changed(&image, |files| files.get_mut(name).expect("it is there")[at] ^= 0x20);
            let found = verify(&try_open(&disk, true).expect("a segment does not keep it from opening"));
            assert!(names(&found, name), "byte {at} of {name}: {:?}", found.findings);
        }
    }
}

#[test]
fn a_finding_names_the_timeline_and_the_sequences_in_a_block_that_is_gone() {
    let image = two_segments();
    let name = image.files.keys().find(|name| name.ends_with(".data")).expect("there is a segment").clone();
    let disk = changed(&image, |files| {
        let file = files.get_mut(&name).expect("it is there");
        let last = file.len() - 1;
        file[last] ^= 1;
    });
    let found = verify(&try_open(&disk, true).expect("opens"));
    let concerned =
        found.findings.iter().find(|finding| finding.timeline.is_some()).expect("a timeline is named");
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
fn nothing_is_found_while_it_is_written_and_merged() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = Options { memory_budget_bytes: 1 << 20, ..Options::default() };
    let engine = Engine::open(folder.path(), options).expect("opens");
    while_written(&engine, || {
        for _ in 0..20 {
            assert_eq!(verify(&engine).findings, []);
        }
    });
}

/// Whether the entries are those of the first n batches of `send`, for some n, which is given.
fn batches(contents: &Entries) -> usize {
    let count: usize = contents.values().map(Vec::len).sum();
    assert_eq!(count % 4, 0, "a batch is here in part");
    let n = count / 4;
    for ((_, name), entries) in contents {
        for (place, (sequence, _, body)) in entries.iter().enumerate() {
            assert_eq!(*sequence, place as u64 + 1, "{}", name.escape_ascii());
            let body = String::from_utf8_lossy(body);
            let number: usize = body.split(' ').nth(1).expect("a number").parse().expect("a number");
            assert!(number < n, "batch {number} is here, and only {n} batches");
        }
    }
    n
}

#[test]
fn a_backup_under_appends_and_merges_is_the_state_of_one_moment() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = Options { memory_budget_bytes: 1 << 20, ..Options::default() };
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
    assert!(matches!(engine.backup(folder.path().join("b0")), Err(Error::Invalid { .. })), "it is not empty");
    assert!(
        strandline::restore(folder.path().join("b0"), folder.path().join("r0")).is_err(),
        "it is not empty"
    );
}

#[test]
fn a_restored_engine_goes_on_and_the_backup_stays_as_it_was() {
    let (disk, backup, restored) = (SimulatedDisk::new(), SimulatedDisk::new(), SimulatedDisk::new());
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

#[test]
fn a_power_cut_leaves_a_backup_that_is_whole_or_refused() {
    let (disk, backup) = (SimulatedDisk::new(), SimulatedDisk::new());
    let engine = open(&disk);
    (0..10).for_each(|number| send(&engine, number));
    let expected = contents(&engine);
    engine.backup_in(&dir(&backup)).expect("backs up");
    backup.mark(1);
    let (mut model, mut done, mut whole) = (Model::default(), false, 0);
    for (place, op) in backup.log().iter().enumerate() {
        model.apply(op, None);
        done |= matches!(op, strandline::vfs::simulated::Op::Mark(_));
        for cut in Cut::ALL {
            let source = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(place as u64)));
            let target = SimulatedDisk::new();
            match restore_in(&dir(&source), &dir(&target)) {
                Ok(_) => {
                    assert_eq!(contents(&open(&target)), expected, "cut after call {place}");
                    whole += 1;
                }
                Err(error) => assert!(!done, "a backup that was done is refused: {error}"),
            }
        }
    }
    assert!(done && whole >= Cut::ALL.len());
}

#[test]
fn a_backup_of_what_is_damaged_is_refused_and_leaves_nothing() {
    let image = two_segments();
    let name = image.files.keys().find(|name| name.ends_with(".data")).expect("there is a segment").clone();
    let disk = changed(&image, |files| files.get_mut(&name).expect("it is there").truncate(90));
    let backup = SimulatedDisk::new();
    let error = open(&disk).backup_in(&dir(&backup)).expect_err("it is damaged");
    assert!(error.to_string().contains(&name), "{error}");
    assert!(backup.contents().files.is_empty());
}

/// The same engine with entries in the log, too: appends, and changes of what is in segments.
fn with_a_log() -> Image {
    let disk = SimulatedDisk::from_image(&two_segments());
    let engine = open(&disk);
    (14..20).for_each(|number| send(&engine, number));
    let messages = engine.store("messages").expect("a store");
    messages.delete(b"c/1", &[4]).expect("deletes");
    messages.edit(b"c/0", 4, b"edited in the log").expect("edits");
    let sync = engine.store("sync").expect("a store");
    let brief = Batch::new().lifetime_ms(3_600_000).append(&sync, b"u/brief", b"an hour");
    engine.submit(brief).expect("queued").wait().expect("committed");
    drop(engine);
    disk.contents()
}

/// What is salvaged from a disk: the report, and the new engine. The disk is as it was.
fn salvage(disk: &SimulatedDisk) -> (strandline::Salvage, Engine) {
    let before = disk.contents();
    let target = SimulatedDisk::new();
    let report = salvage_in(&dir(disk), &dir(&target)).expect("salvages");
    assert_eq!(disk.contents(), before, "the source is not changed");
    let engine = open(&target);
    assert_eq!(verify(&engine).findings, [], "what is salvaged is whole");
    (report, engine)
}

/// Every salvaged entry is one that was there; gives how many are missing.
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
fn all_of_what_is_whole_is_salvaged_and_goes_on_counting() {
    let image = with_a_log();
    let whole = open(&SimulatedDisk::from_image(&image));
    let (report, engine) = salvage(&SimulatedDisk::from_image(&image));
    assert_eq!(report.findings, []);
    assert_eq!(contents(&engine), contents(&whole));
    assert_ne!(engine.epoch(), whole.epoch());
    for ((store, name), _) in contents(&whole) {
        let (old, new) = (whole.store(&store).expect("a store"), engine.store(&store).expect("a store"));
        let (info, again) = (old.info(&name).expect("reads"), new.info(&name).expect("reads"));
        assert_eq!((again.last, again.first, again.trimmed_to), (info.last, info.first, info.trimmed_to));
        assert_eq!(new.append(&name, b"next").expect("appends"), info.last + 1);
    }
    let sync = engine.store("sync").expect("a store");
    assert_eq!(sync.ttl_ms(), whole.store("sync").expect("a store").ttl_ms());
    engine.compact().expect("merges");
    assert_eq!(verify(&engine).findings, []);
}

#[test]
fn an_expiry_of_its_own_is_salvaged() {
    let disk = SimulatedDisk::from_image(&with_a_log());
    let target = SimulatedDisk::new();
    salvage_in(&dir(&disk), &dir(&target)).expect("salvages");
    let at = |now_ms| {
        let clock = Arc::new(ManualClock::at(now_ms));
        let options = Options { memory_budget_bytes: 1, read_only: true, ..Options::default() };
        let engine = Engine::open_in(World { dir: dir(&target), clock }, options).expect("opens");
        engine.store("sync").expect("a store").last(b"u/brief").expect("reads").is_some()
    };
    assert_eq!((at(1_700_000_000_000), at(1_700_000_000_000 + 3_600_001)), (true, false));
}

#[test]
fn without_its_manifest_everything_is_salvaged_all_the_same() {
    let image = with_a_log();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    for how in ["gone", "damaged"] {
        let disk = changed(&image, |files| {
            let name = files.keys().find(|name| name.starts_with("manifest-")).expect("there is one").clone();
            if how == "gone" {
                files.remove(&name);
            } else {
                files.get_mut(&name).expect("it is there")[100] ^= 1;
            }
        });
        let (report, engine) = salvage(&disk);
        assert!(
            report.findings.iter().any(|finding| finding.path.to_string_lossy().contains("manifest")),
            "{how}"
        );
        assert_eq!(contents(&engine), whole, "{how}");
    }
}

#[test]
fn a_lost_index_costs_nothing_that_was_appended_and_two_files_in_each_others_place_nothing_at_all() {
    let image = two_segments();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    let indexes: Vec<&String> = image.files.keys().filter(|name| name.ends_with(".index")).collect();
    for name in &indexes {
        let (report, engine) =
            salvage(&changed(&image, |files| files.get_mut(*name).expect("there").fill(0)));
        assert!(report.findings.iter().any(|finding| finding.path.ends_with(name)), "{name}");
        // Without the index of the younger segment, the removals and edits that it told of are lost; no append is.
        let (found, expected) = (contents(&engine), &whole);
        for (key, entries) in expected {
            for (sequence, ..) in entries {
                assert!(found[key].iter().any(|(found, ..)| found == sequence), "{name}: {key:?} {sequence}");
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
fn a_flipped_byte_of_a_data_file_costs_its_block_and_the_loss_is_told() {
    let image = two_segments();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    for name in image.files.keys().filter(|name| name.ends_with(".data")) {
        for at in (0..image.files[name].len()).step_by(3) {
            let (report, engine) =
                salvage(&changed(&image, |files| files.get_mut(name).expect("there")[at] ^= 1));
            let lost = missing(&contents(&engine), &whole);
            let told = report.findings.iter().filter(|finding| finding.timeline.is_some());
            assert!(
                report.findings.iter().any(|finding| finding.path.ends_with(name)),
                "byte {at} of {name}"
            );
            assert_eq!(lost > 0, told.count() > 0, "byte {at} of {name}: {lost} lost, {:?}", report.findings);
        }
    }
}

#[test]
fn a_hole_in_the_log_costs_what_stood_there_and_the_loss_is_told() {
    let image = with_a_log();
    let whole = contents(&open(&SimulatedDisk::from_image(&image)));
    let name = image.files.keys().find(|name| name.ends_with(".log")).expect("there is a log").clone();
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
        let told = report.findings.iter().any(|finding| finding.timeline.is_some());
        assert!((1..=4).contains(&lost) && told, "group at {at}: {lost} lost, {:?}", report.findings);
    }
}

/// The names of a store, two at a time until nothing comes, and the damage if that is what comes last.
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
fn a_list_gives_all_names_that_damage_does_not_hide_and_then_the_damage() {
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
        assert!(answers.iter().any(|(names, damage)| names.len() == 4 && damage.is_none()), "{index}");
    }
}
