//! Faults that systems of this kind have had, as small tests. `docs/cases.md` lists all of them,
//! with the test that covers each; the last test here checks that every test named there exists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strandline::format::header::{EngineId, FileHeader, FileKind, VERSION};
use strandline::format::manifest::{Live, StoreRecord, encode};
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};
use strandline::{Batch, Durability, Error, Limit, Lsn, Store, StoreId, Trim};

use crate::two_stores;
use crate::world::House;

fn house() -> House {
    on(SimulatedDisk::new())
}

fn on(disk: SimulatedDisk) -> House {
    let options = two_stores::options().memory_budget_bytes(1).wal_file_bytes(8 * 1024);
    House { disk, ..House::with(options) }
}

fn rows(store: &Store, name: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let page = store.range(name, .., Limit::entries(100_000)).expect("reads");
    page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect()
}

fn append_many(store: &Store, name: &[u8], count: u64) {
    for number in 0..count {
        store.append(name, format!("entry {number}").as_bytes()).expect("appends");
    }
}

#[test]
fn old_groups_after_the_end_of_the_log_are_not_replayed() {
    let house = house();
    let (engine, store) = house.open();
    append_many(&store, b"old", 6);
    let old = house.disk.contents();
    let (log, old_bytes) =
        old.files.iter().rfind(|(name, _)| name.starts_with("wal-0")).expect("a log");
    let groups: Vec<u8> = old_bytes[512..].to_vec();
    engine.flush().expect("flushes");
    append_many(&store, b"new", 2);
    drop((engine, store));
    let mut image = house.disk.contents();
    let (active, bytes) =
        image.files.iter_mut().rfind(|(name, _)| name.starts_with("wal-0")).expect("a log");
    assert!(active > log, "the old file was left");
    // Valid groups, with valid checksums, at the position of the next group and at every later one.
    let end =
        bytes.chunks(512).rposition(|sector| sector.iter().any(|byte| *byte != 0)).expect("groups")
            + 1;
    let room = bytes.len() - 512 * end;
    bytes[512 * end..].copy_from_slice(&groups.repeat(1 + room / groups.len())[..room]);
    let (_engine, store) = on(SimulatedDisk::from_image(&image)).open();
    assert_eq!((rows(&store, b"old").len(), rows(&store, b"new").len()), (6, 2));
    assert_eq!(store.append(b"old", b"next").expect("appends"), 7);
}

#[test]
fn a_log_that_passes_four_gigabytes_reads_back() {
    for start in [(1u64 << 32) - 2048, (1 << 32) - 512, 1 << 32, (1 << 48) - 1024] {
        let store = StoreRecord::new(StoreId(1), "messages", 0);
        let live =
            Live { checkpoint: Lsn(start), next_file: 2, stores: vec![store], ..Live::default() };
        let (kind, engine_id) = (FileKind::Manifest, EngineId([7; 16]));
        let header = FileHeader {
            version: VERSION,
            kind,
            engine_id,
            writer_epoch: 1,
            number: 1,
            first: 0,
            second: 0,
            third: 0,
        };
        let mut image = Image::default();
        image.files.insert("manifest-000000000001".into(), encode(&live, header));
        let house = on(SimulatedDisk::from_image(&image));
        let (engine, store) = house.open();
        append_many(&store, b"t", 10);
        drop((engine, store));
        let (engine, store) = house.open();
        append_many(&store, b"t", 10);
        engine.flush().expect("flushes");
        append_many(&store, b"t", 1);
        drop((engine, store));
        let (_engine, store) = house.open();
        let sequences: Vec<u64> =
            rows(&store, b"t").into_iter().map(|(sequence, _)| sequence).collect();
        assert_eq!(sequences, (1..=21).collect::<Vec<_>>(), "from {start}");
    }
}

#[test]
fn after_a_clean_stop_there_is_no_log_to_lose() {
    let house = house();
    for round in 1..=3 {
        let (engine, store) = house.open();
        assert_eq!(store.append(b"t", b"x").expect("appends"), round);
        engine.close().expect("closes");
        assert_eq!(house.files("wal-"), Vec::<String>::new());
    }
    assert_eq!(rows(&house.open().1, b"t").len(), 3);
}

