//! Threads: wakers are called off the commit path, whatever they do, and an engine stops
//! completely.
//!
//! Wakers are code of the caller: they sleep, panic, append, close the engine, or own its last
//! handle. Each test here has one that does, and checks the effect on others. The directory is
//! watched: when its lock is released, no other thread of the engine may be left, and from then on
//! nothing may change in it until the next engine opens.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use strandline::clock::SystemClock;
use strandline::vfs::simulated::{Op, SimulatedDisk};
use strandline::vfs::{Dir, RawDirectory};
use strandline::{Batch, Durability, Engine, Error, Limit, Receipt, Store, Ticket, World};

use crate::alone;
use crate::disks::as_the_disk;
use crate::two_stores;

/// Longer than anything here takes: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was found when the directory's lock was released.
struct Released {
    /// The threads of the engine that were left, except the one that released it.
    threads: Vec<String>,
    /// How many calls the disk had received.
    calls: usize,
}

/// A simulated disk that reports when its lock is released.
#[derive(Clone)]
struct Watched {
    disk: SimulatedDisk,
    is_locked: Arc<AtomicBool>,
    released: Sender<Released>,
}

struct Lock {
    inner: Option<Box<dyn Send + Sync>>,
    watched: Watched,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let found = Released { threads: threads_left(), calls: self.watched.disk.log_len() };
        self.inner.take();
        self.watched.is_locked.store(false, Ordering::Release);
        let _ = self.watched.released.send(found);
    }
}

impl RawDirectory for Watched {
    as_the_disk!(path, list, create, open, rename, remove, sync);

    fn lock(&self, name: &str, alone: bool) -> io::Result<Box<dyn Send + Sync>> {
        let inner = Some(self.disk.lock(name, alone)?);
        self.is_locked.store(true, Ordering::Release);
        Ok(Box::new(Lock { inner, watched: self.clone() }))
    }
}

/// The engine's threads other than this one. A thread that was joined may still be listed for a
/// moment: a thread that disappears while the list is read repeatedly had ended.
#[allow(clippy::disallowed_methods, reason = "the kernel lists threads as files")]
fn threads_left() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self").expect("Linux lists threads");
    let look = || -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists threads").flatten();
        let others = tasks.filter(|task| !own.ends_with(task.file_name()));
        let names =
            others.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("strandline-")).collect()
    };
    let mut left = look();
    for _ in 0..10_000 {
        if left.is_empty() {
            break;
        }
        std::thread::yield_now();
        left = look();
    }
    left
}

/// A disk, the engine on it, and the reports of its end.
struct Bench {
    disk: SimulatedDisk,
    world: World,
    is_locked: Arc<AtomicBool>,
    released: Receiver<Released>,
    /// The threads of engines are counted in the whole process.
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Bench {
        let alone = alone();
        let disk = SimulatedDisk::new();
        let (sender, released) = channel();
        let is_locked = Arc::new(AtomicBool::new(false));
        let watched =
            Watched { disk: disk.clone(), is_locked: is_locked.clone(), released: sender };
        let world = World { dir: Dir::new(Arc::new(watched)), clock: Arc::new(SystemClock::new()) };
        Bench { disk, world, is_locked, released, _alone: alone }
    }

    fn try_open(&self) -> strandline::Result<Engine> {
        Engine::open_in(self.world.clone(), two_stores::options())
    }

    fn open(&self) -> (Engine, Store) {
        let engine = self.try_open().expect("opens");
        let store = engine.store("messages").expect("it is there");
        (engine, store)
    }

    /// Waits until the directory is released. No thread of the engine may be left then, and nothing
    /// may change later.
    fn wait_for_release(&self) {
        let released = self.released.recv_timeout(PATIENCE).expect("the lock is released");
        assert_eq!(
            released.threads,
            Vec::<String>::new(),
            "threads were left when the lock was released"
        );
        assert_eq!(
            self.disk.log_len(),
            released.calls,
            "the directory was changed after it was released"
        );
    }

    /// How many entries of the timeline `t` the next engine finds.
    fn entries(&self) -> usize {
        let (_engine, store) = self.open();
        store.range(b"t", .., Limit::entries(1000)).expect("reads").entries.len()
    }
}

/// The next test starts when this engine has ended: a waker may drop its last handle.
impl Drop for Bench {
    fn drop(&mut self) {
        while self.is_locked.load(Ordering::Acquire) && self.released.recv_timeout(PATIENCE).is_ok()
        {
        }
    }
}

/// A waker that runs this when it is woken.
struct Runs<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync> Wake for Runs<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn waker(run: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Runs(run)))
}

