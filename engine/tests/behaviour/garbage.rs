//! Garbage of every kind (P2, P6, P8): a body that no entry shows any more leaves the disk,
//! including one written by an edit.
//!
//! The disk is simulated; the tests count files and bytes, never time.

use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};
use strandline::{Batch, Error, Limit, Store, Trim, salvage_in};

use crate::two_stores;
use crate::world::{House, figure, soon};

/// The body of an edit, much larger than the one that it replaces.
static LARGE: [u8; 20_000] = [b'~'; 20_000];

impl House {
    /// Another with the same clock and settings, and this disk.
    fn on(&self, disk: SimulatedDisk) -> House {
        House { disk, clock: self.clock.clone(), options: self.options.clone() }
    }

    /// The total size of the segment files in bytes.
    fn segment_bytes(&self) -> usize {
        let contents = self.disk.contents();
        let segments = contents.files.iter().filter(|(name, _)| name.starts_with("segment-"));
        segments.map(|(_, bytes)| bytes.len()).sum()
    }

    fn soon(&self, what: &str, mut holds: impl FnMut(&House) -> bool) {
        soon(what, || holds(self));
    }
}

fn fill(store: &Store, timeline: &[u8], count: usize, body: &[u8]) {
    for _ in 0..count {
        store.append(timeline, body).expect("appends");
    }
}

fn edit_all(store: &Store, timeline: &[u8], count: u64, body: &[u8]) {
    for sequence in 1..=count {
        assert!(store.edit(timeline, sequence, body).expect("edits"), "{sequence}");
    }
}

fn sequences(store: &Store, timeline: &[u8]) -> Vec<u64> {
    let page = store.range(timeline, .., Limit::entries(1000)).expect("reads");
    page.entries.iter().map(|entry| entry.sequence).collect()
}