#[test]
fn the_page_of_a_reader_stays_right_while_its_segment_is_merged_and_expires() {
    let house = house();
    let (engine, _) = house.open();
    let store = engine.create_store("short", two_stores::ttl(64_000)).expect("is made");
    for round in 0..3u8 {
        store.append(b"t", [round; 5000]).expect("appends");
        engine.flush().expect("flushes");
    }
    let held = store.range(b"t", .., Limit::entries(2)).expect("reads").entries;
    engine.compact().expect("merges");
    house.clock.pass(70_000);
    engine.compact().expect("drops");
    assert_eq!(rows(&store, b"t"), []);
    assert!(
        held[0].body.iter().all(|byte| *byte == 0) && held[1].body.iter().all(|byte| *byte == 1)
    );
}

#[test]
fn temporary_files_of_any_content_are_removed_and_an_empty_log_file_is_named() {
    let house = house();
    let (engine, store) = house.open();
    append_many(&store, b"t", 3);
    drop((engine, store));
    let mut image = house.disk.contents();
    for name in ["wal-next.tmp", "manifest.tmp", "wal-000000000099.log.tmp"] {
        image.files.insert(name.into(), Vec::new());
    }
    let house = on(SimulatedDisk::from_image(&image));
    let (engine, store) = house.open();
    assert_eq!(rows(&store, b"t").len(), 3);
    drop((engine, store));
    assert!(house.disk.contents().files.keys().all(|name| name != "wal-000000000099.log.tmp"));
    let mut image = house.disk.contents();
    image.files.insert("wal-000000000099.log".into(), Vec::new());
    let house = on(SimulatedDisk::from_image(&image));
    let Err(refused) = house.try_engine() else {
        panic!("files get their names when they are whole")
    };
    assert!(refused.to_string().contains("wal-000000000099.log"), "{refused}");
    assert_eq!(house.disk.contents(), image);
}

#[test]
fn files_with_foreign_names_are_left_alone() {
    const THEIRS: &[&str] = &[
        "wal-mine.tmp",
        "wal-1.log.tmp",
        "wal-000000000099.tmp",
        "wal-next.log.tmp",
        "wal-next.tmp.tmp",
        "wal-7.log",
        "manifest-000000000001.tmp",
        "manifest-1",
        "my-manifest.tmp",
        "segment-99.data.tmp",
        "segment-99.data",
        "segment-000000000099.copy",
        "reserve-2.tmp",
        "lost+found",
        ".nfs0000000001",
        "old.tmp",
    ];
    let disk = SimulatedDisk::new();
    let dir = Dir::new(Arc::new(disk.clone()));
    for name in THEIRS {
        dir.create(name).expect("makes it").write(0, name.as_bytes()).expect("writes");
    }
    let house = on(disk);
    for round in 1..=3 {
        let (engine, store) = house.open();
        append_many(&store, b"t", 200);
        engine.flush().expect("flushes");
        store.trim(b"t", Trim::Before(200 * round)).expect("trims");
        engine.compact().expect("merges");
        assert_eq!(engine.verify(|_, _| {}).expect("verifies").findings, []);
        drop(store);
        if round != 2 {
            engine.close().expect("closes");
        }
        drop(engine);
        let files = house.disk.contents().files;
        for name in THEIRS {
            assert_eq!(
                files.get(*name).map(Vec::as_slice),
                Some(name.as_bytes()),
                "{name}, round {round}"
            );
        }
    }
}

