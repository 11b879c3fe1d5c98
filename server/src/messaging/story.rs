//! What the events of a conversation show about its members: who joined and left, and who was a
//! member because of what it did.
//!
//! It replaces a ledger that is lost. The first members did not join by an event. They are found by
//! the messages that they sent, by their leaving, or by the copies that they got.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::conversation::History;
use super::event::{Event, Kind};
use super::periods::Periods;
use super::user::Membership;

/// What a user's sync timeline shows about a conversation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    /// The lowest sequence.
    pub first: Sequence,
    /// When the user left, unless there are later copies.
    pub left: Option<(Sequence, TimeMs)>,
}

impl Copied {
    /// Adds the next copy.
    pub fn add(&mut self, user: &Bytes, event: &Event, time_ms: TimeMs) {
        if self.first == 0 {
            self.first = event.sequence;
        }
        match event.kind {
            Kind::Leave if event.user == *user => self.left = Some((event.sequence, time_ms)),
            // A later copy shows that the user was a member again.
            _ if self.left.is_some_and(|(left, _)| left < event.sequence) => self.left = None,
            _ => {}
        }
    }
}

/// A conversation, as its events show it.
#[derive(Debug, Default)]
pub struct Story {
    /// The periods of each user.
    periods: BTreeMap<Bytes, Periods>,
    /// When each former member last left.
    left_ms: BTreeMap<Bytes, TimeMs>,
    /// The first members.
    founders: Vec<Bytes>,
    /// What members see of the time before they joined.
    pub history: History,
    /// When the conversation was created, or the time of its first event.
    pub created_ms: TimeMs,
    /// Its first pulled event.
    pub pulls_from: Option<Sequence>,
    /// Whether some of its events cannot be read.
    pub is_damaged: bool,
    /// The sequence of its first event that is kept.
    first: Sequence,
    /// The last event that shows each user to be a member.
    seen: BTreeMap<Bytes, Sequence>,
}

impl Story {
    /// Adds the next event.
    pub fn add(&mut self, event: &Event, time_ms: TimeMs) {
        if self.created_ms == 0 {
            self.created_ms = time_ms;
        }
        if self.first == 0 {
            self.first = event.sequence;
        }
        if event.kind != Kind::Leave {
            self.seen.insert(Bytes::copy_from_slice(&event.user), event.sequence);
        }
        if event.is_pulled() {
            self.pulls_from.get_or_insert(event.sequence);
        }
        match event.kind {
            Kind::Join => {
                self.about_itself(event);
                self.begin(&event.user, event.sequence);
            }
            Kind::Leave => {
                self.about_itself(event);
                self.was_there(&event.user, event.sequence);
                if let Some(periods) = self.periods.get_mut(&event.user) {
                    periods.end(event.sequence);
                }
                self.left_ms.insert(event.user.clone(), time_ms);
            }
            _ => self.was_there(&event.user, event.sequence),
        }
    }

    /// Adds the copies in a user's sync timeline, which show that the user was a member. Older
    /// copies may have expired.
    pub fn got_copies(&mut self, user: &Bytes, copies: &Copied) {
        if !self.periods.contains_key(user) {
            self.was_there(user, copies.first);
        }
        // For a user who left, its own copy may be the only trace of that.
        if let (Some((left, left_ms)), Some(periods)) = (copies.left, self.periods.get_mut(user))
            && periods.start().is_some_and(|from| from <= left)
            && self.seen.get(user).is_none_or(|seen| *seen <= left)
        {
            periods.end(left);
            self.left_ms.insert(user.clone(), left_ms);
        }
    }

    /// Whether no event is lost, and none at the start is trimmed or expired.
    pub fn is_whole(&self) -> bool {
        !self.is_damaged && self.first == 1
    }

    fn about_itself(&mut self, event: &Event) {
        self.history = History::of_flags(event.flags);
        self.created_ms = event.about;
    }

    fn begin(&mut self, user: &Bytes, from: Sequence) {
        self.periods.entry(Bytes::copy_from_slice(user)).or_default().begin(from);
    }

    /// Notes that a user was a member at a sequence. If no event shows since when, it was a first
    /// member, unless that event may be lost.
    pub fn was_there(&mut self, user: &Bytes, sequence: Sequence) {
        let known = self.periods.get(user);
        if known.is_some_and(Periods::is_member) {
            return;
        }
        let is_founder = known.is_none() && !self.is_damaged;
        if is_founder {
            self.founders.push(Bytes::copy_from_slice(user));
        }
        self.begin(user, if is_founder { 1 } else { sequence });
    }

    /// The first members, in byte order.
    pub fn founders(&self) -> Vec<Bytes> {
        let mut founders = self.founders.clone();
        founders.sort();
        founders
    }

    /// The memberships of all present and former members, without marks.
    pub fn memberships(&self) -> impl Iterator<Item = (&Bytes, Membership)> {
        self.periods.iter().map(|(user, periods)| {
            let since = periods.all().next().map_or(1, |(first, _)| first);
            let membership = Membership {
                periods: periods.clone(),
                history: self.history,
                created_ms: self.created_ms,
                pulls_from: self.pulls_from.map(|from| from.max(since)),
                left_ms: self.left_ms.get(user).copied().unwrap_or(0),
                ..Membership::default()
            };
            (user, membership)
        })
    }
}