type Way = (&'static str, fn(&Store));

#[test]
fn edited_bodies_leave_the_disk_when_their_entries_are_dropped_trimmed_or_deleted() {
    let ways: [Way; 3] = [
        ("drop", |store| assert!(store.drop_timeline(b"t").expect("drops"))),
        ("trim", |store| assert_eq!(store.trim(b"t", Trim::Keep(0)).expect("trims"), 50)),
        ("delete", |store| {
            let all: Vec<u64> = (1..=50).collect();
            assert_eq!(store.delete(b"t", &all).expect("deletes"), 50);
        }),
    ];
    for (way, remove) in ways {
        let house = House::new();
        let (engine, store) = house.open();
        fill(&store, b"t", 50, b"small");
        fill(&store, b"other", 3, b"small");
        engine.flush().expect("flushes");
        edit_all(&store, b"t", 50, &LARGE);
        engine.flush().expect("flushes");
        assert!(house.segment_bytes() > 50 * LARGE.len());
        remove(&store);
        house.clock.pass(61_000);
        house.soon(way, |house| house.segment_bytes() < LARGE.len());
        assert_eq!(
            (sequences(&store, b"t"), sequences(&store, b"other").len()),
            (vec![], 3),
            "{way}"
        );
        assert_eq!(figure(&engine, "compaction_debt_bytes"), 0, "{way}");
        assert_eq!(store.append(b"t", b"x").expect("appends"), 51, "{way}");
        drop((engine, store));
        let (_engine, store) = house.open();
        assert_eq!(sequences(&store, b"t"), [51], "{way}");
    }
}

#[test]
fn repeated_edits_stay_within_twice_the_live_data() {
    let house = House::new();
    let (engine, store) = house.open();
    let count = 20;
    fill(&store, b"t", count as usize, b"small");
    engine.flush().expect("flushes");
    let (mut most_files, mut most_bytes) = (0, 0);
    for round in 0..60 {
        for sequence in 1..=count {
            let body = [&LARGE[..8000], format!(" {round}").as_bytes()].concat();
            assert!(store.edit(b"t", sequence, &body).expect("edits"));
        }
        (most_files, most_bytes) =
            (most_files.max(house.files("").len()), most_bytes.max(house.segment_bytes()));
    }
    let alive = count as usize * 8000;
    println!("at most {most_files} files and {most_bytes} bytes for {alive} alive");
    // The bound of garbage in a small store: eight memtables.
    assert!(
        most_files < 200 && most_bytes < 2 * alive + 2 * 8 * 64 * 1024,
        "{most_files} {most_bytes}"
    );
    engine.flush().expect("flushes");
    house.soon("half of it is dead at most", |house| house.segment_bytes() < 2 * alive + 16_384);
    for sequence in 1..=count {
        let body = store.get(b"t", sequence).expect("reads").expect("is there").body;
        assert!(body.ends_with(b" 59"), "{sequence} has its newest body");
    }
    assert_eq!(engine.verify(|_, _| {}).expect("verifies").findings, []);
}

#[test]
fn an_edited_entry_that_expires_by_itself_takes_its_edit_with_it() {
    let house = House::new();
    let (engine, store) = house.open();
    for _ in 0..10 {
        let batch = Batch::new().lifetime(two_stores::ttl(5000)).append(&store, b"brief", b"small");
        engine.submit(batch).expect("queued").wait().expect("commits");
    }
    fill(&store, b"ever", 2, b"small");
    engine.flush().expect("flushes");
    edit_all(&store, b"brief", 10, &LARGE);
    edit_all(&store, b"ever", 1, &LARGE);
    engine.flush().expect("flushes");
    house.clock.pass(4900);
    assert_eq!(sequences(&store, b"brief").len(), 10);
    assert!(house.segment_bytes() > 11 * LARGE.len());
    house.clock.pass(10_000);
    house.soon("one edit is left", |house| house.segment_bytes() < 2 * LARGE.len());
    assert_eq!(sequences(&store, b"brief"), []);
    assert_eq!(store.get(b"ever", 1).expect("reads").expect("is there").body, LARGE.as_slice());
    assert_eq!(store.append(b"brief", b"x").expect("appends"), 11);
    assert_eq!(engine.verify(|_, _| {}).expect("verifies").findings, []);
}

#[test]
fn entries_dropped_while_their_segment_is_rewritten_are_counted_for_the_output() {
    let options = House::new().options.compact_bytes_per_second(200 * 1024);
    let house = House { options, ..House::new() };
    let (engine, store) = house.open();
    fill(&store, b"t", 40, &LARGE);
    engine.compact().expect("one segment");
    edit_all(&store, b"t", 24, &vec![b'~'; 60_000]);
    engine.flush().expect("flushes");
    // The rewrite of the unedited entries is in progress and paused; or it is done, which makes no
    // difference.
    assert!(store.drop_timeline(b"t").expect("drops"));
    engine.flush().expect("flushes");
    house.soon("all of it leaves", |house| house.segment_bytes() < LARGE.len());
    assert_eq!((sequences(&store, b"t"), store.append(b"t", b"x").expect("appends")), (vec![], 41));
}

/// Ten entries, of which the first six were edited later and the first segment rewritten; and
/// another timeline.
fn edited_elsewhere(house: &House) {
    let (engine, store) = house.open();
    fill(&store, b"t", 10, &LARGE[..3000]);
    store.append(b"other", b"x").expect("appends");
    engine.flush().expect("flushes");
    edit_all(&store, b"t", 6, b"edited");
    engine.flush().expect("flushes");
    house.soon("it is rewritten", |_| figure(&engine, "rewrite_reclaimed_bytes") > 0);
    for sequence in 1..=10 {
        let body = store.get(b"t", sequence).expect("reads").expect("is there").body;
        assert_eq!(body == "edited", sequence <= 6, "{sequence}");
    }
    house.soon("what was merged", |house| house.segment_bytes() < 5 * 3000);
    engine.close().expect("closes");
}

/// The content of the disk, without the index of the segment with the edits: the rewritten one is
/// younger.
fn without_edits(house: &House) -> Image {
    let mut image = house.disk.contents();
    let names =
        image.files.keys().filter(|name| name.starts_with("segment-") && name.contains(".index"));
    let edits = names.min().expect("there are two").clone();
    image.files.remove(&edits);
    image
}

#[test]
fn an_entry_whose_edit_is_lost_is_damage_and_never_shown_with_another_body() {
    let house = House::new();
    edited_elsewhere(&house);
    let lost = house.on(SimulatedDisk::from_image(&without_edits(&house)));
    {
        let (_engine, store) = lost.open();
        let refused = store.get(b"t", 3).expect_err("its edit cannot be read");
        assert!(matches!(refused, Error::Corrupt { .. } | Error::Io { .. }), "{refused}");
    }
    let target = lost.on(SimulatedDisk::new());
    let report = salvage_in(&lost.dir(), &target.dir(), &two_stores::NAMES).expect("salvages");
    let (_engine, store) = target.open();
    assert_eq!(sequences(&store, b"t"), [7, 8, 9, 10]);
    assert_eq!(store.append(b"t", b"x").expect("appends"), 11);
    for sequence in 1..=6 {
        let is_it = |range: &Option<(u64, u64)>| *range == Some((sequence, sequence));
        assert!(
            report.findings.iter().any(|finding| is_it(&finding.sequences)),
            "{:?}",
            report.findings
        );
    }
}

#[test]
fn edits_in_another_segment_are_applied_when_both_are_merged() {
    let house = House::new();
    edited_elsewhere(&house);
    for _ in 0..2 {
        let (engine, store) = house.open();
        engine.compact().expect("merges");
        assert_eq!(figure(&engine, "segments"), 1);
        for sequence in 1..=10 {
            let body = store.get(b"t", sequence).expect("reads").expect("is there").body;
            assert_eq!(body == "edited", sequence <= 6, "{sequence}");
        }
        assert_eq!(engine.verify(|_, _| {}).expect("verifies").findings, []);
    }
}

#[test]
fn a_power_cut_anywhere_in_the_removal_of_dead_data_loses_nothing_and_brings_nothing_back() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"kept", 5, b"small");
    engine.flush().expect("flushes");
    fill(&store, b"t", 10, &LARGE[..3000]);
    engine.flush().expect("flushes");
    edit_all(&store, b"kept", 2, b"edited");
    assert_eq!(store.delete(b"t", &[4]).expect("deletes"), 1);
    assert_eq!(store.trim(b"t", Trim::Keep(0)).expect("trims"), 9);
    house.disk.mark(0);
    engine.flush().expect("flushes");
    house.soon("it is gone", |house| house.segment_bytes() < 3000);
    drop((engine, store));
    let (mut model, mut started, mut states) = (Model::default(), false, 0);
    for op in house.disk.log() {
        model.apply(&op, None);
        started |= matches!(op, Op::Mark(0));
        for cut in Cut::ALL.into_iter().filter(|_| started) {
            let cut_off =
                house.on(SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(states))));
            let (engine, store) = cut_off.open();
            assert_eq!(
                (sequences(&store, b"t"), sequences(&store, b"kept")),
                (vec![], vec![1, 2, 3, 4, 5])
            );
            assert_eq!(store.get(b"kept", 2).expect("reads").expect("is there").body, "edited");
            assert_eq!(store.info(b"t").expect("reads").trimmed_to, 10);
            assert_eq!(store.append(b"t", b"x").expect("appends"), 11);
            assert_eq!(figure(&engine, "damaged_segments"), 0);
            states += 1;
        }
    }
    println!("{states} states");
    assert!(states > 50);
}