fn poll(ticket: &mut Ticket, waker: &Waker) -> Poll<strandline::Result<Receipt>> {
    Pin::new(ticket).poll(&mut Context::from_waker(waker))
}

/// An append to `t` whose ticket is not resolved yet and wakes this waker when it is.
fn pending(engine: &Engine, store: &Store, waker: &Waker) -> Ticket {
    loop {
        let mut ticket = engine.submit(Batch::new().append(store, b"t", b"x")).expect("is queued");
        if poll(&mut ticket, waker).is_pending() {
            return ticket;
        }
    }
}

/// Runs `run` to its end, or fails the test instead of hanging it.
fn ends<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} does not end"))
}

/// A channel whose receiver any thread may wait at.
fn signal<T>() -> (Sender<T>, Mutex<Receiver<T>>) {
    let (sender, receiver) = channel();
    (sender, Mutex::new(receiver))
}

fn wait_at<T>(receiver: &Mutex<Receiver<T>>) -> T {
    receiver.lock().expect("no panic").recv_timeout(PATIENCE).expect("comes in time")
}

/// A waker that drops the handles that it receives, reports that it did, and returns when it is
/// allowed to.
struct Dropping {
    waker: Waker,
    handles: Sender<(Engine, Store)>,
    was_dropped: Mutex<Receiver<()>>,
    may_return: Sender<()>,
}

fn dropping_waker() -> Dropping {
    let (handles, receiver) = signal();
    let (dropped, was_dropped) = signal();
    let (may_return, returning) = signal();
    let waker = waker(move || {
        drop(wait_at(&receiver));
        dropped.send(()).expect("the test waits");
        wait_at(&returning);
    });
    Dropping { waker, handles, was_dropped, may_return }
}

#[test]
fn the_last_handle_may_be_dropped_in_a_tickets_waker() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let Dropping { waker, handles, was_dropped, may_return } = dropping_waker();
    let mut ticket = pending(&engine, &store, &waker);
    handles.send((engine, store)).expect("the waker takes them");
    wait_at(&was_dropped);
    assert!(
        matches!(bench.try_open(), Err(Error::Locked { .. })),
        "a thread of the first engine is left"
    );
    may_return.send(()).expect("the waker waits");
    bench.wait_for_release();
    assert!(matches!(poll(&mut ticket, Waker::noop()), Poll::Ready(Ok(_))));
    assert!(bench.entries() > 0);
    bench.wait_for_release();
}

#[test]
fn the_last_handle_may_be_dropped_in_a_watchers_waker() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let watcher = engine.watcher();
    watcher.watch(&store, b"t", 1).expect("its own store");
    let Dropping { waker, handles, was_dropped, may_return } = dropping_waker();
    assert!(watcher.poll_ready(&waker).is_pending());
    let ticket = engine.submit(Batch::new().append(&store, b"t", b"x")).expect("is queued");
    handles.send((engine, store)).expect("the waker takes them");
    wait_at(&was_dropped);
    assert!(
        matches!(bench.try_open(), Err(Error::Locked { .. })),
        "a thread of the first engine is left"
    );
    may_return.send(()).expect("the waker waits");
    bench.wait_for_release();
    assert!(ends("the wait", || ticket.wait()).is_ok());
    assert_eq!(watcher.ready(), [1]);
    assert!(watcher.is_closed());
    assert_eq!(bench.entries(), 1);
    bench.wait_for_release();
}

#[test]
fn the_last_handle_may_be_dropped_on_the_commit_thread_itself() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let handles = Arc::new(Mutex::new(None));
    let taken = handles.clone();
    bench.disk.set_faults(Some(Box::new(move |op| {
        if matches!(op, Op::Sync { .. })
            && std::thread::current().name() == Some("strandline-commit")
        {
            let handles: Option<(Engine, Store)> = taken.lock().expect("no panic").take();
            drop(handles);
        }
        None
    })));
    // Held until the handles are there, so that those are the last.
    let mut slot = handles.lock().expect("no panic");
    let ticket = engine.submit(Batch::new().append(&store, b"t", b"x")).expect("is queued");
    *slot = Some((engine, store));
    drop(slot);
    bench.wait_for_release();
    assert!(ends("the wait", || ticket.wait()).is_ok());
    assert_eq!(bench.entries(), 1);
}

