//! Models of the budget: loom runs every interleaving of a connection that finds no space and one
//! that releases bytes.
//!
//! The file under test is compiled a second time here, with the locks of loom. A lost wake-up is a
//! deadlock of the model. The last model has the mistake of an earlier version and must find it,
//! which shows that the models detect it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod locks {
    //! The locks of loom, with the interface of `parking_lot`.

    pub use loom::sync::atomic::AtomicUsize;

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread of a model panics with a lock")
        }
    }
}

#[path = "budget.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "the same file on other locks")]
mod budget;

use budget::Budget;

/// A budget of 2 bytes, both in use.
fn full() -> Arc<Budget> {
    let budget = Arc::new(Budget::new(2));
    assert!(budget.try_take(2));
    budget
}

/// Takes bytes as a connection does: waits while there is no space.
fn take(budget: &Budget, id: u64, bytes: usize) {
    while !budget.try_take(bytes) {
        loom::future::block_on(poll_fn(|context| budget.poll_room(id, bytes, context.waker())));
    }
}

#[test]
fn a_waiter_without_room_is_woken_when_bytes_are_released() {
    loom::model(|| {
        let budget = full();
        let giver = loom::thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.change(2, 1)
        });
        take(&budget, 1, 1);
        giver.join().expect("no panic");
        assert_eq!((budget.used(), budget.excess()), (2, 0));
    });
}

#[test]
fn of_two_waiters_the_second_is_woken_by_the_bytes_that_the_first_releases() {
    loom::model(|| {
        let budget = full();
        let other = loom::thread::spawn({
            let budget = Arc::clone(&budget);
            move || {
                take(&budget, 1, 2);
                budget.change(2, 0);
            }
        });
        budget.change(2, 0);
        take(&budget, 2, 2);
        budget.change(2, 0);
        other.join().expect("no panic");
        assert_eq!(budget.used(), 0);
    });
}

/// The mistake: a thread finds no space, and then checks again to decide how to wait. Returns
/// whether it would wait in vain.
fn decides_late(budget: &Budget) -> bool {
    !budget.has_room(1) && budget.has_room(1)
}

#[test]
fn a_decision_to_wait_that_is_not_made_under_the_lock_loses_the_wake_up() {
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&lost);
    loom::model(move || {
        let budget = full();
        let giver = loom::thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.change(2, 1)
        });
        is_lost.fetch_or(decides_late(&budget), Ordering::Relaxed);
        giver.join().expect("no panic");
    });
    assert!(lost.load(Ordering::Relaxed), "some order of the two has it");
}
