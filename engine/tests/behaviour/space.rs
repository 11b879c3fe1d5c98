//! Space (P2, P6, P8): the space of removed data is reclaimed automatically, merging takes little
//! temporary space, and a full disk recovers.
//!
//! The disk is simulated, with a size: blocks of 4 KiB, taken when they are written, free when the
//! last reader of a removed file releases it. Bodies are filler, which the tests look for in the
//! files.

use std::sync::Arc;

use strandline::vfs::Dir;
use strandline::vfs::disk::DiskDirectory;
use strandline::vfs::simulated::{Cut, Dice, Model, Op, SimulatedDisk};
use strandline::{Batch, Engine, Error, Limit, Store, Trim};

use crate::two_stores;
use crate::world::{House, figure, soon};

const TTL_MS: u64 = 64_000;
const BODY: [u8; 3000] = [b'~'; 3000];

impl House {
    /// Another with the same clock and settings, and an empty disk.
    fn alike(&self) -> House {
        House { clock: self.clock.clone(), ..House::with(self.options.clone()) }
    }

    /// How many bodies the disk holds, in any file but a log file that is kept to be used again: it
    /// may have live ones a second time (`log_files` checks what it must not have).
    fn bodies(&self) -> usize {
        let mut files = self.disk.contents().files;
        files.remove("wal-next.tmp");
        let rows = files.values().flat_map(|content| content.chunk_by(|one, other| one == other));
        // Bodies of a run are beside each other.
        rows.filter(|row| row[0] == b'~').map(|row| row.len() / BODY.len()).sum()
    }

    /// Takes all the space that is left, so that not a byte is free.
    fn fill_up(&self) -> strandline::vfs::File {
        let file = self.dir().create("not ours").expect("creates");
        // The engine may still be freeing space.
        while self.disk.free_bytes() > 0 {
            let end = file.len().expect("measures").next_multiple_of(4096);
            let _ = file.write(end, &vec![1; self.disk.free_bytes() as usize]);
        }
        file
    }
}

fn fill(store: &Store, timeline: &[u8], count: usize) {
    for _ in 0..count {
        store.append(timeline, BODY).expect("appends");
    }
}

fn sequences(store: &Store, timeline: &[u8]) -> Vec<u64> {
    let page = store.range(timeline, .., Limit::entries(1000)).expect("reads");
    page.entries.iter().map(|entry| entry.sequence).collect()
}

#[test]
fn a_merge_drops_shared_bodies_without_references() {
    let house = House::new();
    let (engine, store) = house.open();
    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
    for number in 0..20 {
        let body = [BODY.as_slice(), format!(" {number}").as_bytes()].concat();
        let batch = Batch::new().fan_out(&body, names.map(|name| (&store, name)));
        engine.submit(batch).expect("queued").wait().expect("commits");
    }
    engine.flush().expect("flushes");
    for name in names {
        store.trim(name, Trim::Before(11)).expect("trims");
    }
    assert_eq!(store.trim(b"a", Trim::Before(20)).expect("trims"), 9);
    assert_eq!(store.delete(b"b", &[12]).expect("deletes"), 1);
    assert!(store.edit(b"c", 13, b"edited").expect("edits"));
    for _ in 0..2 {
        engine.compact().expect("merges");
        soon("ten bodies are still referred to", || house.bodies() == 10);
        assert_eq!(sequences(&store, b"a"), [20]);
        assert_eq!(sequences(&store, b"b"), [11, 13, 14, 15, 16, 17, 18, 19, 20]);
        for (name, sequence) in [(b"b", 13), (b"c", 12), (b"c", 20)] {
            let body = store.get(name, sequence).expect("reads").expect("is there").body;
            assert!(
                body.ends_with(format!(" {}", sequence - 1).as_bytes()),
                "{sequence} has its own body"
            );
        }
        assert_eq!(store.get(b"c", 13).expect("reads").expect("is there").body, "edited");
    }
}