#[test]
fn a_waker_that_is_replaced_may_own_the_last_handle() {
    /// Lets the disk continue when it is dropped, and then drops the handles.
    struct Owner(Mutex<Option<(Engine, Store)>>, Sender<()>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.send(()).expect("the disk waits");
        }
    }
    for of_a_watcher in [false, true] {
        let bench = Bench::new();
        let (engine, store) = bench.open();
        let watcher = engine.watcher();
        watcher.watch(&store, b"t", 1).expect("its own store");
        let (go_on, goes_on) = channel();
        let mut is_held = true;
        bench.disk.set_faults(Some(Box::new(move |_| {
            if std::mem::take(&mut is_held) {
                goes_on.recv_timeout(PATIENCE).expect("comes in time");
            }
            None
        })));
        let mut ticket = engine.submit(Batch::new().append(&store, b"t", b"x")).expect("is queued");
        let owner = Arc::new(Owner(Mutex::default(), go_on));
        let kept = Waker::from(owner.clone());
        if of_a_watcher {
            assert!(watcher.poll_ready(&kept).is_pending());
        } else {
            assert!(poll(&mut ticket, &kept).is_pending());
        }
        drop(kept);
        *owner.0.lock().expect("no panic") = Some((engine, store));
        drop(owner);
        let ticket = ends("the poll that replaces the waker", move || {
            if of_a_watcher {
                assert!(watcher.poll_ready(Waker::noop()).is_pending());
            } else {
                assert!(poll(&mut ticket, Waker::noop()).is_pending());
            }
            ticket
        });
        assert!(ends("the wait", || ticket.wait()).is_ok());
        bench.wait_for_release();
        assert_eq!(bench.entries(), 1);
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let mut ticket = pending(&engine, &store, &waker(|| panic!("a ticket's waker panics")));
    let watcher = engine.watcher();
    watcher.watch(&store, b"watched", 1).expect("its own store");
    assert!(watcher.poll_ready(&waker(|| panic!("a watcher's waker panics"))).is_pending());
    assert_eq!(store.append(b"watched", b"x").expect("it is committed, and reported so"), 1);
    assert_eq!(watcher.ready(), [1]);
    let (woken, was_woken) = signal();
    let _ticket = pending(&engine, &store, &waker(move || woken.send(()).expect("the test waits")));
    wait_at(&was_woken);
    assert!(matches!(poll(&mut ticket, Waker::noop()), Poll::Ready(Ok(_))));
    engine.flush().expect("the engine is not poisoned");
}

#[test]
fn a_waker_may_append() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let (appended, was_appended) = signal();
    let own = store.clone();
    let appending =
        waker(move || appended.send(own.append(b"more", b"x")).expect("the test waits"));
    let _ticket = pending(&engine, &store, &appending);
    assert_eq!(wait_at(&was_appended).expect("appends"), 1);
}

#[test]
fn a_waker_may_close_the_engine() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let (closed, was_closed) = signal();
    let own = engine.clone();
    let closing = waker(move || closed.send(own.close()).expect("the test waits"));
    let mut ticket = pending(&engine, &store, &closing);
    wait_at(&was_closed).expect("closes");
    bench.wait_for_release();
    assert!(matches!(store.append(b"t", b"x"), Err(Error::Closed { .. })));
    assert!(matches!(poll(&mut ticket, Waker::noop()), Poll::Ready(Ok(_))));
    let logs =
        bench.disk.contents().files.into_keys().filter(|name| name.starts_with("wal-")).count();
    assert_eq!(logs, 0, "it was flushed");
    assert!(bench.entries() > 0);
}

#[test]
fn a_waker_that_sleeps_delays_no_append_and_no_waiting_thread() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let (asleep, is_asleep) = signal();
    let (wake_up, up) = signal();
    let sleeping = waker(move || {
        asleep.send(()).expect("the test waits");
        wait_at(&up);
    });
    let _ticket = pending(&engine, &store, &sleeping);
    wait_at(&is_asleep);
    let watcher = engine.watcher();
    watcher.watch(&store, b"t", 1).expect("its own store");
    let own = store.clone();
    ends("an append", move || (0..10).try_for_each(|_| own.append(b"t", b"x").map(|_| ())))
        .expect("appends");
    assert!(watcher.wait(PATIENCE));
    ends("a flush", move || engine.flush()).expect("flushes");
    wake_up.send(()).expect("the waker sleeps");
}

#[test]
fn no_waker_is_forgotten_when_the_engine_closes() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let (woken, was_woken) = channel();
    let tickets: Vec<Ticket> = (0..100)
        .map(|number| {
            let woken = woken.clone();
            pending(&engine, &store, &waker(move || woken.send(number).expect("the test waits")))
        })
        .collect();
    drop((engine, store));
    bench.wait_for_release();
    drop(tickets);
    let mut numbers: Vec<i32> = was_woken.try_iter().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

/// The ways to end an engine.
const ENDS: [fn(Engine, Store); 2] =
    [|engine, _store| engine.close().expect("closes"), |engine, store| drop((engine, store))];

