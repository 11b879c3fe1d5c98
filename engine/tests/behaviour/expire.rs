//! Expiry (P2, P8): exact for readers, physical by unlink, without losing sequences, and no clock
//! destroys data.

use strandline::vfs::simulated::{Cut, Dice, Model, Op, SimulatedDisk};
use strandline::{Batch, Limit, Trim, Verdict};

use crate::short::{TTL_MS, sequences};
use crate::two_stores;
use crate::world::{House, START_MS, soon};

const DAY_MS: u64 = 24 * 3600 * 1000;

impl House {
    /// How many bytes of bodies' filler the disk holds, in any file. A few such bytes in a row may
    /// be a checksum.
    fn filler(&self) -> usize {
        let files = self.disk.contents().files;
        let rows = files.values().flat_map(|content| content.chunk_by(|one, other| one == other));
        rows.filter(|row| row[0] == b'~' && row.len() > 50).map(<[u8]>::len).sum()
    }
}

#[test]
fn an_entry_is_hidden_from_the_millisecond_of_its_expiry_and_its_bytes_are_removed() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"idle", [b'~'; 3000]).expect("appends");
    for _ in 0..10 {
        house.clock.pass(1000);
        store.append(b"busy", [b'~'; 100]).expect("appends");
    }
    engine.flush().expect("flushes");
    house.clock.pass(TTL_MS - 10_001);
    assert_eq!(sequences(&store, b"idle"), [1]);
    house.clock.pass(1);
    assert_eq!(sequences(&store, b"idle"), []);
    let page = store.read_after(b"idle", 0, Limit::entries(5)).expect("reads");
    assert_eq!((page.verdict, page.first, page.last, page.next), (Verdict::Trimmed, 2, 1, 1));
    house.clock.pass(5000);
    assert_eq!(sequences(&store, b"busy"), (6..=10).collect::<Vec<_>>());
    let info = store.info(b"busy").expect("reads");
    assert_eq!((info.first, info.last, info.count, info.trimmed_to), (6, 10, 5, 5));
    engine.compact().expect("drops");
    assert_eq!(
        store.info(b"busy").expect("reads"),
        info,
        "what is reported does not change with what the disk holds"
    );
    let page = store.read_after(b"idle", 0, Limit::entries(5)).expect("reads");
    assert_eq!((page.verdict, page.first, page.last, page.next), (Verdict::Trimmed, 2, 1, 1));
    // A file is removed when its last reader releases it, and the engine's own threads may be
    // reading at this moment.
    let gone = (0..10_000).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(1));
        house.filler() == 500
    });
    assert!(
        gone,
        "what has expired is gone, the idle timeline's too; there are {} bytes",
        house.filler()
    );
    assert_eq!(sequences(&store, b"busy"), (6..=10).collect::<Vec<_>>());
}

#[test]
fn sequences_continue_after_all_has_expired_and_the_process_was_killed_twice() {
    let house = House::new();
    let (engine, store) = house.open_short();
    for _ in 0..10 {
        store.append(b"t", b"x").expect("appends");
    }
    engine.flush().expect("flushes");
    // Many partitions expire after it, so that its remains are merged with others.
    for round in 0..20 {
        house.clock.pass(2000);
        store.append(format!("other {round}").as_bytes(), b"x").expect("appends");
        engine.flush().expect("flushes");
    }
    house.clock.pass(TTL_MS);
    engine.compact().expect("drops");
    assert!(engine.stats().expired_segments >= 20);
    engine.compact().expect("merges what is left");
    assert!(engine.stats().segments <= 2);
    drop((engine, store));
    for _ in 0..2 {
        drop(house.open_short());
    }
    let (_engine, store) = house.open_short();
    assert_eq!((sequences(&store, b"t"), store.append(b"t", b"x").expect("appends")), (vec![], 11));
    assert_eq!(store.append(b"other 3", b"x").expect("appends"), 2);
}

#[test]
fn a_power_cut_anywhere_in_expiry_forgets_no_sequence_and_shows_nothing_expired() {
    let house = House::new();
    let (engine, store) = house.open_short();
    for round in 0..12 {
        store.append(b"t", b"x").expect("appends");
        store.append(format!("other {round}").as_bytes(), b"x").expect("appends");
        engine.flush().expect("flushes");
        house.clock.pass(2000);
    }
    house.clock.pass(TTL_MS - 12_000);
    house.disk.mark(0);
    engine.compact().expect("drops and merges");
    drop((engine, store));
    let mut model = Model::default();
    let mut started = false;
    let mut states = 0;
    for op in house.disk.log() {
        model.apply(&op, None);
        started |= matches!(op, Op::Mark(0));
        for cut in Cut::ALL.into_iter().filter(|_| started) {
            let disk = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(states)));
            let cut_off =
                House { disk, clock: house.clock.clone(), options: house.options.clone() };
            let (_engine, store) = cut_off.open_short();
            assert_eq!(sequences(&store, b"t"), (8..=12).collect::<Vec<_>>());
            assert_eq!(store.append(b"t", b"x").expect("appends"), 13);
            assert_eq!(store.append(b"other 0", b"x").expect("appends"), 2);
            states += 1;
        }
    }
    println!("{states} states");
    assert!(states > 100);
}

