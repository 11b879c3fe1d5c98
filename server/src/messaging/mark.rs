//! What a user marks for itself: how far it has read, what it hides; and what it has not read.
//!
//! Unread is computed from what is there, each time: readable messages of others above the read mark and the start of the membership,
//! that were not recalled or hidden. Nothing is counted up or down, so nothing can drift.

use bytes::Bytes;
use strandline::{Batch, Limit, Sequence};

use super::event::{Event, Kind};
use super::trouble::Result;
use super::user::{Membership, User};
use super::{Decision, Messaging, each_once, names, valid_once};

/// Entries read at a time.
const PAGE: Limit =
    Limit { entries: 1024, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

impl Messaging {
    /// Moves the read mark up; false when it was there. Waits for the disk.
    pub fn read(&self, conv: &[u8], user: &[u8], sequence: Sequence) -> Result<bool> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        let user = names::valid(user)?;
        let (last, _) = self.messages.end(&names::conversation(&conv))?;
        let sequence = sequence.min(last);
        let moved = self.decide(|| {
            self.user(&user, |ledger| {
                let membership = ledger.state.membership(&conv);
                let moves = membership
                    .is_some_and(|membership| membership.periods.is_member() && sequence > membership.read);
                if !moves {
                    return Ok(Decision::Known(false));
                }
                let event = Event { sequence, ..Event::new(Kind::Read, &conv, &user) };
                Ok(Decision::Commit(Box::new(self.mark(&user, &[event], ledger.version)), true))
            })
        })?;
        self.users.shorten(&self.engine, &names::user_ledger(&user));
        Ok(moved)
    }

    /// Hides messages from this user; gives how many it could see. Waits for the disk.
    pub fn hide(&self, conv: &[u8], user: &[u8], sequences: &[Sequence]) -> Result<usize> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        let user = names::valid(user)?;
        let sequences = each_once(sequences.iter().copied());
        let count = self.decide(|| {
            self.user(&user, |ledger| {
                let mut events = Vec::new();
                for sequence in sequences.iter().copied() {
                    if self.shows_message(&conv, &ledger.state, sequence)? {
                        events.push(Event { sequence, ..Event::new(Kind::Hide, &conv, &user) });
                    }
                }
                if events.is_empty() {
                    return Ok(Decision::Known(0));
                }
                Ok(Decision::Commit(Box::new(self.mark(&user, &events, ledger.version)), events.len()))
            })
        })?;
        self.users.shorten(&self.engine, &names::user_ledger(&user));
        Ok(count)
    }

    /// A user's own events: to its terminals and to its ledger.
    fn mark(&self, user: &Bytes, events: &[Event], version: Sequence) -> Batch {
        let (inbox, ledger) = (names::inbox(user), names::user_ledger(user));
        let batch = Batch::new().if_last_of(&self.state, &ledger, version);
        events.iter().fold(batch, |batch, event| {
            let targets = [(&self.sync, inbox.as_slice()), (&self.state, &ledger)];
            batch.fan_out(&event.encode(), targets)
        })
    }

    fn shows_message(&self, conv: &Bytes, user: &User, sequence: Sequence) -> Result<bool> {
        let Some(membership) = user.membership(conv) else { return Ok(false) };
        if !membership.may_see(sequence) || membership.hidden.contains(&sequence) {
            return Ok(false);
        }
        let entry = self.messages.get(&names::conversation(conv), sequence)?;
        let event = entry.and_then(|entry| Event::decode(&entry.body));
        Ok(event.is_some_and(|event| event.is_message()))
    }

    /// Unread messages in these conversations, or in all that the user is a member of. One that does not exist has none.
    pub fn unread(&self, user: &[u8], convs: &[Bytes]) -> Result<Vec<(Bytes, u64)>> {
        let user = names::valid(user)?;
        let convs = valid_once(convs)?;
        self.user(&user, |ledger| {
            let asked: Vec<Bytes> = if convs.is_empty() {
                ledger.state.current().map(|(conv, _)| conv.clone()).collect()
            } else {
                convs
            };
            let count = |conv: Bytes| {
                let membership = ledger.state.membership(&conv);
                let count =
                    membership.map_or(Ok(0), |membership| self.unread_in(&conv, &user, membership))?;
                Ok((conv, count))
            };
            asked.into_iter().map(count).collect()
        })
    }

    pub(super) fn unread_in(&self, conv: &[u8], user: &[u8], membership: &Membership) -> Result<u64> {
        let Some(start) = membership.periods.start() else { return Ok(0) };
        let name = names::conversation(conv);
        let mut cursor = membership.read.max(start - 1);
        let mut count = 0;
        loop {
            let page = self.messages.range(&name, cursor + 1.., PAGE)?;
            let events =
                page.entries.iter().filter_map(|entry| Some((entry.sequence, Event::decode(&entry.body)?)));
            let unread = events.filter(|(sequence, event)| {
                event.kind == Kind::Message && event.user != user && !membership.hidden.contains(sequence)
            });
            count += unread.count() as u64;
            match page.entries.last() {
                Some(last) if page.more => cursor = last.sequence,
                _ => return Ok(count),
            }
        }
    }
}