/// The ways in which most of a timeline is removed, and what is left of it.
type Way = (&'static str, fn(&Store), Vec<u64>);

fn ways() -> Vec<Way> {
    vec![
        (
            "trim",
            |store| assert_eq!(store.trim(b"t", Trim::Keep(1)).expect("trims"), 99),
            vec![100],
        ),
        ("drop", |store| assert!(store.drop_timeline(b"t").expect("drops")), vec![]),
        (
            "delete",
            |store| {
                let all: Vec<u64> = (2..=100).collect();
                assert_eq!(store.delete(b"t", &all).expect("deletes"), 99);
            },
            vec![1],
        ),
    ]
}

#[test]
fn trimmed_dropped_and_deleted_entries_leave_the_disk_by_themselves() {
    for (way, remove, left) in ways() {
        let house = House::new();
        let (engine, store) = house.open();
        fill(&store, b"t", 100);
        fill(&store, b"other", 5);
        engine.compact().expect("one large segment");
        soon("it is all in one", || figure(&engine, "segments") == 1);
        remove(&store);
        assert!(house.bodies() > 100);
        house.clock.pass(61_000);
        soon(way, || house.bodies() == 5 + left.len());
        assert_eq!(
            (sequences(&store, b"t"), sequences(&store, b"other").len()),
            (left, 5),
            "{way}"
        );
        assert!(figure(&engine, "rewrite_reclaimed_bytes") > 50 * BODY.len() as u64);
        assert!(figure(&engine, "trimmed_total") >= 99);
        assert_eq!(store.append(b"t", b"x").expect("appends"), 101, "{way}");
    }
}

#[test]
fn counts_of_dead_data_survive_a_kill() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 40);
    engine.compact().expect("one segment");
    // Forty percent, flushed; later another forty. Neither alone is worth a rewrite.
    assert_eq!(store.trim(b"t", Trim::Before(17)).expect("trims"), 16);
    engine.flush().expect("flushes");
    drop((engine, store));
    let (engine, store) = house.open();
    assert_eq!(figure(&engine, "merges"), 0);
    assert_eq!(house.bodies(), 40);
    assert_eq!(store.trim(b"t", Trim::Before(33)).expect("trims"), 16);
    house.clock.pass(61_000);
    soon("eight are left", || house.bodies() == 8);
    assert_eq!(sequences(&store, b"t"), (33..=40).collect::<Vec<_>>());
}

#[test]
fn entries_with_an_expiry_leave_the_disk_by_themselves() {
    let house = House::new();
    let (engine, store) = house.open();
    let batch = |lifetime_ms, name: &[u8]| {
        Batch::new().lifetime(two_stores::ttl(lifetime_ms)).append(&store, name, BODY)
    };
    for _ in 0..20 {
        engine.submit(batch(5000, b"brief")).expect("queued").wait().expect("commits");
    }
    engine.submit(batch(u64::MAX, b"long")).expect("queued").wait().expect("commits");
    fill(&store, b"ever", 3);
    engine.flush().expect("flushes");
    house.clock.pass(4999);
    assert_eq!(sequences(&store, b"brief").len(), 20);
    house.clock.pass(5001);
    soon("four are left", || house.bodies() == 4);
    assert_eq!(figure(&engine, "expired_total"), 20);
    assert_eq!((sequences(&store, b"brief"), sequences(&store, b"long")), (vec![], vec![1]));
    assert_eq!(store.append(b"brief", b"x").expect("appends"), 21);
}

#[test]
fn a_power_cut_anywhere_in_a_rewrite_loses_nothing_and_brings_nothing_back() {
    let house = House::new();
    let (engine, store) = house.open();
    let targets: [&[u8]; 2] = [b"t", b"kept"];
    for number in 1..=10 {
        let body = format!("shared {number}");
        let batch = Batch::new().fan_out(body.as_bytes(), targets.map(|name| (&store, name)));
        engine.submit(batch).expect("queued").wait().expect("commits");
        store.append(b"alone", b"x").expect("appends");
    }
    engine.flush().expect("flushes");
    assert_eq!(store.trim(b"t", Trim::Keep(2)).expect("trims"), 8);
    assert_eq!(store.trim(b"kept", Trim::Keep(3)).expect("trims"), 7);
    assert!(store.drop_timeline(b"alone").expect("drops"));
    house.disk.mark(0);
    engine.flush().expect("flushes");
    soon("it is rewritten", || figure(&engine, "rewrite_reclaimed_bytes") > 0);
    drop((engine, store));
    let (mut model, mut started, mut states) = (Model::default(), false, 0);
    for op in house.disk.log() {
        model.apply(&op, None);
        started |= matches!(op, Op::Mark(0));
        for cut in Cut::ALL.into_iter().filter(|_| started) {
            let disk = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(states)));
            let (engine, store) = House { disk, ..house.alike() }.open();
            assert_eq!(
                (sequences(&store, b"t"), sequences(&store, b"alone")),
                (vec![9, 10], vec![])
            );
            assert_eq!(sequences(&store, b"kept"), [8, 9, 10]);
            assert_eq!(store.get(b"kept", 8).expect("reads").expect("is there").body, "shared 8");
            assert_eq!(store.append(b"alone", b"x").expect("appends"), 11);
            assert_eq!(figure(&engine, "damaged_segments"), 0);
            states += 1;
        }
    }
    println!("{states} states");
    assert!(states > 50);
}

