//! One budget: how many bytes are used, and who waits until there is room.
//!
//! No wake-up is lost (P9). Whoever found no room calls [`Budget::poll_room`], which looks again
//! and registers under one lock; whoever gives bytes back looks for waiters under the same lock. So
//! either the look sees what was given back, or the giver sees the waiter. A decision to wait that
//! is made by an earlier look, and not made again under the lock, is the mistake that `modelled.rs`
//! shows.
//!
//! The sum is also readable without the lock, for the common case that there is room: such a look
//! may be old, and then one more command runs than should.
//!
//! Knows nothing of connections, nor of what the bytes are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::locks::{AtomicUsize, Mutex};

/// Bytes that may be used, and those that are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// Written under the lock of `waiting` only.
    used: AtomicUsize,
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    /// How many were woken so far.
    woken: AtomicUsize,
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    bytes: usize,
    waker: Waker,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(limit: usize) -> Budget {
        Budget {
            limit,
            used: AtomicUsize::new(0),
            waiting: Mutex::default(),
            woken: AtomicUsize::new(0),
        }
    }

    /// How much may be used.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How much is used.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so much more may be used.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.limit
    }

    /// Uses so much if there is room for it.
    pub fn try_take(&self, bytes: usize) -> bool {
        let _waiting = self.waiting.lock();
        let has_room = self.has_room(bytes);
        if has_room {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Counts another number of bytes than before for somebody who has them already, whether there
    /// is room or not.
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

    /// Ready when so much more may be used; it is not taken. Until then the waker is kept under
    /// `id`, one for each id.
    pub fn poll_room(&self, id: u64, bytes: usize, waker: &Waker) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        if self.has_room(bytes) {
            waiting.remove(&id);
            return Poll::Ready(());
        }
        waiting.insert(id, Waiter { bytes, waker: waker.clone() });
        Poll::Pending
    }

    /// It waits no longer.
    pub fn stop_waiting(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// How many of those who waited were woken so far.
    pub fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }

    /// What must be given back before anybody who waits can go on, or the limit is kept; 0:
    /// nothing.
    pub fn excess(&self) -> usize {
        let waiting = self.waiting.lock();
        let wanted = waiting.values().map(|waiter| waiter.bytes).min().unwrap_or(0);
        (self.used() + wanted).saturating_sub(self.limit)
    }
}