#[test]
fn bodies_that_were_changed_for_all_their_entries_leave_the_disk_and_so_do_the_changes() {
    let house = House::new();
    let (engine, store) = house.open();
    let commit =
        |batch: Batch| drop(engine.submit(batch).expect("queued").wait().expect("commits"));
    let fan_out = |body: &[u8]| {
        commit(Batch::new().fan_out(body, [b"a".as_slice(), b"b"].map(|name| (&store, name))));
    };
    let change_all = |body: &[u8]| {
        for sequence in 1..=50 {
            let key = store.body_of(b"a", sequence).expect("reads").expect("it is shared");
            commit(Batch::new().edit_body(key, [&store], body));
        }
        engine.flush().expect("flushes");
    };
    // Other data in the same segment stays.
    fill(&store, b"other", 200, &[b'o'; 100]);
    (0..50).for_each(|_| fan_out(&LARGE));
    engine.flush().expect("flushes");
    assert!(house.segment_bytes() > 50 * LARGE.len());
    change_all(b"small");
    house.clock.pass(61_000);
    house.soon("what was replaced", |house| house.segment_bytes() < 5 * LARGE.len());
    for _ in 0..4 {
        change_all(&LARGE);
    }
    house.clock.pass(61_000);
    house.soon("changes over changes", |house| house.segment_bytes() < 3 * 50 * LARGE.len());
    assert_eq!(store.get(b"b", 7).expect("reads").expect("is there").body, LARGE.as_slice());
    for name in [b"a", b"b"] {
        assert!(store.drop_timeline(name).expect("drops"));
    }
    engine.flush().expect("flushes");
    house.clock.pass(61_000);
    house.soon("changes of what is gone", |house| house.segment_bytes() < 5 * LARGE.len());
    assert_eq!(sequences(&store, b"other").len(), 200);
    house.soon("no debt", |_| figure(&engine, "compaction_debt_bytes") == 0);
    assert_eq!(engine.verify(|_, _| ()).expect("verifies").findings, []);
}