#[test]
fn bytes_after_the_end_of_a_file_delete_nothing() {
    let house = house();
    let (engine, store) = house.open();
    append_many(&store, b"t", 20);
    engine.flush().expect("flushes");
    drop((engine, store));
    let whole = house.disk.contents();
    for name in whole.files.keys().filter(|name| name.starts_with("segment-")) {
        let mut image = whole.clone();
        image.files.get_mut(name).expect("is there").extend([0; 600]);
        let house = on(SimulatedDisk::from_image(&image));
        let (engine, store) = house.open();
        match store.range(b"t", .., Limit::entries(100)) {
            Ok(page) => assert_eq!(page.entries.len(), 20),
            Err(error) => assert!(error.to_string().contains(name.as_str()), "{error}"),
        }
        let _may_be_refused = engine.compact();
        drop((engine, store));
        assert_eq!(
            house.files("segment-").len(),
            2,
            "{name} with zeros behind its end was deleted"
        );
    }
}

#[test]
fn a_ttl_of_any_size_expires_nothing_at_once() {
    let house = house();
    let (engine, _) = house.open();
    for (number, ttl_ms) in
        [1 << 31, (1 << 31) + 1, 1 << 32, u64::MAX / 2, u64::MAX].into_iter().enumerate()
    {
        let store =
            engine.create_store(&format!("s{number}"), two_stores::ttl(ttl_ms)).expect("is made");
        store.append(b"t", b"x").expect("appends");
        engine.compact().expect("merges");
        assert_eq!(rows(&store, b"t").len(), 1, "TTL {ttl_ms}");
    }
}

#[test]
fn the_last_sequence_survives_the_loss_of_every_entry() {
    let house = house();
    let (engine, store) = house.open();
    append_many(&store, b"trimmed", 5);
    append_many(&store, b"deleted", 5);
    append_many(&store, b"dropped", 5);
    engine.flush().expect("flushes");
    store.trim(b"trimmed", Trim::Before(6)).expect("trims");
    store.delete(b"deleted", &[5]).expect("deletes");
    store.drop_timeline(b"dropped").expect("drops");
    engine.compact().expect("merges");
    drop((engine, store));
    for sequence in 6..9 {
        let (engine, store) = house.open();
        for name in [&b"trimmed"[..], b"deleted", b"dropped"] {
            assert_eq!(store.append(name, b"x").expect("appends"), sequence);
        }
        engine.compact().expect("merges");
    }
}

#[test]
fn a_chosen_first_sequence_survives_a_restart() {
    let house = house();
    let (engine, store) = house.open();
    let batch = Batch::new().append(&store, b"t", b"imported").sequence(1000);
    engine.submit(batch).expect("queued").wait().expect("commits");
    drop((engine, store));
    for _ in 0..2 {
        let (engine, store) = house.open();
        assert_eq!(rows(&store, b"t"), [(1000, b"imported".to_vec())]);
        engine.close().expect("closes");
    }
    assert_eq!(house.open().1.append(b"t", b"x").expect("appends"), 1001);
}

#[test]
fn a_reader_during_writes_and_flushes_after_a_restart_misses_nothing() {
    let house = house();
    append_many(&house.open().1, b"t", 10);
    for round in 0..60u64 {
        let (engine, store) = house.open();
        let last = store.info(b"t").expect("reads").last;
        std::thread::scope(|scope| {
            scope.spawn(|| append_many(&store, b"t", 10));
            scope.spawn(|| (round % 2 == 0).then(|| engine.flush()).transpose().expect("flushes"));
            let mut cursor = last.saturating_sub(5);
            while cursor < last + 10 {
                for entry in
                    store.read_after(b"t", cursor, Limit::entries(3)).expect("reads").entries
                {
                    assert_eq!(entry.sequence, cursor + 1, "round {round}");
                    cursor = entry.sequence;
                }
            }
        });
    }
}

#[test]
fn restarts_without_writes_change_neither_the_number_of_files_nor_of_bytes() {
    let house = house();
    let (engine, store) = house.open();
    append_many(&store, b"t", 30);
    engine.close().expect("closes");
    drop((engine, store));
    let before = (rows(&house.open().1, b"t"), house.files("").len(), house.bytes());
    for _ in 0..20 {
        let (_engine, store) = house.open();
        assert_eq!((rows(&store, b"t"), house.files("").len(), house.bytes()), before);
    }
}

