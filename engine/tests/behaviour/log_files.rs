//! Log files that are used again, and the way of dead bytes out of the log (P1, P3, P8).

use std::path::Path;

use strandline::format::header::FileHeader;
use strandline::format::wal::{GroupHeader, SECTOR_BYTES, WAL_HEADER_BYTES};
use strandline::vfs::simulated::{Image, Op, SimulatedDisk};
use strandline::{Batch, Durability, Engine, Limit, Lsn, Store, Trim};

use crate::short::TTL_MS;
use crate::two_stores::{self, WEEK_MS};
use crate::world::{House, figure, soon};

const FILE_BYTES: u64 = 128 * 1024;

/// A memtable is half as large as a log file.
fn house() -> House {
    House::with(two_stores::options().memory_budget_bytes(1).wal_file_bytes(FILE_BYTES))
}

/// Appends bodies of a kilobyte, and lets each flush end before the next memtable is full.
fn append(engine: &Engine, store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut body = vec![b'~'; 1000];
        body[..8].copy_from_slice(&number.to_le_bytes());
        store.append(b"t", &body).expect("appends");
        soon("it is flushed", || figure(engine, "sealed_memtables") == 0);
    }
}

/// The header of the newest log file, its name, and its content.
fn newest(image: &Image) -> (FileHeader, String, &[u8]) {
    let logs = image.files.iter().filter(|(name, _)| name.starts_with("wal-0"));
    let (name, content) = logs.max_by_key(|(name, _)| *name).expect("there is a log");
    let header = FileHeader::decode(content, Path::new("")).expect("a header");
    (header, name.clone(), content)
}

/// The last group of the newest log file: where it is in the file, and its length.
fn last_group(image: &Image) -> (usize, usize) {
    let (header, _, content) = newest(image);
    let mut last = None;
    for at in (WAL_HEADER_BYTES as usize..content.len()).step_by(SECTOR_BYTES as usize) {
        let lsn = Lsn(header.first + at as u64 - WAL_HEADER_BYTES);
        if let Some(group) = GroupHeader::decode(&content[at..], header.engine_id, lsn) {
            last = Some((at, group.group_bytes() as usize));
        }
    }
    last.expect("a group")
}

fn reopened(image: &Image) -> (House, Engine) {
    let house = House { disk: SimulatedDisk::from_image(image), ..house() };
    let engine = house.engine();
    (house, engine)
}

fn last(engine: &Engine) -> u64 {
    let store = engine.store("messages").expect("is there");
    let page = store.read_after(b"t", 0, Limit::entries(usize::MAX)).expect("reads");
    assert!((1..).zip(&page.entries).all(|(sequence, entry)| entry.sequence == sequence));
    page.entries.len() as u64
}

/// An engine whose active log file was used before.
fn with_a_file_in_use_again() -> (House, Engine, Store, u64) {
    let house = house();
    let (engine, store) = house.open();
    let mut appended = 0;
    while newest(&house.disk.contents()).0.third == 0 {
        append(&engine, &store, appended..appended + 10);
        appended += 10;
        assert!(appended < 2000, "no log file was used again");
    }
    (house, engine, store, appended)
}

#[test]
fn a_busy_log_creates_no_files_and_writes_no_zeros_once_old_files_become_free() {
    let (house, engine, store, appended) = with_a_file_in_use_again();
    let created = || {
        let log = house.disk.log();
        let created = |op: &&Op| matches!(op, Op::Create { name, .. } if name.starts_with("wal-"));
        log.iter().filter(created).count()
    };
    let zeros = figure(&engine, "wal_prepared_bytes");
    assert!(zeros <= 3 * FILE_BYTES, "{zeros} bytes of zeros");
    let (first, before) = (newest(&house.disk.contents()).0, created());
    append(&engine, &store, appended..appended + 1000);
    let now = newest(&house.disk.contents()).0;
    assert!(now.number > first.number && now.first - first.first > 7 * FILE_BYTES);
    assert_eq!((created(), figure(&engine, "wal_prepared_bytes")), (before, zeros));
    assert_eq!(last(&engine), appended + 1000);
}

#[test]
fn old_groups_in_a_file_that_is_used_again_are_neither_replayed_nor_reported() {
    let (house, engine, store, appended) = with_a_file_in_use_again();
    for number in appended..appended + 100 {
        append(&engine, &store, number..number + 1);
        let (_house, engine) = reopened(&house.disk.contents());
        assert_eq!((last(&engine), engine.recovery().torn_tail_bytes), (number + 1, 0));
    }
}

#[test]
fn a_torn_group_in_a_file_that_is_used_again_is_reported_and_the_group_before_it_is_the_last() {
    let (house, engine, store, appended) = with_a_file_in_use_again();
    append(&engine, &store, appended..appended + 1);
    drop((engine, store));
    let image = house.disk.contents();
    let (_, name, _) = newest(&image);
    let (at, bytes) = last_group(&image);
    // The header is whole, or it is not, or nothing of it was written.
    for (changed, torn) in [(at + bytes - 9, bytes), (at + 30, SECTOR_BYTES as usize), (at, 0)] {
        let mut image = image.clone();
        image.files.get_mut(&name).expect("is there")[changed] ^= 1;
        let (_house, engine) = reopened(&image);
        assert_eq!((last(&engine), engine.recovery().torn_tail_bytes), (appended, torn as u64));
    }
}

