//! Long timelines: the cost of a read is counted in blocks read from the disk, not in time, and
//! does not grow with the timeline.

use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::disk::DiskDirectory;
use strandline::{Batch, Engine, Limit, Sequence, Store, World};

use crate::two_stores;

const START_MS: u64 = 1_700_000_000_000;
const ENTRIES: u64 = 2_000_000;
const IN_A_BATCH: u64 = 5_000;

struct House {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl House {
    fn new() -> House {
        House {
            dir: tempfile::tempdir().expect("a directory"),
            clock: Arc::new(ManualClock::at(START_MS)),
        }
    }

    /// An engine that has read nothing yet.
    fn open(&self) -> (Engine, Store) {
        let raw = DiskDirectory::open(self.dir.path()).expect("is there");
        let world = World { dir: Dir::new(Arc::new(raw)), clock: self.clock.clone() };
        let engine = Engine::open_in(world, two_stores::options()).expect("opens");
        let store = engine.store("messages").expect("is there");
        (engine, store)
    }

    /// The result of a call on a timeline that was not read before, and how many blocks it reads.
    fn cold<T>(&self, call: impl FnOnce(&Store) -> T) -> (T, u64) {
        let (engine, store) = self.open();
        let result = call(&store);
        (result, engine.stats().block_reads)
    }
}

fn body(sequence: Sequence) -> Vec<u8> {
    format!("{sequence:>100}").into_bytes()
}

/// The time of a batch: the clock moves by two per batch.
fn time_of(sequence: Sequence) -> u64 {
    START_MS + 2 * ((sequence - 1) / IN_A_BATCH)
}

#[test]
fn reads_of_a_timeline_of_thousands_of_blocks_cost_a_handful() {
    let house = House::new();
    let (engine, store) = house.open();
    for first in (1..=ENTRIES).step_by(IN_A_BATCH as usize) {
        let batch = (first..first + IN_A_BATCH)
            .fold(Batch::new(), |batch, sequence| batch.append(&store, b"long", body(sequence)));
        engine
            .submit(batch.append(&store, b"short", b"small"))
            .expect("queued")
            .wait()
            .expect("committed");
        house.clock.pass(2);
    }
    engine.compact().expect("merges");
    assert!(engine.stats().segment_bytes > 3000 * 16 * 1024);
    engine.close().expect("closes");

    // An index page, the run table's root and one of its leaves, and the block.
    let most = 4;
    for sequence in [1, 2, 777, ENTRIES / 2, ENTRIES - 1, ENTRIES] {
        let (entry, reads) = house.cold(|store| store.get(b"long", sequence).expect("reads"));
        let entry = entry.expect("is there");
        assert_eq!((&entry.body[..], entry.time_ms), (&body(sequence)[..], time_of(sequence)));
        assert!(reads <= most, "{reads} reads for sequence {sequence}");
        for time_ms in [time_of(sequence), time_of(sequence) - 1] {
            let (found, reads) =
                house.cold(|store| store.sequence_at(b"long", time_ms).expect("reads"));
            assert_eq!(found, (sequence - 1) / IN_A_BATCH * IN_A_BATCH + 1);
            // Equal times may begin in the block before.
            assert!(reads <= most + 2, "{reads} reads for the time of sequence {sequence}");
        }
    }
    let (last, reads) = house.cold(|store| store.last(b"long").expect("reads"));
    assert_eq!(last.map(|entry| entry.sequence), Some(ENTRIES));
    assert!(reads <= most, "{reads} reads for the last");
    let (page, reads) =
        house.cold(|store| store.range_back(b"long", .., Limit::entries(50)).expect("reads"));
    assert!(page.entries.iter().map(|entry| entry.sequence).eq((ENTRIES - 49..=ENTRIES).rev()));
    assert!(reads <= most + 1, "{reads} reads for fifty");
    let (page, _) =
        house.cold(|store| store.range(b"long", .., Limit::entries(usize::MAX)).expect("reads"));
    assert!(page.entries.iter().map(|entry| entry.sequence).eq(1..=ENTRIES));
    let (entry, reads) = house.cold(|store| store.get(b"long", ENTRIES + 1).expect("reads"));
    assert!(entry.is_none() && reads <= most, "{reads} reads for what is not there");
    // The neighbour's entry is in the same page: it is as small as it would be alone.
    let (last, reads) = house.cold(|store| store.last(b"short").expect("reads"));
    assert_eq!(last.map(|entry| entry.sequence), Some(ENTRIES / IN_A_BATCH));
    assert!(reads <= 2, "{reads} reads for a small timeline");
}

#[test]
fn the_time_of_entries_in_shared_bodies_is_found_by_binary_search() {
    let house = House::new();
    let (engine, store) = house.open();
    for number in 0..20_000u64 {
        let inboxes = [b"a".as_slice(), b"b"].map(|name| (&store, name));
        let batch = Batch::new().fan_out([7; 200], inboxes);
        let ticket = engine.submit(batch).expect("queued");
        if number % 100 == 99 {
            ticket.wait().expect("committed");
            house.clock.pass(10);
        }
    }
    engine.close().expect("closes");
    let (found, reads) =
        house.cold(|store| store.sequence_at(b"b", START_MS + 999).expect("reads"));
    let (before, _) = house.cold(|store| store.get(b"b", found - 1).expect("reads"));
    let (after, _) = house.cold(|store| store.get(b"b", found).expect("reads"));
    let times = [before, after].map(|entry| entry.expect("is there").time_ms);
    assert!(times[0] < START_MS + 999 && times[1] >= START_MS + 999, "{found}: {times:?}");
    // Of 250 blocks of bodies, as many as a binary search in a block of up to 16,384 entries needs.
    assert!(reads <= 4 + 14, "{reads} reads");
}
