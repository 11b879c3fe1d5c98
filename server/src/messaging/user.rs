//! The state of a user's ledger: the conversations of which it is or was a member, how far it has
//! read them, and what it hides.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::conversation::History;
use super::event::{Event, HISTORY_JOINED, Kind, PULLS, Parts, put_name, put_number};
use super::ledger::{State, list_records};
use super::periods::Periods;

/// The memory of a hidden message and of a past membership, in bytes.
const HIDDEN_BYTES: usize = 24;
const PAST_BYTES: usize = 32;

/// A user's membership of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The periods of membership.
    pub periods: Periods,
    /// What it sees of the time before it joined.
    pub history: History,
    /// When the conversation was created.
    pub created_ms: TimeMs,
    /// How far it has read.
    pub read: Sequence,
    /// The sequences that it hides.
    pub hidden: BTreeSet<Sequence>,
    /// The sequence from which on it must read the conversation's timeline for events that are not
    /// pushed; `None`: all events are pushed.
    pub pulls_from: Option<Sequence>,
    /// When it last left.
    pub left_ms: TimeMs,
}

impl Membership {
    /// Whether nothing at or after a time concerns it.
    pub fn is_over(&self, from_ms: TimeMs) -> bool {
        !self.periods.is_member() && self.left_ms < from_ms
    }

    /// Whether it may see a sequence.
    pub fn may_see(&self, sequence: Sequence) -> bool {
        match self.history {
            History::All => self.periods.is_known() && sequence <= self.periods.last(),
            History::Joined => self.periods.contains(sequence),
        }
    }

    /// Whether it gets an event: an edit or a recall only if it may see the message.
    pub fn gets(&self, sequence: Sequence, event: &Event) -> bool {
        self.periods.contains(sequence) && (!event.is_change() || self.may_see(event.about))
    }

    /// Whether it got an event when the event was committed. Earlier versions sent an edit or a
    /// recall to all members.
    pub fn got_at_commit(&self, sequence: Sequence, event: &Event) -> bool {
        let is_for_some = event.is_change() && event.flags & HISTORY_JOINED != 0;
        self.periods.contains(sequence) && (!is_for_some || self.periods.contains(event.about))
    }

    /// Whether it may be shown text that was written at a sequence.
    pub fn may_read(&self, written: Sequence) -> bool {
        written <= self.periods.last()
    }

    /// The sequences that it may see, as inclusive ranges in ascending order.
    pub fn visible(&self) -> Vec<(Sequence, Sequence)> {
        match self.history {
            History::All if self.periods.is_known() => vec![(1, self.periods.last())],
            History::All => Vec::new(),
            History::Joined => self.periods.all().collect(),
        }
    }
}

/// The state of a user.
#[derive(Clone, Debug, Default)]
pub struct User {
    conversations: BTreeMap<Bytes, Membership>,
    /// The conversations that it must read for pulled events.
    pulled: BTreeSet<Bytes>,
    bytes: usize,
}

impl User {
    /// Its membership of a conversation, if it is or was a member.
    pub fn membership(&self, conv: &[u8]) -> Option<&Membership> {
        self.conversations.get(conv)
    }

    /// The conversations that it is a member of now, in byte order.
    pub fn current(&self) -> impl Iterator<Item = (&Bytes, &Membership)> {
        self.conversations.iter().filter(|(_, membership)| membership.periods.is_member())
    }

    /// All its present and past memberships, by conversation in byte order.
    pub fn all(&self) -> impl Iterator<Item = (&Bytes, &Membership)> {
        self.conversations.iter()
    }

    /// The conversations that it must read for pulled events, including those that it has left.
    pub fn pulled(&self) -> &BTreeSet<Bytes> {
        &self.pulled
    }

    /// Sets its membership of a conversation.
    pub fn put(&mut self, conv: &Bytes, membership: Membership) {
        if membership.pulls_from.is_some() {
            self.pulled.insert(conv.clone());
        }
        let bytes = |one: &Membership| {
            HIDDEN_BYTES * one.hidden.len() + PAST_BYTES * one.periods.past_count()
        };
        let now = bytes(&membership);
        let before = bytes(&std::mem::replace(self.entry(conv), membership));
        self.bytes = self.bytes + now - before;
    }

