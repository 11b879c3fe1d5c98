//! Editing and recalling: what is stored changes at once, and an event tells everybody, in one batch.
//!
//! The conversation's own entry is edited in place: it is the truth. Copies in sync timelines are not touched; who shows one asks
//! first whether the conversation's ledger of changes has moved since the copy was written, and then shows the original.

use bytes::Bytes;
use strandline::{Batch, Entry, Limit, Sequence, TimeMs};

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
            let Some((entry, message)) = self.own_message(&conv, &user, sequence)? else {
                return Ok(Decision::Known(false));
            };
            let rewritten = self.rewritten(kind, &entry, &message, body)?;
            self.conversation(&conv, |ledger| {
                if !ledger.state.has(&user) {
                    return Ok(Decision::Known(false));
                }
                let left_ms = message
                    .expires_at_ms(entry.start_ms)
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

    /// The message, if this user may change it now.
    fn own_message(&self, conv: &[u8], user: &Bytes, sequence: Sequence) -> Result<Option<(Entry, Event)>> {
        let Some(entry) = self.messages.get(&names::conversation(conv), sequence)? else { return Ok(None) };
        let window_ms = self.options.change_window_ms;
        // A refusal goes by sure time: a clock that jumps ahead closes no window.
        let in_time = window_ms == 0 || self.engine.sure_now_ms() < entry.start_ms.saturating_add(window_ms);
        let message = Event::decode(&entry.body);
        let own = message.filter(|event| event.kind == Kind::Message && event.user == *user && in_time);
        Ok(own.map(|message| (entry, message)))
    }

    /// What is stored from now on: the message, and when it is recalled also what it was edited to.
    fn rewritten(
        &self,
        kind: Kind,
        entry: &Entry,
        message: &Event,
        body: &Bytes,
    ) -> Result<Vec<(Sequence, Event)>> {
        let recalled = kind == Kind::Recall;
        let now = Event {
            sequence: entry.sequence,
            kind: if recalled { Kind::Recall } else { Kind::Message },
            body: body.clone(),
            ..message.clone()
        };
        let mut all = vec![(entry.sequence, now)];
        if !recalled {
            return Ok(all);
        }
        let own = names::conversation(&message.conv);
        for change in self.changes_of(&message.conv, entry.sequence, entry.time_ms)? {
            if change.kind != Kind::Edit {
                continue;
            }
            // As it is stored: the ledger's note does not know whether it is pulled.
            let stored = self.messages.get(&own, change.sequence)?;
            if let Some(edit) = stored.and_then(|entry| Event::decode(&entry.body)) {
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
