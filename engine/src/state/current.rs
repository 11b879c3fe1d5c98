//! The view and the watermark of now: replaced by seals, flushes and merges, raised by commits.
//!
//! It does not know: what a reader does with its moment.

use std::sync::Arc;

use parking_lot::RwLock;

use super::moment::{Moment, Pins};
use super::view::View;
use crate::ids::Lsn;
use crate::memtable::Watermark;

/// The view and the watermark of now. Both are read in one step.
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

    /// The view of now, for those who change it or look at all of it, published or not.
    pub fn load(&self) -> Arc<View> {
        self.current.read().0.clone()
    }

    /// What a reader may see now, to hold as long as the read takes.
    pub fn moment(&self) -> Moment {
        self.pins.pin(|| {
            let current = self.current.read();
            (current.0.clone(), current.1)
        })
    }

    /// Publishes what was applied to the active memtable: in one step, all of it is visible.
    pub fn publish(&self, end: Lsn) {
        let mut current = self.current.write();
        current.1 = Watermark { lsn: end, bodies: current.0.active.body_count() as u32 };
    }

    /// What is published.
    pub fn published(&self) -> Watermark {
        self.current.read().1
    }

    /// No reader needs the state before a commit below this position. A reader that comes later
    /// starts at the published watermark.
    pub fn settled(&self) -> Lsn {
        let published = self.published().lsn;
        self.pins.lowest().map_or(published, |lowest| lowest.min(published))
    }

    /// Replaces the view by a changed one. All of what a sealed memtable holds is published.
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
