//! Editing and recalling: what is stored changes at once, and an event tells everybody, in one batch.
//!
//! The conversation's own entry is edited in place: it is the truth. Copies in sync timelines are not touched; who shows one asks
//! first whether the conversation's ledger of changes has moved since the copy was written, and then shows the original.

use bytes::Bytes;
use strandline::{Batch, Limit, Sequence, TimeMs};

use super::copies::{Found, When};
use super::event::{Event, Kind};
use super::send::Audience;
use super::trouble::Result;
use super::{Decision, Messaging, names};

/// Records of changes read at a time.
const PAGE: Limit =
    Limit { entries: 1024, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

impl Messaging {
    /// Replaces the body of a message of one's own. False when there is no such message. Waits for the disk.
    pub fn edit(&self, conv: &[u8], user: &[u8], sequence: Sequence, body: &Bytes) -> Result<bool> {
        self.change(conv, user, sequence, Kind::Edit, body)
    }

    /// Takes a message of one's own back: its body goes. False when there is no such message. Waits for the disk.
    pub fn recall(&self, conv: &[u8], user: &[u8], sequence: Sequence) -> Result<bool> {
        self.change(conv, user, sequence, Kind::Recall, &Bytes::new())
    }

    fn change(&self, conv: &[u8], user: &[u8], sequence: Sequence, kind: Kind, body: &Bytes) -> Result<bool> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        let user = names::valid(user)?;
        self.decide(|| {
            // Before the look at the message: a change in between makes the batch fail.
            let (changes_last, _) = self.state.end(&names::changes_ledger(&conv))?;
            let Some((when, message)) = self.own_message(&conv, &user, kind, sequence)? else {
                return Ok(Decision::Known(false));
            };
            let rewritten = self.rewritten(kind, &user, (sequence, when.time_ms), &message, body)?;
            self.conversation(&conv, |ledger| {
                if !ledger.state.has(&user) {
                    return Ok(Decision::Known(false));
                }
                let left_ms = message
                    .expires_at_ms(when.start_ms)
                    .map_or(0, |at_ms| at_ms.saturating_sub(self.engine.now_ms()).max(1));
                let event = Event {
                    about: sequence,
                    lifetime_ms: left_ms,
                    body: body.clone(),
                    ..Event::new(kind, &conv, &user)
                };
                let audience = Audience { conversation: &ledger.state, joiner: None };
                let note = Event { body: Bytes::new(), ..event.clone() };
                let batch = self.post(Batch::new(), event, &audience, ledger, &[]);
                let changes_name = names::changes_ledger(&conv);
                let batch = batch
                    .lifetime_ms(left_ms)
                    .append(&self.state, &changes_name, &note.encode())
                    .if_last_of(&self.state, &changes_name, changes_last);
                let own = names::conversation(&conv);
                let batch = rewritten.iter().fold(batch, |batch, (sequence, now)| {
                    batch.edit(&self.messages, &own, *sequence, &now.encode())
                });
                Ok(Decision::Commit(Box::new(batch), true))
            })
        })
    }

    /// The message and its time, if this user may change it now.
    ///
    /// Of a message that is damaged some member's copy tells whose it was. Where none does, a member may still recall it: there is
    /// nothing to take away but its place. To edit it is refused with the damage.
    fn own_message(
        &self,
        conv: &Bytes,
        user: &Bytes,
        kind: Kind,
        sequence: Sequence,
    ) -> Result<Option<(When, Event)>> {
        let (when, message) = match self.event_at(conv, user, sequence)? {
            Found::Event(when, event) => (when, event),
            Found::Lost(when, _, author) if kind == Kind::Recall => {
                let author = author.unwrap_or_else(|| user.clone());
                (when, Event { sequence, ..Event::new(Kind::Message, conv, &author) })
            }
            Found::Lost(_, error, _) => return Err(error.into()),
            Found::Nothing => return Ok(None),
        };
        let window_ms = self.options.change_window_ms;
        // A refusal goes by sure time: a clock that jumps ahead closes no window.
        let in_time = window_ms == 0 || self.engine.sure_now_ms() < when.start_ms.saturating_add(window_ms);
        let own = message.kind == Kind::Message && message.user == *user && in_time;
        Ok(own.then_some((when, message)))
    }

    /// What is stored from now on: the message, and when it is recalled also what it was edited to.
    fn rewritten(
        &self,
        kind: Kind,
        user: &Bytes,
        (sequence, time_ms): (Sequence, TimeMs),
        message: &Event,
        body: &Bytes,
    ) -> Result<Vec<(Sequence, Event)>> {
        let recalled = kind == Kind::Recall;
        let now = Event {
            sequence,
            kind: if recalled { Kind::Recall } else { Kind::Message },
            body: body.clone(),
            ..message.clone()
        };
        let mut all = vec![(sequence, now)];
        if !recalled {
            return Ok(all);
        }
        for change in self.changes_of(&message.conv, sequence, time_ms)? {
            if change.kind != Kind::Edit {
                continue;
            }
            // As it is stored: the ledger's note does not know whether it is pulled. One that cannot be read shows no body.
            if let Found::Event(_, edit) = self.event_at(&message.conv, user, change.sequence)? {
                all.push((change.sequence, Event { body: Bytes::new(), ..edit }));
            }
        }
        Ok(all)
    }

    /// The changes of a message, oldest first. They came after it, so the ledger is read from its time on.
    pub(super) fn changes_of(&self, conv: &[u8], sequence: Sequence, since_ms: TimeMs) -> Result<Vec<Event>> {
        let name = names::changes_ledger(conv);
        let mut changes = Vec::new();
        let mut cursor = self.state.sequence_at(&name, since_ms)?.saturating_sub(1);
        loop {
            let page = self.state.read_after(&name, cursor, PAGE)?;
            let events = page.entries.iter().filter_map(|entry| Event::decode(&entry.body));
            changes.extend(events.filter(|event| event.about == sequence));
            if !page.more {
                return Ok(changes);
            }
            cursor = page.next;
        }
    }
}
