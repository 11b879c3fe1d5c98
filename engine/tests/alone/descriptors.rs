//! Few file descriptors (P7): whatever the number of stores, segments and engines, an engine works
//! with a small number of them.
//!
//! Each test lowers the limit of this process, `ulimit -n`, so the tests run one after another.
//! Data that was written is flushed, closed, opened again under the same limit, read and verified.

use std::path::Path;

use rlimit::Resource;
use strandline::{Engine, Error, Options, Store};

use crate::alone;
use crate::two_stores;

/// Runs `work` in a process that may have this many open files, the three standard ones included.
/// Files that the test runner holds open are not counted.
fn with_descriptors<T>(count: u64, work: impl FnOnce() -> T) -> T {
    let (soft, hard) = rlimit::getrlimit(Resource::NOFILE).expect("there is a limit");
    let limit = count + open_files().saturating_sub(3);
    rlimit::setrlimit(Resource::NOFILE, limit, hard).expect("lower");
    let restore = Restore(soft, hard);
    let done = work();
    drop(restore);
    done
}

/// The previous limit, restored also when a test fails.
struct Restore(u64, u64);

impl Drop for Restore {
    fn drop(&mut self) {
        rlimit::setrlimit(Resource::NOFILE, self.0, self.1).expect("as it was");
    }
}

fn open_files() -> u64 {
    let listed = Path::new("/proc/self/fd").read_dir().expect("there are some");
    // One of them is the listing itself.
    listed.count() as u64 - 1
}

/// Memtables of 1 MiB.
fn options() -> Options {
    two_stores::options().memory_budget_bytes(8 * 1024 * 1024)
}

fn open(dir: &Path, options: Options) -> Engine {
    Engine::open(dir, options).expect("opens")
}

fn stores(engine: &Engine, count: usize) -> Vec<Store> {
    (0..count)
        .map(|number| engine.create_store(&format!("s{number}"), None).expect("is made"))
        .collect()
}

/// A body whose first bytes identify its timeline.
fn body(store: usize, round: u64, bytes: usize) -> Vec<u8> {
    let mut body = format!("store {store} round {round} ").into_bytes();
    body.resize(body.len().max(bytes), b'.');
    body
}

/// Appends to each store, `rounds` times.
fn append(stores: &[Store], rounds: std::ops::Range<u64>, bytes: usize) {
    for round in rounds {
        for (number, store) in stores.iter().enumerate() {
            store.append(b"t", body(number, round, bytes)).expect("appends");
        }
    }
}

/// All entries are there, in order.
fn check(stores: &[Store], rounds: u64, bytes: usize) {
    for (number, store) in stores.iter().enumerate() {
        for round in 0..rounds {
            let page = store
                .range(b"t", round + 1..=round + 1, strandline::Limit::entries(1))
                .expect("reads");
            assert_eq!(page.entries[0].body, body(number, round, bytes), "store {number}");
        }
        assert_eq!(store.info(b"t").expect("reads").last, rounds);
    }
}

/// All data is in segments, and none of it is damaged.
fn check_flushed(engine: &Engine) {
    for (name, wanted) in [
        ("memtable_bytes", 64 * 1024),
        ("sealed_memtables", 0),
        ("damaged_segments", 0),
        ("poisoned", 0),
    ] {
        let value = engine.stats().get(name).expect("is counted");
        assert!(value <= wanted, "{name} is {value}");
    }
    let verification = engine.verify(|_, _| ()).expect("verifies");
    assert_eq!(verification.findings, []);
}

#[test]
fn a_hundred_and_fifty_stores_are_flushed_with_256_descriptors() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    with_descriptors(256, || {
        let engine = open(dir.path(), options());
        // Five memtables, each with entries of all stores.
        append(&stores(&engine, 150), 0..18, 2000);
        engine.flush().expect("flushes");
        check_flushed(&engine);
        engine.close().expect("closes");
        drop(engine);
        let engine = open(dir.path(), options());
        check(&stores(&engine, 150), 18, 2000);
        check_flushed(&engine);
        engine.close().expect("closes");
    });
}

/// The minimum is 9: the three standard ones, the directory, its lock, the log, both files of a
/// segment that is written, and one that is read. 16 leaves room for a merge beside a flush.
#[test]
fn one_store_is_written_merged_and_read_with_16_descriptors() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    with_descriptors(16, || {
        let engine = open(dir.path(), options());
        let store = [engine.store("messages").expect("is there")];
        for rounds in (0..12).map(|flush| 500 * flush..500 * flush + 500) {
            append(&store, rounds, 1000);
            engine.flush().expect("flushes");
        }
        check(&store, 6000, 1000);
        engine.compact().expect("merges");
        check_flushed(&engine);
        engine.close().expect("closes");
        drop((engine, store));
        let engine = open(dir.path(), options());
        check(&[engine.store("messages").expect("is there")], 6000, 1000);
        check_flushed(&engine);
        engine.close().expect("closes");
    });
}