#[test]
fn sequences_continue_after_all_was_trimmed_and_the_process_was_killed_twice() {
    let ways: [fn(&Store); 2] = [
        |store| assert_eq!(store.trim(b"t", Trim::Before(u64::MAX)).expect("trims"), 10),
        |store| assert!(store.drop_timeline(b"t").expect("drops")),
    ];
    for remove in ways {
        let house = House::new();
        let (engine, store) = house.open();
        fill(&store, b"t", 10);
        engine.flush().expect("flushes");
        remove(&store);
        engine.compact().expect("merges");
        soon("it has left the disk", || house.bodies() == 0);
        drop((engine, store));
        for _ in 0..2 {
            drop(house.open());
        }
        let (_engine, store) = house.open();
        assert_eq!(
            (sequences(&store, b"t"), store.append(b"t", b"x").expect("appends")),
            (vec![], 11)
        );
    }
}

#[test]
fn merging_that_pauses_for_days_blocks_nobody() {
    let house = House { options: House::new().options.compact_bytes_per_second(1), ..House::new() };
    let (engine, store) = house.open();
    let short = engine.create_store("short", two_stores::ttl(TTL_MS)).expect("creates");
    for round in 0..8 {
        fill(&store, b"t", 20);
        short.append(b"s", BODY).expect("appends");
        engine.flush().expect("flushes");
        assert_eq!(sequences(&store, b"t").len(), 20 * (round + 1));
    }
    house.clock.pass(TTL_MS + 2000);
    soon("what has expired goes meanwhile", || figure(&engine, "expired_segments") > 0);
    assert_eq!(figure(&engine, "merges"), 0);
    assert!(figure(&engine, "compaction_debt_bytes") > 160 * BODY.len() as u64);
    fill(&store, b"t", 5);
    engine.close().expect("closes, and does not wait for days");
}

#[test]
fn a_merge_that_rests_continues_at_once_when_its_rate_is_raised() {
    let house = House { options: House::new().options.compact_bytes_per_second(1), ..House::new() };
    let (engine, store) = house.open();
    for _ in 0..8 {
        fill(&store, b"t", 20);
        engine.flush().expect("flushes");
    }
    soon("a merge is due", || figure(&engine, "compaction_debt_bytes") > 0);
    assert_eq!(figure(&engine, "merges"), 0, "it would take days");
    engine.set_compact_bytes_per_second(0);
    soon("it is done", || figure(&engine, "merges") > 0);
    engine.close().expect("closes");
}

#[test]
fn without_room_merging_waits_and_reports_it_and_continues_when_there_is_room() {
    let house = House::new();
    let (engine, store) = house.open();
    // Seven segments; the eighth arrives when there is room for itself only.
    for round in 0..8 {
        if round == 7 {
            let named = house.disk.contents().files;
            let used: usize =
                named.values().map(|content| content.len().next_multiple_of(4096)).sum();
            house.disk.set_capacity(Some(used as u64 + 150_000));
        }
        fill(&store, b"t", 15);
        engine.flush().expect("flushes");
    }
    soon("it waits", || figure(&engine, "merges_wait_for_space") == 1);
    let refused = engine.compact().expect_err("nor is there room for what was asked for");
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert_eq!((figure(&engine, "merges"), figure(&engine, "poisoned")), (0, 0));
    assert_eq!(store.append(b"t", b"x").expect("appends go on"), 121);
    assert_eq!(sequences(&store, b"t").len(), 121);
    house.disk.set_capacity(None);
    soon("it goes on", || {
        figure(&engine, "merges") == 1 && figure(&engine, "merges_wait_for_space") == 0
    });
    assert_eq!(sequences(&store, b"t").len(), 121);
}

