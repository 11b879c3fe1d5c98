//! Sending: one event to a conversation and to all who must get it, as one batch (P3).
//!
//! The batch of an event is made here, for messages as for joins and recalls:
//!
//! 1. the frame, stamped by the engine with the event's own sequence, to the conversation's
//!    timeline;
//! 2. the same frame, stored once, to each member's sync timeline, if it is pushed; of a change of
//!    those who may see the message;
//! 3. a line in the ledger of pulled events, if it is not, or others of the conversation were not;
//!    and at the first time a record for each member that it must look into the conversation from
//!    here on;
//! 4. the condition that the members are still those.
//!
//! A send needs no other one to be finished: sends of a conversation fill up one group as appends
//! do.

use bytes::Bytes;
use strandline::{Batch, MAX_ID_BYTES, Receipt, Store};

use super::Messaging;
use super::conversation::{Conversation, Mode};
use super::decision::Decision;
use super::event::{Event, HISTORY_JOINED, Kind, PULLED, PULLS};
use super::ledger::Ledger;
use super::names;
use super::trouble::{Result, Trouble};

/// What somebody wants to say.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where.
    pub conv: Bytes,
    /// Who.
    pub sender: Bytes,
    /// What.
    pub body: Bytes,
    /// The client's id for retries.
    pub id: Option<Bytes>,
    /// After how many milliseconds it expires; 0: as long as the stores say.
    pub lifetime_ms: u64,
}

/// Who gets an event besides the conversation.
pub(super) struct Audience<'a> {
    /// The members.
    pub conversation: &'a Conversation,
    /// One who is not a member yet.
    pub joiner: Option<&'a Bytes>,
    /// The members who may see what the event is about; `None`: all may.
    pub only: Option<&'a [Bytes]>,
}

impl Audience<'_> {
    fn count(&self) -> usize {
        self.conversation.member_count() + usize::from(self.joiner.is_some())
    }

    fn users(&self) -> impl Iterator<Item = &Bytes> {
        self.conversation.members().chain(self.joiner)
    }

    /// The sync timelines of those who are told.
    fn inboxes(&self) -> Vec<Vec<u8>> {
        match self.only {
            Some(only) => only.iter().map(|user| names::inbox(user)).collect(),
            None => self.users().map(|user| names::inbox(user)).collect(),
        }
    }
}

impl Messaging {
    /// Sends. Waits for the disk.
    pub fn send(&self, message: &Message) -> Result<Receipt> {
        self.settle(|| self.decide_send(message), |receipt| receipt)
    }

    /// The batch of a send, for a caller that submits it with others. An unknown conversation or a
    /// sender that is no member is refused, except for the retry of a send that was done. If the
    /// members change before the batch is committed, its basis has moved: [`Messaging::send`] it.
    pub fn decide_send(&self, message: &Message) -> Result<Decision<Receipt>> {
        let (conv, sender) = (names::valid(&message.conv)?, &message.sender);
        self.conversation(&conv, |ledger| {
            let sender = names::valid(sender)?;
            let id = message.id.as_ref().map(|id| id_of(&sender, id)).transpose()?;
            if !ledger.state.has(&sender) {
                let done = match &id {
                    Some(id) => {
                        self.messages.committed(&names::conversation(&conv), id, &message.body)?
                    }
                    None => None,
                };
                return done.map(Decision::Known).ok_or(Trouble::NoPermission);
            }
            let event = Event {
                lifetime_ms: message.lifetime_ms,
                body: message.body.clone(),
                ..Event::new(Kind::Message, &conv, &sender)
            };
            let audience = Audience { conversation: &ledger.state, joiner: None, only: None };
            let mut batch = self.post(Batch::new(), event, &audience, ledger, &[]);
            if let Some(id) = id {
                batch = batch.id_for(&id, &message.body);
            }
            Ok(Decision::on(&conv, ledger.version, batch))
        })
    }

    /// Adds to an empty batch what an event is: see the heading. `also`: further timelines that get
    /// the frame.
    pub(super) fn post(
        &self,
        batch: Batch,
        mut event: Event,
        audience: &Audience<'_>,
        ledger: &Ledger<Conversation>,
        also: &[(&Store, Vec<u8>)],
    ) -> Batch {
        let conversation = audience.conversation;
        let mode = conversation.settings.as_ref().map_or(Mode::Auto, |settings| settings.mode);
        let pushed = mode == Mode::Push
            || (mode == Mode::Auto && audience.count() <= self.options.push_members);
        event.flags |= if pushed { 0 } else { PULLED };
        event.flags |= if conversation.pulls || !pushed { PULLS } else { 0 };
        // Of a change the line tells whom it is for.
        let about =
            if event.is_change() { (event.about, event.flags & HISTORY_JOINED) } else { (0, 0) };
        let (conv, ledger_name) = (event.conv.clone(), names::conversation_ledger(&event.conv));
        let own = names::conversation(&conv);
        let inboxes = if pushed { audience.inboxes() } else { Vec::new() };
        let mut targets: Vec<(&Store, &[u8])> = vec![(&self.messages, &own)];
        targets.extend(also.iter().map(|(store, name)| (*store, name.as_slice())));
        targets.extend(inboxes.iter().map(|name| (&self.sync, name.as_slice())));
        let batch =
            batch.lifetime_ms(event.lifetime_ms).stamp_origin().fan_out(&event.encode(), targets);
        let batch = batch.if_last_of(&self.state, &ledger_name, ledger.version);
        if pushed && !conversation.pulls {
            return batch;
        }
        let nobody = Bytes::new();
        let kind = if pushed { Kind::Pushed } else { Kind::Pulled };
        let moved = Event { flags: about.1, about: about.0, ..Event::new(kind, &conv, &nobody) };
        // What expires is the event: that the conversation moved stays known.
        let batch = batch.lifetime_ms(0).append(&self.pulled, names::PULLED_LOG, &moved.encode());
        if conversation.pulls {
            return batch;
        }
        let ledgers = audience.users().map(|user| names::user_ledger(user));
        let told = [ledger_name].into_iter().chain(ledgers).collect::<Vec<_>>();
        let record = Event::new(Kind::Pulls, &conv, &nobody).encode();
        batch.fan_out(&record, told.iter().map(|name| (&self.state, name.as_slice())))
    }
}

/// An id belongs to a conversation and a sender. What stands for both must be nobody else's: a
/// collision would lose a message.
fn id_of(sender: &[u8], id: &[u8]) -> Result<Vec<u8>> {
    if id.len() > MAX_ID_BYTES {
        return Err(Trouble::TooBig { what: "an id", limit: MAX_ID_BYTES });
    }
    Ok(names::strong_digest([sender, id]).to_vec())
}