    fn entry(&mut self, conv: &Bytes) -> &mut Membership {
        let bytes = &mut self.bytes;
        self.conversations.entry(conv.clone()).or_insert_with(|| {
            *bytes += 2 * conv.len() + 260;
            Membership::default()
        })
    }

    fn begin(&mut self, record: &Event, conv: Bytes, created_ms: TimeMs) {
        let membership = self.entry(&conv);
        membership.periods.begin(record.sequence);
        membership.history = History::of_flags(record.flags);
        membership.created_ms = created_ms;
        if record.flags & PULLS != 0 {
            self.pulls(conv, record.sequence);
        }
    }

    fn pulls(&mut self, conv: Bytes, from: Sequence) {
        self.entry(&conv).pulls_from.get_or_insert(from);
        self.pulled.insert(conv);
    }

    fn listed(&mut self, list: &Bytes) -> Option<()> {
        let mut parts = Parts::new(list);
        while !parts.is_empty() {
            let conv = Bytes::copy_from_slice(&parts.name()?);
            let flags = parts.byte()?;
            let periods = Periods::decode(&mut parts)?;
            let (created_ms, read) = (parts.number()?, parts.number()?);
            let (pulls_from, left_ms) = (parts.number()?, parts.number()?);
            let mut hidden = BTreeSet::new();
            for _ in 0..parts.number()? {
                hidden.insert(parts.number()?);
            }
            let history = History::of_flags(flags);
            let pulls_from = (flags & PULLS != 0).then_some(pulls_from);
            self.put(
                &conv,
                Membership { periods, history, created_ms, read, hidden, pulls_from, left_ms },
            );
        }
        Some(())
    }
}

impl State for User {
    fn apply(&mut self, record: &Event, time_ms: TimeMs) -> bool {
        // A copy: a slice would keep the record's block alive.
        let conv = Bytes::copy_from_slice(&record.conv);
        match record.kind {
            Kind::Added => self.begin(record, conv, time_ms),
            Kind::Join => self.begin(record, conv, record.about),
            Kind::Leave => {
                let membership = self.entry(&conv);
                membership.periods.end(record.sequence);
                membership.left_ms = time_ms;
                self.bytes += PAST_BYTES;
            }
            Kind::Pulls => self.pulls(conv, record.sequence),
            Kind::Read => self.entry(&conv).read = record.sequence,
            Kind::Hide => {
                self.entry(&conv).hidden.insert(record.sequence);
                self.bytes += HIDDEN_BYTES;
            }
            Kind::Memberships => return self.listed(&record.body).is_some(),
            _ => return false,
        }
        true
    }

    fn records(&self) -> Vec<Event> {
        list_records(Kind::Memberships, self.conversations.iter(), |(conv, membership), list| {
            put_name(list, conv);
            list.push(
                membership.history.flag() | if membership.pulls_from.is_some() { PULLS } else { 0 },
            );
            membership.periods.encode(list);
            put_number(list, membership.created_ms);
            put_number(list, membership.read);
            put_number(list, membership.pulls_from.unwrap_or(0));
            put_number(list, membership.left_ms);
            put_number(list, membership.hidden.len() as u64);
            membership.hidden.iter().for_each(|sequence| put_number(list, *sequence));
        })
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        let things = |one: &Membership| 1 + one.hidden.len() + one.periods.past_count();
        self.conversations.values().map(things).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_weight_of_its_ledger() {
        let (mut user, conv, ann) =
            (User::default(), Bytes::from_static(b"c"), Bytes::from_static(b"ann"));
        for sequence in 1..100 {
            for kind in [Kind::Join, Kind::Pulls, Kind::Hide, Kind::Leave] {
                assert!(user.apply(&Event { sequence, ..Event::new(kind, &conv, &ann) }, 5));
            }
        }
        let mut again = User::default();
        user.records().iter().for_each(|record| assert!(again.apply(record, 0)));
        assert_eq!((again.bytes(), again.count()), (user.bytes(), user.count()));
        assert_eq!(again.conversations, user.conversations);
        assert!(user.count() > 190 && user.bytes() > 99 * (HIDDEN_BYTES + PAST_BYTES));
    }
}