/// Appends until the disk is full.
fn to_the_brim(store: &Store) -> usize {
    let mut count = 0;
    let refusal = loop {
        match store.append(b"t", BODY) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, Error::DiskFull { .. }), "{refusal}");
    count
}

#[test]
fn a_disk_without_a_free_byte_is_opened_and_expiry_makes_space() {
    let house = House::new();
    house.disk.set_capacity(Some(1024 * 1024));
    let (engine, _) = house.open();
    let store = engine.create_store("short", two_stores::ttl(TTL_MS)).expect("creates");
    let count = to_the_brim(&store);
    drop((engine, store));
    let _not_ours = house.fill_up();
    for _ in 0..3 {
        let (engine, _) = house.open();
        let store = engine.store("short").expect("is there");
        assert_eq!(sequences(&store, b"t").len(), count, "reads go on");
        assert_eq!(figure(&engine, "reserve_is_out"), 1);
        let refused = store.append(b"t", b"x").expect_err("the space is for getting space back");
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    }
    let (engine, _) = house.open();
    let store = engine.store("short").expect("is there");
    house.clock.pass(TTL_MS + 2000);
    let mut given = Err(Error::SequenceExhausted);
    soon("appends are taken again", || {
        given = store.append(b"t", b"x");
        given.is_ok()
    });
    assert_eq!(given.expect("appends"), count as u64 + 1);
    assert_eq!((figure(&engine, "reserve_is_out"), figure(&engine, "poisoned")), (0, 0));
    // The log file that holds the rest is removed when the later appends are old enough.
    house.clock.pass(10_000);
    soon("all of it leaves", || house.bodies() == 0);
}

#[test]
fn trimming_on_a_disk_without_a_free_byte_makes_space() {
    for reopened in [false, true] {
        let house = House::new();
        house.disk.set_capacity(Some(1024 * 1024));
        let (mut engine, mut store) = house.open();
        let count = to_the_brim(&store);
        let _not_ours = house.fill_up();
        if reopened {
            drop((engine, store));
            (engine, store) = house.open();
        }
        assert_eq!(store.trim(b"t", Trim::Keep(1)).expect("trims"), count as u64 - 1);
        let mut given = Err(Error::SequenceExhausted);
        soon("appends are taken again", || {
            given = store.append(b"t", b"x");
            given.is_ok()
        });
        assert_eq!(given.expect("appends"), count as u64 + 1);
        house.clock.pass(61_000);
        soon("the disk falls", || house.bodies() < 10);
        assert_eq!(figure(&engine, "poisoned"), 0);
        assert_eq!(sequences(&store, b"t"), [count as u64, count as u64 + 1]);
        drop((engine, store));
        let (_engine, store) = house.open();
        assert_eq!(sequences(&store, b"t"), [count as u64, count as u64 + 1]);
    }
}

/// Other files take the remaining space, except this much.
fn fill_up_to(house: &House, left_bytes: u64) -> strandline::vfs::File {
    let file = house.dir().create("not ours").expect("creates");
    while house.disk.free_bytes() > left_bytes {
        let end = file.len().expect("measures").next_multiple_of(4096);
        file.write(end, &vec![1; (house.disk.free_bytes() - left_bytes) as usize])
            .expect("there is space");
    }
    file
}