#[test]
fn a_thread_that_waits_at_a_watcher_is_woken_when_the_engine_ends() {
    for end in ENDS {
        let bench = Bench::new();
        let (engine, store) = bench.open();
        let (watcher, of_nothing) = (engine.watcher(), engine.watcher());
        watcher.watch(&store, b"t", 1).expect("its own store");
        assert!(!watcher.is_closed());
        let (waits, waiting) = channel();
        let ended = std::thread::spawn(move || {
            waits.send(()).expect("the test waits");
            let ready = watcher.wait(2 * PATIENCE) || of_nothing.wait(2 * PATIENCE);
            (ready, watcher.is_closed(), of_nothing.is_closed())
        });
        waiting.recv().expect("the thread starts");
        end(engine, store);
        let ended = ends("the wait at a watcher", move || ended.join().expect("no panic"));
        assert_eq!(ended, (false, true, true));
        bench.wait_for_release();
    }
}

#[test]
fn a_watcher_that_is_polled_is_ready_and_says_closed_when_the_engine_ends() {
    for end in ENDS {
        let bench = Bench::new();
        let (engine, store) = bench.open();
        let watcher = engine.watcher();
        let (woken, was_woken) = signal();
        assert!(
            watcher
                .poll_ready(&waker(move || woken.send(()).expect("the test waits")))
                .is_pending()
        );
        end(engine, store);
        wait_at(&was_woken);
        assert!(watcher.is_closed() && watcher.poll_ready(Waker::noop()).is_ready());
        assert!(watcher.ready().is_empty());
        bench.wait_for_release();
    }
}

#[test]
fn the_watchers_of_an_engine_that_only_reads_are_closed_as_well() {
    let bench = Bench::new();
    bench.open().0.close().expect("closes");
    bench.wait_for_release();
    let options = two_stores::options().read_only(true);
    let engine = Engine::open_in(bench.world.clone(), options).expect("opens");
    let watcher = engine.watcher();
    let (woken, was_woken) = signal();
    assert!(
        watcher.poll_ready(&waker(move || woken.send(()).expect("the test waits"))).is_pending()
    );
    drop(engine);
    wait_at(&was_woken);
    assert!(watcher.is_closed());
    bench.wait_for_release();
}

#[test]
fn many_threads_may_close_an_engine_and_each_finds_the_directory_free() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let own = engine.clone();
    let closing = waker(move || drop(own.close()));
    let _ticket = pending(&engine, &store, &closing);
    let closers: Vec<_> = (0..4)
        .map(|_| {
            let (engine, is_locked) = (engine.clone(), bench.is_locked.clone());
            std::thread::spawn(move || {
                // A close after another one has nothing left to flush, and reports that the engine
                // is closed.
                let _closed = engine.close();
                !is_locked.load(Ordering::Acquire)
            })
        })
        .collect();
    drop((engine, store));
    let free =
        ends("a close", || closers.into_iter().all(|closer| closer.join().expect("no panic")));
    assert!(free);
    bench.wait_for_release();
}

#[test]
fn callers_that_commit_end_before_the_directory_is_released() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let appended = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (store, appended) = (store.clone(), appended.clone());
            std::thread::spawn(move || {
                loop {
                    match store.append(b"t", b"x") {
                        Ok(_) => appended.fetch_add(1, Ordering::Relaxed),
                        Err(Error::Closed { .. }) => return,
                        Err(error) => panic!("{error}"),
                    };
                }
            })
        })
        .collect();
    while appended.load(Ordering::Relaxed) < 100 {
        std::thread::yield_now();
    }
    ends("a close", move || engine.close()).expect("closes");
    bench.wait_for_release();
    let joined = move || callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
    ends("the callers", joined);
    let (_engine, store) = bench.open();
    let end = store.end(b"t").expect("reads").0;
    assert_eq!(end, appended.load(Ordering::Relaxed) as u64, "what was acknowledged, and no more");
}

#[test]
fn callers_that_commit_and_batches_that_nobody_waits_for_are_all_answered() {
    let bench = Bench::new();
    let (engine, store) = bench.open();
    let commit = &|how: usize| {
        for _ in 0..200 {
            let batch = Batch::new().append(&store, b"t", b"x").durability(Durability::Os);
            match how {
                0 | 1 => drop(engine.commit(batch).expect("commits")),
                2 => drop(engine.submit(batch).expect("queued").wait().expect("commits")),
                _ => drop(engine.submit(batch).expect("queued")),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|how| drop(scope.spawn(move || commit(how))));
    });
    engine.flush().expect("everything before it is committed");
    assert_eq!(store.end(b"t").expect("reads").0, 800);
}
