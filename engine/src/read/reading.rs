//! A timeline in a view, and how it is read: at which time, and whether around damage.
//!
//! It does not know: which places hold the timeline (`places`), or what is asked of it (`page`,
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
    /// Where it is read.
    pub view: &'v View,
    /// How much of the view's active memtable is visible.
    pub watermark: Watermark,
    /// Which timeline.
    pub key: Key<'v>,
    /// Which lifetimes have passed.
    pub lifetimes: Lifetimes,
    /// Whether lifetimes may have begun earlier in younger entries: then what has expired says
    /// nothing of what is older.
    pub own_starts: bool,
    /// Entries at its end may be missing because of damage to the log.
    pub may_lack_entries: bool,
    /// Whether it goes on where something is damaged.
    pub around_damage: bool,
    /// What changes shared bodies of the store, if a memtable does.
    pub bodies: Option<Key<'v>>,
}

impl<'v> Reading<'v> {
    /// A timeline as a reader sees it.
    pub fn new(state: &State, moment: &'v Moment, key: Key<'v>) -> Reading<'v> {
        Reading::at(state, moment, key, state.now_ms())
    }

    /// A timeline as the next commit finds it: all that was applied, published or not.
    pub fn for_commit(state: &State, view: &'v View, key: Key<'v>) -> Reading<'v> {
        Reading::in_view(state, (view, Watermark::ALL), key, state.now_ms())
    }

    /// A timeline as it is to be read for a decision that cannot be taken back.
    pub fn sure(state: &State, moment: &'v Moment, key: Key<'v>) -> Reading<'v> {
        Reading::at(state, moment, key, state.sure_now_ms())
    }

    fn at(state: &State, moment: &'v Moment, key: Key<'v>, now_ms: TimeMs) -> Reading<'v> {
        Reading::in_view(state, (&moment.view, moment.watermark), key, now_ms)
    }

    fn in_view(
        state: &State,
        (view, watermark): (&'v View, Watermark),
        key: Key<'v>,
        now_ms: TimeMs,
    ) -> Reading<'v> {
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
            ..Reading::of_end(view, key)
        }
    }

    /// A timeline of which only the end is looked for.
    pub fn of_end(view: &'v View, key: Key<'v>) -> Reading<'v> {
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

    /// The same for a reader who goes around damage, or does not.
    #[must_use]
    pub fn around_damage(self, around_damage: bool) -> Reading<'v> {
        Reading { around_damage, ..self }
    }

    /// Whether the TTL has passed for a lifetime that began at a time.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        self.lifetimes.is_expired(start_ms)
    }

    /// Whether everything older than a place has expired.
    pub fn ends_with(&self, span: &Span) -> bool {
        !self.own_starts && self.is_expired(span.first_start_ms)
    }
}