#[test]
fn dead_data_leaves_a_disk_that_has_room_only_for_live_data() {
    // One wholly dead, one with a tenth alive. The log alone needs more than what is free.
    for (kept, reopened) in [(0, false), (0, true), (10, false), (10, true)] {
        let house = House::new();
        let (mut engine, mut store) = house.open();
        fill(&store, b"t", 100);
        engine.compact().expect("one segment");
        soon("it is all in one", || figure(&engine, "segments") == 1);
        house.disk.set_capacity(Some(1024 * 1024));
        let _not_ours = fill_up_to(&house, 80 * 1024);
        assert_eq!(store.trim(b"t", Trim::Keep(kept)).expect("trims"), 100 - kept);
        engine.flush().expect("flushes");
        if reopened {
            drop((engine, store));
            (engine, store) = house.open();
        }
        soon("its space comes back", || house.bodies() == kept as usize);
        assert_eq!(figure(&engine, "reserve_is_out"), 0, "nor was the reserve needed for it");
        assert_eq!(sequences(&store, b"t"), (101 - kept..=100).collect::<Vec<_>>());
        let page = store.read_after(b"t", 0, Limit::entries(1)).expect("reads");
        assert_eq!((page.verdict, page.last), (strandline::Verdict::Trimmed, 100));
        assert_eq!(engine.verify(|_, _| {}).expect("verifies").findings, []);
        drop((engine, store));
        for _ in 0..2 {
            drop(house.open());
        }
        let (_engine, store) = house.open();
        assert_eq!(store.append(b"t", b"x").expect("appends"), 101);
    }
}

#[test]
fn commits_wait_when_merging_is_far_behind_and_it_no_longer_pauses() {
    let house = House { options: House::new().options.compact_bytes_per_second(1), ..House::new() };
    let (engine, store) = house.open();
    let mut most_segments = 0;
    for _ in 0..250 {
        // About one memtable.
        fill(&store, b"t", 20);
        most_segments = most_segments.max(figure(&engine, "segments"));
    }
    println!("{most_segments} segments, {} stalls", figure(&engine, "write_stalls"));
    assert!(figure(&engine, "flushes") > 200, "{} flushes", figure(&engine, "flushes"));
    assert!((100..150).contains(&most_segments), "{most_segments} segments");
    assert!(figure(&engine, "merges") > 0 && figure(&engine, "write_stalls") > 0);
    assert_eq!(store.info(b"t").expect("reads").count, 250 * 20);
    engine.close().expect("closes");
}

/// Takes all the space of a real disk.
fn fill_up_really(dir: &Dir) {
    let file = dir.create("not ours").expect("creates");
    let mut end = 0;
    for piece in [1024 * 1024, 4096] {
        while file.write(end, &vec![1; piece]).is_ok() {
            end += piece as u64;
        }
    }
}

/// Needs a file system of some tens of megabytes that no other process writes to: docs/testing.md
/// has the command.
#[test]
#[ignore = "needs a small file system, named by STRANDLINE_SMALL_DISK"]
fn a_real_disk_without_a_free_byte_is_opened_read_trimmed_and_written_again() {
    let path =
        std::env::var_os("STRANDLINE_SMALL_DISK").expect("STRANDLINE_SMALL_DISK names a directory");
    let path = std::path::PathBuf::from(path).join("engine");
    let options = two_stores::options().memory_budget_bytes(8 << 20).wal_file_bytes(1 << 20);
    let open = || {
        let engine = Engine::open(&path, options.clone()).expect("opens");
        let store = engine.store("messages").expect("is there");
        (engine, store)
    };
    let (engine, store) = open();
    let short = engine.create_store("short", two_stores::ttl(3000)).expect("creates");
    for _ in 0..200 {
        short.append(b"s", BODY).expect("appends");
    }
    let count = to_the_brim(&store) as u64;
    drop((engine, store, short));
    let dir = Dir::new(Arc::new(DiskDirectory::open(&path).expect("opens")));
    fill_up_really(&dir);
    let (engine, store) = open();
    println!("{count} appends; then {} bytes are free", dir.free_bytes().expect("measures"));
    let last = store.last(b"t").expect("reads").map(|entry| entry.sequence);
    assert_eq!(last, Some(count));
    soon("what has expired goes", || figure(&engine, "expired_segments") > 0);
    assert_eq!(store.trim(b"t", Trim::Keep(5)).expect("trims"), count - 5);
    let mut given = Err(Error::SequenceExhausted);
    soon("appends are taken again", || {
        given = store.append(b"t", b"x");
        given.is_ok()
    });
    assert_eq!(given.expect("appends"), count + 1);
    engine.close().expect("closes");
    drop((engine, store));
    let (_engine, store) = open();
    assert_eq!(sequences(&store, b"t"), (count - 4..=count + 1).collect::<Vec<_>>());
}
