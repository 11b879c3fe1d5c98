//! A user's own marks: how far it has read, and what it hides; and the number of its unread
//! messages.
//!
//! The unread messages are counted anew each time: readable messages of others after the read mark,
//! within the current membership, that were not recalled or hidden. No counter is kept, so none can
//! drift.

use bytes::Bytes;
use strandline::{Batch, Limit, MAX_SEQUENCE, Receipt, Sequence};

use super::copies::Found;
use super::decision::Decision;
use super::event::{Event, Kind};
use super::trouble::{Result, Trouble};
use super::user::{Membership, User};
use super::{Messaging, each_once, names, valid_once};

/// Entries read at a time.
const PAGE: Limit =
    Limit { entries: 1024, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

/// The entries of a mark: for the user's terminals, and in its ledger.
const MARK_ENTRIES: usize = 2;

impl Messaging {
    /// Advances the read mark. False if it was there already. Waits for the disk.
    pub fn read(&self, conv: &[u8], user: &[u8], sequence: Sequence) -> Result<bool> {
        let moved = self.settle(|| self.decide_read(conv, user, sequence), |_| true)?;
        self.shorten_marks(user);
        Ok(moved)
    }

    /// The decision of [`Messaging::read`], for a caller that submits the batch together with
    /// others.
    pub fn decide_read(
        &self,
        conv: &[u8],
        user: &[u8],
        sequence: Sequence,
    ) -> Result<Decision<bool>> {
        let (conv, user) = self.conversation_and_user(conv, user)?;
        let (last, _) = self.messages.end(names::conversation(&conv))?;
        let sequence = sequence.min(last);
        self.user(&user, |ledger| {
            let membership = ledger.state.membership(&conv);
            let moves = membership.is_some_and(|membership| {
                membership.periods.is_member() && sequence > membership.read
            });
            if !moves {
                return Ok(Decision::Known(false));
            }
            let event = Event { sequence, ..Event::new(Kind::Read, &conv, &user) };
            let batch = self.mark(&user, &[event], ledger.version);
            Ok(Decision::on(&user, ledger.version, batch))
        })
    }

    /// Hides messages from this user. Returns how many of them it could see. Waits for the disk.
    pub fn hide(&self, conv: &[u8], user: &[u8], sequences: &[Sequence]) -> Result<usize> {
        let decide = || self.decide_hide(conv, user, sequences);
        let count = self.settle(decide, |receipt| Messaging::hidden_by(&receipt))?;
        self.shorten_marks(user);
        Ok(count)
    }

    /// The decision of [`Messaging::hide`], for a caller that submits the batch together with
    /// others.
    pub fn decide_hide(
        &self,
        conv: &[u8],
        user: &[u8],
        sequences: &[Sequence],
    ) -> Result<Decision<usize>> {
        let (conv, user) = self.conversation_and_user(conv, user)?;
        self.user(&user, |ledger| {
            let mut events = Vec::new();
            for sequence in each_once(sequences.iter().copied()) {
                if self.shows_message(&conv, &user, &ledger.state, sequence)? {
                    events.push(Event { sequence, ..Event::new(Kind::Hide, &conv, &user) });
                }
            }
            if events.is_empty() {
                return Ok(Decision::Known(0));
            }
            let batch = self.mark(&user, &events, ledger.version);
            Ok(Decision::on(&user, ledger.version, batch))
        })
    }

    /// The number of messages that the commit of a decision to hide has hidden.
    pub fn hidden_by(receipt: &Receipt) -> usize {
        receipt.sequences.len() / MARK_ENTRIES
    }

    /// Whether a user has so many marks that they are to be shortened.
    pub fn has_long_marks(&self, user: &[u8]) -> Result<bool> {
        self.users.is_long(&names::user_ledger(&names::valid(user)?))
    }

    /// Shortens the ledger of a user if marks have made it long. Waits for the disk.
    pub fn shorten_marks(&self, user: &[u8]) {
        if let Ok(user) = names::valid(user) {
            self.users.shorten(&self.engine, &names::user_ledger(&user));
        }
    }

    fn conversation_and_user(&self, conv: &[u8], user: &[u8]) -> Result<(Bytes, Bytes)> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        Ok((conv, names::valid(user)?))
    }

    /// The batch of a user's marks: for its terminals and for its ledger.
    fn mark(&self, user: &Bytes, events: &[Event], version: Sequence) -> Batch {
        let (inbox, ledger) = (names::inbox(user), names::user_ledger(user));
        let batch = Batch::new().if_last_of(&self.state, &ledger, version);
        events.iter().fold(batch, |batch, event| {
            let targets: [_; MARK_ENTRIES] =
                [(&self.sync, inbox.as_slice()), (&self.state, &ledger)];
            batch.fan_out(event.encode(), targets)
        })
    }

    fn shows_message(
        &self,
        conv: &Bytes,
        user: &Bytes,
        state: &User,
        sequence: Sequence,
    ) -> Result<bool> {
        let Some(membership) = state.membership(conv) else { return Ok(false) };
        if !membership.may_see(sequence) || membership.hidden.contains(&sequence) {
            return Ok(false);
        }
        Ok(match self.event_at(conv, user, sequence)? {
            Found::Event(_, event) => event.is_message(),
            Found::Lost(..) => true,
            Found::Nothing => false,
        })
    }

    /// The number of unread messages in these conversations, or in all conversations of the user.
    /// It is 0 for a conversation that does not exist.
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
                let count = membership
                    .map_or(Ok(0), |membership| self.unread_in(&conv, &user, membership))?;
                Ok((conv, count))
            };
            asked.into_iter().map(count).collect()
        })
    }

    pub(super) fn unread_in(
        &self,
        conv: &Bytes,
        user: &Bytes,
        membership: &Membership,
    ) -> Result<u64> {
        let Some(start) = membership.periods.start() else { return Ok(0) };
        let above = membership.read.max(start - 1) + 1;
        let mut count = 0;
        let walked = self.walk(conv, user, (above, MAX_SEQUENCE), false, PAGE, |seen| {
            // A damaged event may be a message: a user notices one unread message too many, but not
            // one too few.
            let is_other =
                seen.event.is_none_or(|event| event.kind == Kind::Message && event.user != *user);
            count += u64::from(is_other && !membership.hidden.contains(&seen.sequence));
            true
        });
        match walked {
            // If damage hides the end of the conversation, there may be an unread message.
            Err(Trouble::Engine(error)) if error.is_damage() => Ok(count.max(1)),
            walked => walked.map(|_| count),
        }
    }
}