#[test]
fn five_engines_are_flushed_with_1024_descriptors_even_if_their_caches_want_more() {
    let _alone = alone();
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a directory")).collect();
    with_descriptors(1024, || {
        let engines: Vec<Engine> = dirs.iter().map(|dir| open(dir.path(), options())).collect();
        for rounds in [0..2, 2..3] {
            for engine in &engines {
                append(&stores(engine, 130), rounds.clone(), 100);
                engine.flush().expect("flushes");
                check(&stores(engine, 130), rounds.end, 100);
            }
        }
        for engine in &engines {
            check_flushed(engine);
            engine.close().expect("closes");
        }
        drop(engines);
        let engines: Vec<Engine> = dirs.iter().map(|dir| open(dir.path(), options())).collect();
        for engine in &engines {
            check(&stores(engine, 130), 3, 100);
            check_flushed(engine);
            engine.close().expect("closes");
        }
    });
}

/// Takes every descriptor that the process may have.
fn take_all() -> Vec<impl Send> {
    std::iter::from_fn(|| std::net::UdpSocket::bind("127.0.0.1:0").ok()).collect()
}

#[test]
fn an_engine_without_spare_descriptors_flushes_or_reports_what_to_do() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    with_descriptors(64, || {
        let engine = open(dir.path(), options());
        let store = [engine.store("messages").expect("is there")];
        append(&store, 0..10, 1000);
        engine.flush().expect("flushes");
        let taken = take_all();
        append(&store, 10..20, 1000);
        engine.flush().expect("has descriptors of its own");
        check(&store, 20, 1000);
        // Also take those that become free for a moment.
        let (mut more, mut refusal) = (Vec::new(), None);
        for round in 20..60 {
            more.extend(take_all());
            if let Err(error) =
                store[0].append(b"t", body(0, round, 1000)).and_then(|_| engine.flush())
            {
                refusal = Some(error);
                break;
            }
        }
        let refusal = refusal.expect("there is no descriptor left");
        assert!(matches!(refusal, Error::TooManyFiles { .. }), "{refusal}");
        let text = refusal.to_string();
        let path = dir.path().to_str().expect("text");
        for part in ["too many open files", path, "ulimit -n", "max_open_files"] {
            assert!(text.contains(part), "{text}");
        }
        drop((taken, more));
        let last = store[0].info(b"t").expect("reads").last;
        while engine.flush().is_err() {
            std::thread::yield_now();
        }
        check(&store, last, 1000);
        engine.close().expect("closes");
        drop((engine, store));
        let engine = open(dir.path(), options());
        check(&[engine.store("messages").expect("is there")], last, 1000);
        check_flushed(&engine);
    });
}

#[test]
fn a_salvage_with_too_few_descriptors_fails_instead_of_leaving_entries_out() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path(), options());
    let store = [engine.create_store("s0", None).expect("is made")];
    for round in 0..7 {
        append(&store, round..round + 1, 100);
        engine.flush().expect("flushes");
    }
    let segments = engine.stats().segments;
    assert!(segments >= 4, "{segments} segments");
    drop((engine, store));
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    let refused =
        with_descriptors(16, || strandline::salvage(dir.path(), &small, &two_stores::NAMES))
            .expect_err("too few");
    assert!(matches!(refused, Error::TooManyFiles { .. }), "{refused}");
    let saved =
        with_descriptors(64, || strandline::salvage(dir.path(), &large, &two_stores::NAMES))
            .expect("salvages");
    assert_eq!((saved.entries, saved.findings), (7, Vec::new()));
}

#[test]
fn no_more_files_are_kept_open_than_the_options_say() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let few = options().max_open_files(8);
    let engine = open(dir.path(), few.clone());
    append(&stores(&engine, 20), 0..2, 100);
    engine.flush().expect("flushes");
    check(&stores(&engine, 20), 2, 100);
    let open_files = engine.stats().open_segment_files;
    assert!((1..=8).contains(&open_files), "{open_files} files");
    engine.close().expect("closes");
    let refused = Engine::open(dir.path(), few.max_open_files(7)).expect_err("is refused");
    assert!(refused.to_string().contains("max_open_files is 7"), "{refused}");
}
