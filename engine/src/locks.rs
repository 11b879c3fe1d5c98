//! The locks and flags by which threads hand something over: the queue, tickets and watches use
//! them from here.
//!
//! They are those of `parking_lot` and the standard library; in a model (`--cfg loom`, tests only)
//! those of `loom`, which tries every order in which threads could run and every value that a load
//! could see (`docs/testing.md`).
//!
//! This file does not know what is handed over.

#[cfg(not(all(test, loom)))]
pub use parking_lot::{Condvar, Mutex, MutexGuard as Guard};
#[cfg(not(all(test, loom)))]
pub use std::sync::atomic::AtomicUsize;

#[cfg(all(test, loom))]
pub use modelled::{AtomicUsize, Condvar, Guard, Mutex};

#[cfg(all(test, loom))]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub use loom::sync::atomic::AtomicUsize;

    const WHOLE: &str = "no thread of a model panics with a lock";

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    /// `None` while the guard's thread waits.
    pub struct Guard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            Guard(Some(self.0.lock().expect(WHOLE)))
        }

        pub fn try_lock(&self) -> Option<Guard<'_, T>> {
            Some(Guard(Some(self.0.try_lock().ok()?)))
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect(WHOLE)
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect(WHOLE)
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            guard.0 = Some(self.0.wait(guard.0.take().expect(WHOLE)).expect(WHOLE));
        }

        /// In a model time does not pass: a wait that no thread ends is a deadlock, and reported.
        pub fn wait_for<T>(&self, guard: &mut Guard<'_, T>, _timeout: Duration) {
            self.wait(guard);
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
