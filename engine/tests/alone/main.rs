//! Tests that look at their whole process, or change it: what its allocator gives, how many file
//! descriptors it may have, which threads it runs.
//!
//! * `counted` needs an allocator of its own, which counts for all threads;
//! * `forked` forks the process;
//! * `descriptors` lowers `ulimit -n`, and takes the descriptors that are left;
//! * `spans` installs the subscriber of the process, which sees the engine's threads too;
//! * `threads` expects that no thread of any engine is left.
//!
//! So this is a binary of its own, and its tests take turns: each holds [`alone`] from before its
//! first engine until after its last.

mod counted;
mod descriptors;
#[path = "../disks/mod.rs"]
mod disks;
mod forked;
mod spans;
mod threads;
#[path = "../two_stores/mod.rs"]
mod two_stores;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this process runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