#[test]
fn a_seal_because_of_time_goes_on_in_the_same_log_file() {
    let house = house();
    let (engine, store) = house.open_short();
    let name = newest(&house.disk.contents()).1;
    for number in 1..=5 {
        store.append(b"t", b"x").expect("appends");
        house.clock.pass(TTL_MS / 8);
        soon("it is flushed", || figure(&engine, "flushes") == number);
        assert_eq!(newest(&house.disk.contents()).1, name);
    }
    assert_eq!((figure(&engine, "wal_files"), figure(&engine, "wal_prepared_bytes")), (1, 0));
    drop((engine, store));
    let (_engine, store) = house.open_short();
    assert_eq!(store.end(b"t").expect("reads").0, 5);
}

impl House {
    /// Whether a file has these bytes.
    fn has(&self, bytes: &[u8]) -> bool {
        let files = self.disk.contents().files;
        files.values().any(|content| has(content, bytes))
    }
}

fn has(content: &[u8], bytes: &[u8]) -> bool {
    content.windows(bytes.len()).any(|window| window == bytes)
}

const SECRET: &[u8] = b"a body that must leave the disk";

#[test]
fn expired_bytes_leave_the_log_of_an_idle_engine_in_time() {
    let house = house();
    let (engine, store) = house.open_short();
    store.append(b"t", SECRET).expect("appends");
    house.clock.pass(TTL_MS / 8);
    soon("it is flushed", || figure(&engine, "flushes") == 1);
    house.clock.pass(TTL_MS - TTL_MS / 8);
    let partition_ms = (TTL_MS / 64).max(1000);
    house.clock.pass(partition_ms);
    soon("nothing of it is on the disk", || !house.has(SECRET));
    let calls = house.disk.log_len();
    house.clock.pass(10 * TTL_MS);
    assert_eq!(store.append(b"t", b"x").expect("appends"), 2);
    assert!(house.disk.log_len() < calls + 30, "an idle engine does next to nothing");
}

#[test]
fn expired_bytes_leave_a_log_file_that_is_used_again_and_one_that_is_kept() {
    let house = house();
    let (engine, messages) = house.open();
    let sync = engine.store("sync").expect("is there");
    sync.append(b"t", SECRET).expect("appends");
    append(&engine, &messages, 0..500);
    assert!(newest(&house.disk.contents()).0.third == 1 || !house.files("wal-next").is_empty());
    house.clock.pass(WEEK_MS + WEEK_MS / 64);
    soon("nothing of it is on the disk", || !house.has(SECRET));
    soon("nor is an old file", || house.files("wal-next").is_empty());
    // The waits before may end without the expiry: if no file is kept, and the file in use was
    // written over the secret.
    soon("the log is in a new file", || newest(&house.disk.contents()).0.third == 0);
}

#[test]
fn a_log_file_with_entries_that_have_their_own_expiry_is_not_kept() {
    let (house, engine, store, mut appended) = with_a_file_in_use_again();
    let batch = Batch::new().lifetime(two_stores::ttl(1000)).append(&store, b"brief", SECRET);
    engine.commit(batch).expect("commits");
    let (_, name, _) = newest(&house.disk.contents());
    while !house.files(&name).is_empty() {
        append(&engine, &store, appended..appended + 1);
        appended += 1;
    }
    let files = house.disk.contents().files;
    let mut logs = files.iter().filter(|(name, _)| name.starts_with("wal-"));
    assert!(!logs.any(|(_, content)| has(content, SECRET)), "its log file is not used again");
}

#[test]
fn compaction_leaves_nothing_of_what_was_trimmed_in_the_log() {
    let (house, engine, store, appended) = with_a_file_in_use_again();
    store.append(b"secret", SECRET).expect("appends");
    append(&engine, &store, appended..appended + 300);
    store.append(b"secret", SECRET).expect("appends");
    assert_eq!(store.trim(b"secret", Trim::Keep(0)).expect("trims"), 2);
    engine.compact().expect("merges");
    soon("nothing of it is on the disk", || !house.has(SECRET));
}

#[test]
fn a_full_disk_gets_the_space_of_the_file_that_is_kept() {
    let (house, engine, store, mut appended) = with_a_file_in_use_again();
    while house.files("wal-next").is_empty() {
        append(&engine, &store, appended..appended + 1);
        appended += 1;
    }
    house.disk.set_capacity(Some(house.bytes() as u64));
    let large = vec![b'~'; 90_000];
    let batch = || Batch::new().append(&store, b"large", &large).durability(Durability::Os);
    for _ in 0..20 {
        if engine.commit(batch()).is_err() {
            break;
        }
    }
    assert_eq!(house.files("wal-next"), Vec::<String>::new());
    assert_eq!(last(&engine), appended);
}
