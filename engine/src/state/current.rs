//! The current view and watermark: replaced by seals, flushes and merges, raised by commits.
//!
//! This file does not know what a reader does with its moment.

use std::sync::Arc;

use parking_lot::RwLock;

use super::moment::{Moment, Pins};
use super::view::View;
use crate::ids::Lsn;
use crate::memtable::Watermark;

/// The current view and watermark. Both are read in one step.
#[derive(Debug)]
pub struct CurrentView {
    current: RwLock<(Arc<View>, Watermark)>,
    pins: Arc<Pins>,
}

impl CurrentView {
    /// Starts with a view, all of which is published. The next group starts at `end` in the log.
    pub fn new(view: View, end: Lsn) -> CurrentView {
        let watermark = Watermark { lsn: end, bodies: view.active.body_count() as u32 };
        CurrentView { current: RwLock::new((Arc::new(view), watermark)), pins: Arc::default() }
    }

    /// The current view, for callers that change it or use all of it, published or not.
    pub fn load(&self) -> Arc<View> {
        self.current.read().0.clone()
    }

    /// The view and watermark that a reader may use now, to be held as long as the read takes.
    pub fn moment(&self) -> Moment {
        self.pins.pin(|| {
            let current = self.current.read();
            (current.0.clone(), current.1)
        })
    }

    /// Publishes everything that was applied to the active memtable, which has `bodies` bodies now:
    /// all of it becomes visible in one step.
    pub fn publish(&self, end: Lsn, bodies: usize) {
        self.current.write().1 = Watermark { lsn: end, bodies: bodies as u32 };
    }

    /// The current watermark.
    pub fn published(&self) -> Watermark {
        self.current.read().1
    }

    /// The lsn below which no reader needs the state before a commit. A later reader starts at the
    /// published watermark.
    pub fn settled(&self) -> Lsn {
        let published = self.published().lsn;
        self.pins.lowest().map_or(published, |lowest| lowest.min(published))
    }

    /// Replaces the view by a changed one. The content of a sealed memtable is published
    /// completely.
    pub fn change(&self, change: impl FnOnce(&mut View)) {
        let mut current = self.current.write();
        let mut changed = View::clone(&current.0);
        change(&mut changed);
        if !Arc::ptr_eq(&changed.active, &current.0.active) {
            current.1.bodies = changed.active.body_count() as u32;
        }
        current.0 = Arc::new(changed);
    }
}
