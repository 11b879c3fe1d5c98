//! A budget: the number of bytes in use, and the connections that wait until there is space.
//!
//! No wake-up is lost (P9). A connection that found no space calls [`Budget::poll_room`], which
//! checks again and registers under one lock; a release of bytes checks for waiters under the same
//! lock. So either the check sees the released bytes, or the release sees the waiter. A decision to
//! wait that is based on an earlier check, and not repeated under the lock, loses wake-ups;
//! `modelled.rs` shows that.
//!
//! The sum can also be read without the lock, for the common case that there is space. Such a value
//! may be old, and then one command more runs than should.
//!
//! It knows nothing of connections, nor of the meaning of the bytes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::locks::{AtomicUsize, Mutex};

/// The limit of bytes, and the bytes in use.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// Written under the lock of `waiting` only.
    used: AtomicUsize,
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    /// The number of waiters woken so far.
    woken: AtomicUsize,
}

/// A connection that waits.
#[derive(Debug)]
struct Waiter {
    bytes: usize,
    waker: Waker,
}

impl Budget {
    /// A budget with no bytes in use.
    pub fn new(limit: usize) -> Budget {
        Budget {
            limit,
            used: AtomicUsize::new(0),
            waiting: Mutex::default(),
            woken: AtomicUsize::new(0),
        }
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether this many more bytes may be used.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.limit
    }

    /// Takes bytes if there is space for them.
    pub fn try_take(&self, bytes: usize) -> bool {
        let _waiting = self.waiting.lock();
        let has_room = self.has_room(bytes);
        if has_room {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Replaces the number of bytes that a connection already holds, whether there is space or not.
    /// Wakes waiters if bytes are released.
    pub fn change(&self, before: usize, now: usize) {
        if before == now {
            return;
        }
        let mut waiting = self.waiting.lock();
        if now > before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
            return;
        }
        let used = self.used.fetch_sub(before - now, Ordering::Relaxed) - (before - now);
        let limit = self.limit;
        let woken: Vec<_> =
            waiting.extract_if(.., |_, waiter| used + waiter.bytes <= limit).collect();
        drop(waiting);
        self.woken.fetch_add(woken.len(), Ordering::Relaxed);
        woken.into_iter().for_each(|(_, waiter)| waiter.waker.wake());
    }

    /// Ready when this many more bytes may be used; does not take them. Until then keeps the waker
    /// under `id`, one for each id.
    pub fn poll_room(&self, id: u64, bytes: usize, waker: &Waker) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        if self.has_room(bytes) {
            waiting.remove(&id);
            return Poll::Ready(());
        }
        waiting.insert(id, Waiter { bytes, waker: waker.clone() });
        Poll::Pending
    }

    /// Removes the waiter of an id.
    pub fn stop_waiting(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// The number of waiters woken so far.
    pub fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }

    /// The bytes that must be released until the first waiter can continue or, if there is none,
    /// until the limit is kept; 0: none.
    pub fn excess(&self) -> usize {
        let waiting = self.waiting.lock();
        let wanted = waiting.values().map(|waiter| waiter.bytes).min().unwrap_or(0);
        (self.used() + wanted).saturating_sub(self.limit)
    }
}