#[test]
fn every_range_of_a_timeline_in_three_segments_and_a_memtable_equals_the_slice() {
    let house = house();
    let (engine, store) = house.open();
    let all: Vec<u64> = [1, 2, 3, 5, 6, 9, 10, 11].to_vec();
    for (place, sequence) in all.iter().enumerate() {
        let batch = Batch::new().append(&store, b"t", sequence.to_le_bytes()).sequence(*sequence);
        engine.submit(batch).expect("queued").wait().expect("commits");
        if place % 2 == 1 && place < 6 {
            engine.flush().expect("flushes");
        }
    }
    for (from, to) in (0..14).flat_map(|from| (0..14).map(move |to| (from, to))) {
        for count in [1, 2, 7, 100] {
            let inside: Vec<u64> =
                all.iter().copied().filter(|at| (from..=to).contains(at)).collect();
            let found = |page: strandline::Page| -> Vec<u64> {
                page.entries.iter().map(|entry| entry.sequence).collect()
            };
            let forth = store.range(b"t", from..=to, Limit::entries(count)).expect("reads");
            assert_eq!(found(forth), inside[..inside.len().min(count)], "{from}..={to} {count}");
            let back = store.range_back(b"t", from..=to, Limit::entries(count)).expect("reads");
            let newest: Vec<u64> = inside.iter().rev().take(count).copied().collect();
            assert_eq!(found(back), newest, "{to} back to {from} {count}");
        }
    }
}

#[test]
fn a_trim_at_each_boundary_removes_the_entries_below_and_no_others() {
    let all = [1u64, 4, 5, 9];
    for below in 0..12 {
        for flushed in 0..=all.len() {
            let house = house();
            let (engine, store) = house.open();
            for (place, sequence) in all.iter().enumerate() {
                if place == flushed {
                    engine.flush().expect("flushes");
                }
                let batch = Batch::new().append(&store, b"t", b"x").sequence(*sequence);
                engine.submit(batch).expect("queued").wait().expect("commits");
            }
            let removed = store.trim(b"t", Trim::Before(below)).expect("trims");
            let kept: Vec<u64> = all.iter().copied().filter(|at| *at >= below).collect();
            let found: Vec<u64> =
                rows(&store, b"t").into_iter().map(|(sequence, _)| sequence).collect();
            assert_eq!(
                (found, removed),
                (kept.clone(), (all.len() - kept.len()) as u64),
                "below {below}"
            );
        }
    }
}

#[test]
fn an_append_that_a_full_disk_refused_is_appended_once_by_its_retry() {
    let house = house();
    let (engine, store) = house.open();
    let send = || {
        let batch = Batch::new().append(&store, b"t", [b'x'; 3000]).id(b"seven");
        engine.submit(batch).and_then(strandline::Ticket::wait)
    };
    house.disk.set_faults(Some(Box::new(|op| {
        matches!(op, Op::Write { .. } | Op::Create { .. })
            .then_some(std::io::ErrorKind::StorageFull)
    })));
    assert!(matches!(send(), Err(Error::DiskFull { .. })));
    house.disk.set_faults(None);
    let first = send().expect("there is space");
    assert_eq!((first.sequences.as_slice(), first.duplicate), ([1].as_slice(), false));
    let again = send().expect("is answered");
    assert_eq!((again.sequences.as_slice(), again.duplicate), ([1].as_slice(), true));
    assert_eq!(rows(&store, b"t").len(), 1);
}

#[test]
fn a_weak_batch_does_not_weaken_a_strong_one_in_its_group() {
    let house = house();
    let (engine, store) = house.open();
    for _ in 0..20 {
        let batch = |durability| Batch::new().append(&store, b"t", b"x").durability(durability);
        let tickets = engine.submit_all(vec![
            batch(Durability::Os),
            batch(Durability::Disk),
            batch(Durability::Os),
        ]);
        tickets.into_iter().for_each(|ticket| {
            ticket.expect("queued").wait().expect("commits");
        });
        let mut model = Model::default();
        house.disk.log().iter().for_each(|op| model.apply(op, None));
        let image = model.power_cut(Cut::Lost, &mut Dice::new(1));
        let strong = store.info(b"t").expect("reads").last - 1;
        let (_engine, after) = on(SimulatedDisk::from_image(&image)).open();
        assert!(after.info(b"t").expect("reads").last >= strong);
    }
}

