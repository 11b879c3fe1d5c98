//! Sending: one event to a conversation and to all who must get it, as one batch (P3).
//!
//! This module builds the batch of every event: messages, joins, leaves, edits and recalls. It has:
//!
//! 1. the frame for the conversation's timeline, in which the engine writes the event's own
//!    sequence;
//! 2. if the event is pushed, the same frame, stored once, for each member's sync timeline; of an
//!    edit or a recall only for members who may see the message;
//! 3. if the event is pulled, or the conversation may have pulled events, a line in the ledger of
//!    pulled events; and with the first pulled event a record in the ledgers of the conversation
//!    and of each member, that the member must read the conversation's timeline from here on;
//! 4. the condition that membership has not changed.
//!
//! A send does not wait for other sends: the sends of a conversation fill one group, as appends do.

use bytes::Bytes;
use strandline::{Batch, MAX_ID_BYTES, Receipt, Store, TargetList};

use super::Messaging;
use super::conversation::{Conversation, Mode};
use super::decision::Decision;
use super::event::{Event, HISTORY_JOINED, Kind, PULLED, PULLS};
use super::ledger::Ledger;
use super::names;
use super::stores::limit_of;
use super::trouble::{Result, Trouble};

/// A message that a user wants to send.
#[derive(Clone, Debug)]
pub struct Message {
    /// The conversation.
    pub conv: Bytes,
    /// The sender.
    pub sender: Bytes,
    /// The content.
    pub body: Bytes,
    /// The client's id for retries.
    pub id: Option<Bytes>,
    /// After how many milliseconds it expires; 0: when its stores say.
    pub lifetime_ms: u64,
}

/// The users who get an event.
pub(super) struct Audience<'a> {
    /// The members.
    pub conversation: &'a Conversation,
    /// A user who is not a member yet.
    pub joiner: Option<&'a Bytes>,
    /// The members who may see the message that the event is about; `None`: all may.
    pub only: Option<&'a [Bytes]>,
}

impl Audience<'_> {
    fn count(&self) -> usize {
        self.conversation.member_count() + usize::from(self.joiner.is_some())
    }

    fn users(&self) -> impl Iterator<Item = &Bytes> {
        self.conversation.members().chain(self.joiner)
    }

    /// Whether the sync timelines of the users who get the event are worth a list: they are those
    /// of all members, who are not few.
    fn has_list(&self) -> bool {
        let all = self.joiner.is_none() && self.only.is_none();
        all && self.conversation.member_count() >= TargetList::PAYS_FROM
    }

    /// The sync timelines of the users who get the event.
    fn inboxes(&self) -> Vec<Vec<u8>> {
        match self.only {
            Some(only) => only.iter().map(|user| names::inbox(user)).collect(),
            None => self.users().map(|user| names::inbox(user)).collect(),
        }
    }
}

impl Messaging {
    /// Sends a message. Waits for the disk.
    pub fn send(&self, message: &Message) -> Result<Receipt> {
        self.settle(|| self.decide_send(message), |receipt| receipt)
    }

    /// The decision of a send, for a caller that submits the batch together with others. A send is
    /// refused if the conversation does not exist, or if the sender is not a member; except for the
    /// retry of a send that was committed. If the members change before the batch is committed, its
    /// basis has moved, and the caller must use [`Messaging::send`].
    pub fn decide_send(&self, message: &Message) -> Result<Decision<Receipt>> {
        let (conv, sender) = (names::valid(&message.conv)?, &message.sender);
        self.conversation(&conv, |ledger| {
            let sender = names::valid(sender)?;
            let id = message.id.as_ref().map(|id| id_of(&sender, id)).transpose()?;
            if !ledger.state.has(&sender) {
                let done = match &id {
                    Some(id) => {
                        self.messages.committed(names::conversation(&conv), id, &message.body)?
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

    /// Adds the parts of an event to an empty batch: see the heading. `also`: further timelines
    /// that get the frame.
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
        // The line of an edit or a recall names the message, and whether only some members may see
        // it.
        let about =
            if event.is_change() { (event.about, event.flags & HISTORY_JOINED) } else { (0, 0) };
        let (conv, ledger_name) = (event.conv.clone(), names::conversation_ledger(&event.conv));
        let own = names::conversation(&conv);
        let list = (pushed && audience.has_list()).then(|| self.inboxes_of(audience)).flatten();
        let inboxes = if pushed && list.is_none() { audience.inboxes() } else { Vec::new() };
        let mut targets: Vec<(&Store, &[u8])> = vec![(&self.messages, &own)];
        targets.extend(also.iter().map(|(store, name)| (*store, name.as_slice())));
        targets.extend(inboxes.iter().map(|name| (&self.sync, name.as_slice())));
        let batch = batch.lifetime(limit_of(event.lifetime_ms)).stamp_origin();
        let frame = event.encode();
        let batch = match list {
            Some(list) => batch.fan_out_to_list(&frame, targets, list),
            None => batch.fan_out(&frame, targets),
        };
        let batch = batch.if_last_of(&self.state, &ledger_name, ledger.version);
        if pushed && !conversation.pulls {
            return batch;
        }
        let nobody = Bytes::new();
        let kind = if pushed { Kind::Pushed } else { Kind::Pulled };
        let moved = Event { flags: about.1, about: about.0, ..Event::new(kind, &conv, &nobody) };
        // The event expires, but the line that the conversation has an event does not expire with
        // it.
        let batch = batch.lifetime(None).append(&self.pulled, names::PULLED_LOG, moved.encode());
        if conversation.pulls {
            return batch;
        }
        let ledgers = audience.users().map(|user| names::user_ledger(user));
        let ledgers = [ledger_name].into_iter().chain(ledgers).collect::<Vec<_>>();
        let record = Event::new(Kind::Pulls, &conv, &nobody).encode();
        batch.fan_out(&record, ledgers.iter().map(|name| (&self.state, name.as_slice())))
    }

    /// The sync timelines of all members as a list, which stays with the conversation. `None`: a
    /// name is not allowed, or they are too many; the batch that names them says so.
    fn inboxes_of<'a>(&self, audience: &Audience<'a>) -> Option<&'a TargetList> {
        let make = || {
            let names = audience.inboxes();
            self.engine.target_list(names.iter().map(|name| (&self.sync, name.as_slice())))
        };
        audience.conversation.inboxes(make).ok()
    }
}

/// The engine's id of a send. Ids are per conversation and sender. The digest must be unique for
/// the pair of sender and id: a collision would lose a message.
fn id_of(sender: &[u8], id: &[u8]) -> Result<Vec<u8>> {
    if id.len() > MAX_ID_BYTES {
        return Err(Trouble::TooBig { what: "an id", limit: MAX_ID_BYTES });
    }
    Ok(names::strong_digest([sender, id]).to_vec())
}
