//! A moment: a view, and the watermark that was published with it (P3).
//!
//! A batch is applied to many timelines and published in one step. A reader ignores everything
//! above its watermark, so it sees either all of a batch or nothing of it. While it reads, the
//! memtable keeps the parts of the state of its moment that it needs: the reader's *pin* says which
//! commits it does not see.
//!
//! 1. While the reader holds the lock of its shard of pins, it takes the view and the watermark,
//!    and adds its pin.
//! 2. The committer asks for the lowest pin before it applies a group. A reader that it misses
//!    takes its pin later, and so has at least the watermark that is published by then.
//!
//! A [`Snapshot`](crate::Snapshot) holds a moment as long as the caller wants. The flushed
//! memtables that it keeps have a share of the memory budget; beyond that share, the oldest
//! snapshots are revoked.
//!
//! This file does not know what is read.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::view::View;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::memtable::{Memtable, Watermark};

/// The number of shards; with several, readers of different threads rarely wait for each other.
const SHARDS: usize = 16;

/// The watermarks of all readers.
#[derive(Debug, Default)]
pub struct Pins {
    shards: [Mutex<Vec<Lsn>>; SHARDS],
}

impl Pins {
    /// Takes a moment and pins it.
    pub fn pin(self: &Arc<Pins>, take: impl FnOnce() -> (Arc<View>, Watermark)) -> Moment {
        let shard = shard_here();
        let mut pins = self.shards[shard].lock();
        let (view, watermark) = take();
        pins.push(watermark.lsn);
        drop(pins);
        Moment { view, watermark, shard, pins: self.clone() }
    }

    /// The lowest watermark of a reader.
    pub fn lowest(&self) -> Option<Lsn> {
        self.shards.iter().filter_map(|shard| shard.lock().iter().min().copied()).min()
    }
}

/// The shard of this thread, from the address of one of its thread-local variables.
fn shard_here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize / 64 % SHARDS)
}

/// A view, and the watermark of its active memtable. Pinned until it is dropped.
#[derive(Debug)]
pub struct Moment {
    pub view: Arc<View>,
    pub watermark: Watermark,
    shard: usize,
    pins: Arc<Pins>,
}

impl Clone for Moment {
    fn clone(&self) -> Moment {
        self.pins.pin(|| (self.view.clone(), self.watermark))
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let mut pins = self.pins.shards[self.shard].lock();
        let own = pins.iter().position(|pin| *pin == self.watermark.lsn);
        pins.swap_remove(own.expect("a moment is pinned until it is dropped"));
    }
}

/// A moment that a caller holds. It is revoked if the moments that are held keep too much memory.
#[derive(Debug)]
pub struct HeldMoment(RwLock<Option<Moment>>);

impl HeldMoment {
    /// The moment, pinned for one read.
    pub fn moment(&self) -> Result<Moment> {
        self.0.read().clone().ok_or(Error::SnapshotTooOld)
    }
}

/// The moments that callers hold, and the flushed memtables that these moments keep in memory.
#[derive(Debug, Default)]
pub struct HeldMoments {
    held: Mutex<Vec<Weak<HeldMoment>>>,
    flushed: Mutex<Vec<Weak<Memtable>>>,
}

impl HeldMoments {
    /// Holds a moment.
    pub fn hold(&self, moment: Moment) -> Arc<HeldMoment> {
        let held = Arc::new(HeldMoment(RwLock::new(Some(moment))));
        let mut all = self.held.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        held
    }

    /// Records that a memtable was flushed; it is freed when its last reader has released it.
    /// Revokes the oldest moments while flushed memtables take more than `most_bytes`.
    pub fn flushed(&self, memtable: &Arc<Memtable>, most_bytes: usize) {
        let mut flushed = self.flushed.lock();
        flushed.push(Arc::downgrade(memtable));
        let mut held: Vec<Arc<HeldMoment>> =
            self.held.lock().iter().filter_map(Weak::upgrade).collect();
        let lsn = |held: &Arc<HeldMoment>| {
            held.0.read().as_ref().map_or(Lsn(u64::MAX), |moment| moment.watermark.lsn)
        };
        held.sort_by_key(lsn);
        for oldest in held {
            if bytes_of(&mut flushed, memtable) <= most_bytes {
                return;
            }
            let revoked = oldest.0.write().take();
            drop(revoked);
        }
    }
}

/// The size of the flushed memtables in memory, without the newest: the flush itself still holds
/// that one.
fn bytes_of(flushed: &mut Vec<Weak<Memtable>>, newest: &Arc<Memtable>) -> usize {
    flushed.retain(|memtable| memtable.strong_count() > 0);
    let all = flushed.iter().filter_map(Weak::upgrade);
    let others = all.filter(|memtable| !Arc::ptr_eq(memtable, newest));
    others.map(|memtable| memtable.bytes()).sum()
}