#[test]
fn a_clock_that_jumps_hides_what_it_must_and_destroys_nothing() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    engine.flush().expect("flushes");
    house.clock.set(START_MS + 3650 * DAY_MS);
    engine.compact().expect("compacts");
    assert_eq!(sequences(&store, b"t"), [], "a reader goes by the wall clock");
    assert_eq!(engine.stats().expired_segments, 0);
    assert!(engine.stats().expiry_held_by_clock);
    drop((engine, store));
    let (engine, store) = house.open_short();
    engine.compact().expect("compacts");
    assert_eq!(engine.stats().expired_segments, 0, "nor after a restart");
    house.clock.set(START_MS + 1000);
    assert_eq!(sequences(&store, b"t"), [1], "when the clock is right again, it is there");
    for wrong_ms in [0, u64::from(u32::MAX) * 1000, u64::MAX / 2] {
        house.clock.set(wrong_ms);
        assert!(store.append(b"t", b"x").expect("appends") > 1);
        engine.compact().expect("compacts");
    }
    house.clock.set(START_MS + 2000);
    assert_eq!(store.append(b"t", b"x").expect("appends"), 5);
}

#[test]
fn a_flush_that_holds_changes_only_outlives_what_it_changes() {
    let house = House::new();
    let (engine, store) = house.open_short();
    for body in [b"1", b"2", b"3"] {
        store.append(b"t", body).expect("appends");
    }
    engine.flush().expect("flushes");
    house.clock.pass(2000);
    for round in 0..9 {
        assert!(store.edit(b"t", 2, format!("edit {round}").as_bytes()).expect("edits"));
        engine.flush().expect("flushes");
    }
    assert_eq!(store.delete(b"t", &[3]).expect("deletes"), 1);
    for _ in 0..3 {
        engine.compact().expect("compacts");
        assert_eq!(sequences(&store, b"t"), [1, 2]);
        assert_eq!(store.get(b"t", 2).expect("reads").expect("is there").body, "edit 8");
    }
    house.clock.pass(TTL_MS - 2000);
    engine.compact().expect("drops");
    assert_eq!((sequences(&store, b"t"), store.append(b"t", b"x").expect("appends")), (vec![], 4));
}

#[test]
fn a_trim_is_remembered_after_the_entries_that_it_kept_have_expired() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    assert_eq!(store.trim(b"t", Trim::Before(2)).expect("trims"), 1);
    let brief = Batch::new().lifetime(two_stores::ttl(1)).append(&store, b"t", b"brief");
    engine.submit(brief).expect("queued").wait().expect("commits");
    for round in 0..3 {
        engine.flush().expect("flushes");
        store.append(format!("other {round}").as_bytes(), b"x").expect("appends");
        house.clock.pass(2000);
    }
    house.clock.pass(TTL_MS);
    for _ in 0..2 {
        engine.compact().expect("drops, then merges what is left");
        let page = store.read_after(b"t", 0, Limit::entries(5)).expect("reads");
        assert_eq!((page.verdict, page.first, page.last), (Verdict::Trimmed, 3, 2));
        assert_eq!(store.info(b"t").expect("reads").trimmed_to, 1);
    }
}

#[test]
fn a_changed_ttl_applies_to_existing_entries_and_brings_nothing_back() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    engine.flush().expect("flushes");
    house.clock.pass(10_000);
    store.append(b"t", b"y").expect("appends");
    assert_eq!(sequences(&store, b"t"), [1, 2]);
    engine.set_store_ttl("short", two_stores::ttl(5000)).expect("sets");
    assert_eq!(sequences(&store, b"t"), [2]);
    for ttl_ms in [u64::MAX, 0] {
        engine.set_store_ttl("short", two_stores::ttl(ttl_ms)).expect("sets");
        assert_eq!(
            sequences(&store, b"t"),
            [2],
            "what had expired stays so, and a TTL that never ends expires nothing"
        );
        let page = store.read_after(b"t", 0, Limit::entries(5)).expect("reads");
        assert_eq!((page.verdict, page.first), (Verdict::Trimmed, 2));
        engine.flush().expect("flushes");
        assert_eq!(store.append(b"t", b"z").expect("appends"), if ttl_ms == 0 { 4 } else { 3 });
        store.delete(b"t", &[3, 4]).expect("deletes");
    }
    engine.compact().expect("merges");
    assert_eq!((sequences(&store, b"t"), store.append(b"t", b"x").expect("appends")), (vec![2], 5));
}

#[test]
fn appends_during_a_jump_and_a_restart_do_not_make_the_jump_trusted() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    engine.flush().expect("flushes");
    house.clock.set(START_MS + 365 * DAY_MS);
    store.append(b"other", b"x").expect("appends");
    engine.close().expect("closes");
    drop((engine, store));
    let (engine, store) = house.open_short();
    engine.compact().expect("compacts");
    house.clock.set(START_MS + 1000);
    assert_eq!(sequences(&store, b"t"), [1], "it was neither destroyed nor is it hidden");
}

#[test]
fn removed_entries_are_reported_after_the_clock_goes_back_before_their_expiry() {
    let house = House::new();
    let (engine, store) = house.open_short();
    for _ in 0..10 {
        store.append(b"t", [b'~'; 100]).expect("appends");
    }
    engine.flush().expect("flushes");
    house.clock.pass(TTL_MS + 1000);
    engine.compact().expect("drops");
    // A thread of the engine may still hold the view from before for a moment.
    soon("its bytes are gone", || house.filler() == 0);
    house.clock.set(START_MS);
    let mut engine = Some(engine);
    for _life in 0..2 {
        let engine = engine.take().unwrap_or_else(|| house.engine());
        let store = engine.store("short").expect("is there");
        let page = store.read_after(b"t", 0, Limit::entries(5)).expect("reads");
        assert_eq!((page.verdict, page.first, page.last), (Verdict::Trimmed, 11, 10));
        let info = store.info(b"t").expect("reads");
        assert_eq!((info.first, info.count, info.trimmed_to), (11, 0, 10));
        engine.close().expect("closes");
    }
}
