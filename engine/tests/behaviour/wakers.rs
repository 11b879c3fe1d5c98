//! Which thread calls the waker of a ticket, and what a waker that panics affects.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use strandline::{Batch, Engine, Options, Store, Wakers};

use crate::gates::{COMMIT, Gates};
use crate::two_stores;

/// Tells the name of the thread that called it.
struct Calls(Sender<String>);

impl Wake for Calls {
    fn wake(self: Arc<Calls>) {
        let name = std::thread::current().name().unwrap_or_default().to_string();
        self.0.send(name).expect("the test listens");
    }
}

/// Panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Panics>) {
        panic!("a waker panics");
    }
}

/// Room for all batches in a group.
fn options(wakers: Wakers) -> Options {
    two_stores::options().memory_budget_bytes(64 * 1024 * 1024).wakers(wakers)
}

/// Submits batches, one for each waker, which waits for the ticket. They are committed afterwards.
fn submit(gates: &Gates, (engine, store): &(Engine, Store), wakers: &[Waker]) {
    store.append(b"t", b"the log file is there").expect("appends");
    gates.hold(COMMIT);
    for waker in wakers {
        let ticket = engine.submit(Batch::new().append(store, b"t", b"x")).expect("is queued");
        let mut ticket = pin!(ticket);
        assert!(ticket.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    gates.release(COMMIT);
}

fn called(calls: &Receiver<String>) -> String {
    calls.recv_timeout(Duration::from_mins(1)).expect("it is called")
}

#[test]
fn short_wakers_are_called_by_the_thread_that_committed_and_others_are_not() {
    for (wakers, thread) in [(Wakers::Short, COMMIT), (Wakers::Any, "strandline-wake")] {
        let gates = Gates::new();
        let opened = gates.open_with(options(wakers));
        let (sender, calls) = channel();
        submit(&gates, &opened, &[Waker::from(Arc::new(Calls(sender)))]);
        assert_eq!(called(&calls), thread, "{wakers:?}");
    }
}

#[test]
fn a_waker_that_panics_affects_nothing_else() {
    for wakers in [Wakers::Short, Wakers::Any] {
        let gates = Gates::new();
        let opened = gates.open_with(options(wakers));
        let (sender, calls) = channel();
        let other = Waker::from(Arc::new(Calls(sender)));
        submit(&gates, &opened, &[Waker::from(Arc::new(Panics)), other]);
        called(&calls);
        assert_eq!(opened.1.append(b"t", b"y").expect("appends"), 4);
    }
}

#[test]
fn many_wakers_of_a_group_are_called_by_the_wake_thread() {
    const MANY: usize = 200;
    let gates = Gates::new();
    let opened = gates.open_with(options(Wakers::Short));
    let (sender, calls) = channel();
    let wakers: Vec<Waker> =
        (0..MANY).map(|_| Waker::from(Arc::new(Calls(sender.clone())))).collect();
    submit(&gates, &opened, &wakers);
    let names: Vec<String> = wakers.iter().map(|_| called(&calls)).collect();
    let own = names.iter().filter(|name| *name == COMMIT).count();
    assert!(own <= 64, "{own} of {MANY} before the next group");
}
