//! A timeline in a view, and the settings of its read: the time, and whether it continues after
//! damage.
//!
//! This file does not know which places contain the timeline (`places`), or what is read (`page`,
//! `facts`).

use crate::ids::{BODIES, TimeMs, TimelineRef};
use crate::memtable::Watermark;
use crate::state::State;
use crate::state::moment::Moment;
use crate::state::view::View;
use crate::timeline::{Key, Lifetimes, Span};

/// A timeline in a view.
#[derive(Clone, Copy)]
pub struct Reading<'v> {
    /// The view that is read.
    pub view: &'v View,
    /// The visible part of the view's active memtable.
    pub watermark: Watermark,
    /// The timeline.
    pub key: Key<'v>,
    /// The lifetimes that have passed.
    pub lifetimes: Lifetimes,
    /// Whether the lifetimes of younger entries may have begun earlier than those of older ones:
    /// then an expired entry proves nothing about older ones.
    pub own_starts: bool,
    /// Whether entries at its end may be missing because of damage to the log.
    pub may_lack_entries: bool,
    /// Whether the read continues after damage.
    pub around_damage: bool,
    /// The pseudo-timeline of the store's body changes, if a memtable changes shared bodies.
    pub bodies: Option<Key<'v>>,
}

impl<'v> Reading<'v> {
    /// A timeline as a reader sees it.
    pub fn new(state: &State, moment: &'v Moment, key: Key<'v>) -> Reading<'v> {
        Reading::at(state, moment, key, state.now_ms())
    }

    /// A timeline as read for a decision that cannot be undone: by sure time.
    pub fn sure(state: &State, moment: &'v Moment, key: Key<'v>) -> Reading<'v> {
        Reading::at(state, moment, key, state.sure_now_ms())
    }

    fn at(state: &State, moment: &'v Moment, key: Key<'v>, now_ms: TimeMs) -> Reading<'v> {
        let (view, watermark) = (&moment.view, moment.watermark);
        let (ttl_ms, gone_before_ms) = state.retention(key.timeline.store);
        Reading {
            lifetimes: Lifetimes::at(now_ms, ttl_ms, gone_before_ms),
            own_starts: state.times.own_starts(),
            may_lack_entries: state.may_lack_entries(view, key),
            bodies: view
                .memtables()
                .any(|memtable| memtable.changes_bodies())
                .then(|| state.key(TimelineRef { store: key.timeline.store, name: BODIES })),
            watermark,
            ..Reading::for_commit(view, key)
        }
    }

    /// A timeline as the next commit finds it: everything that was applied, published or not. Its
    /// end and its ids are read, which have no lifetime.
    pub fn for_commit(view: &'v View, key: Key<'v>) -> Reading<'v> {
        Reading {
            view,
            watermark: Watermark::ALL,
            key,
            lifetimes: Lifetimes::default(),
            own_starts: false,
            may_lack_entries: false,
            around_damage: false,
            bodies: None,
        }
    }

    /// Sets whether the read continues after damage.
    #[must_use]
    pub fn around_damage(self, around_damage: bool) -> Reading<'v> {
        Reading { around_damage, ..self }
    }

    /// Whether the TTL has passed for a lifetime that began at `start_ms`.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        self.lifetimes.is_expired(start_ms)
    }

    /// Whether everything older than a place has expired.
    pub fn ends_with(&self, span: &Span) -> bool {
        !self.own_starts && self.is_expired(span.first_start_ms)
    }
}