#[test]
fn an_entry_expires_at_its_time_across_a_restart() {
    let house = house();
    let (engine, _) = house.open();
    engine
        .create_store("short", two_stores::ttl(64_000))
        .expect("is made")
        .append(b"t", b"x")
        .expect("appends");
    house.clock.pass(63_999);
    drop(engine);
    let (engine, _) = house.open();
    let store = engine.store("short").expect("is there");
    assert_eq!(rows(&store, b"t").len(), 1);
    house.clock.pass(1);
    assert_eq!(rows(&store, b"t").len(), 0);
}

#[test]
fn thousands_of_timelines_share_a_few_files_and_a_quiet_one_pins_no_log() {
    let house = house();
    let (engine, store) = house.open();
    store.append(b"quiet", b"x").expect("appends");
    for round in 0..40 {
        let names: Vec<String> = (0..250).map(|number| format!("t{round}/{number}")).collect();
        let targets = names.iter().map(|name| (&store, name.as_bytes()));
        let batch = Batch::new().fan_out([b'x'; 2000], targets);
        engine.submit(batch).expect("queued").wait().expect("commits");
    }
    let while_running = house.files("wal-0").len();
    engine.flush().expect("flushes");
    assert!(while_running < 40 && house.files("wal-0").len() <= 2, "{:?}", house.files("wal-0"));
    assert!(house.files("").len() < 100, "10,001 timelines take {} files", house.files("").len());
    assert_eq!(rows(&store, b"quiet").len(), 1);
}

#[test]
fn trimmed_entries_leave_the_disk_with_the_next_merge() {
    let house = house();
    let (engine, store) = house.open();
    for _ in 0..4 {
        for _ in 0..10 {
            store.append(b"t", [b'~'; 5000]).expect("appends");
        }
        engine.flush().expect("flushes");
    }
    store.trim(b"t", Trim::Keep(1)).expect("trims");
    engine.compact().expect("merges");
    drop((engine, store));
    let (_engine, store) = house.open();
    assert_eq!(rows(&store, b"t").len(), 1);
    assert!(house.bytes() < 40_000, "{} bytes are left of 200,000", house.bytes());
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test of a document reads it")]
fn each_test_that_the_list_of_cases_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let list = std::fs::read_to_string(root.join("docs/cases.md")).expect("it is there");
    let named: Vec<&str> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.len() > 2 && (code.contains("::") || code.contains(".py")))
        .collect();
    let file_of = |name: &str| -> Option<PathBuf> {
        let places = [
            name.to_string(),
            format!("engine/tests/{name}.rs"),
            format!("server/tests/{name}.rs"),
        ];
        places.iter().map(|place| root.join(place)).find(|path| path.is_file())
    };
    let is_there = |name: &str| {
        let (file, test) = name.split_once("::").unwrap_or((name, ""));
        let source = file_of(file).and_then(|path| std::fs::read_to_string(path).ok());
        source.is_some_and(|source| test.is_empty() || source.contains(&format!("fn {test}(")))
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/cases.md names tests that do not exist: {missing:#?}");
    assert!(named.len() >= 140, "only {} tests are named", named.len());
    let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("| ")).collect();
    let all =
        (1..=75).map(|number| format!("| O{number} |")).chain((1..=88).filter_map(|number| {
            let is_ours = !matches!(number, 8 | 22 | 29 | 32 | 39 | 41 | 54 | 66 | 74);
            is_ours.then(|| format!("| {number} |"))
        }));
    let absent: Vec<String> =
        all.filter(|row| !rows.iter().any(|line| line.starts_with(row))).collect();
    assert!(
        absent.is_empty() && rows.iter().all(|row| row.matches(" | ").count() == 2),
        "no row: {absent:?}"
    );
}
