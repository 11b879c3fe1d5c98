//! Which thread calls a waker, and what a waker that panics affects.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use strandline::{Options, Wakers};

use crate::two_stores;
use crate::world::House;

/// Tells which thread called it.
struct Calls(Sender<ThreadId>);

impl Wake for Calls {
    fn wake(self: Arc<Calls>) {
        self.0.send(std::thread::current().id()).expect("the test listens");
    }
}

/// Panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Panics>) {
        panic!("a waker panics");
    }
}

/// The thread that calls a waker when this thread commits.
fn caller_of_a_waker(wakers: Wakers) -> ThreadId {
    let house = House::with(Options { wakers, ..two_stores::options() });
    let engine = house.engine();
    let (store, watcher) = (engine.store("messages").expect("is there"), engine.watcher());
    watcher.watch(&store, b"t", 1).expect("its own store");
    let (calls, called) = channel();
    assert_eq!(watcher.poll_ready(&Waker::from(Arc::new(Calls(calls)))), Poll::Pending);
    store.append(b"t", b"x").expect("appends");
    called.recv_timeout(Duration::from_mins(1)).expect("it is called")
}

#[test]
fn short_wakers_are_called_by_the_thread_that_committed_and_others_are_not() {
    let here = std::thread::current().id();
    assert_eq!(caller_of_a_waker(Wakers::Short), here);
    assert_ne!(caller_of_a_waker(Wakers::Any), here);
}

#[test]
fn a_waker_that_panics_affects_nothing_else() {
    for wakers in [Wakers::Short, Wakers::Any] {
        let house = House::with(Options { wakers, ..two_stores::options() });
        let engine = house.engine();
        let (store, panicking, other) =
            (engine.store("messages").expect("is there"), engine.watcher(), engine.watcher());
        let (calls, called) = channel();
        for (watcher, waker) in [
            (&panicking, Waker::from(Arc::new(Panics))),
            (&other, Waker::from(Arc::new(Calls(calls)))),
        ] {
            watcher.watch(&store, b"t", 1).expect("its own store");
            assert_eq!(watcher.poll_ready(&waker), Poll::Pending);
        }
        assert_eq!(store.append(b"t", b"x").expect("appends"), 1);
        called.recv_timeout(Duration::from_mins(1)).expect("the other is called");
        assert_eq!(store.append(b"t", b"y").expect("appends"), 2);
    }
}
