//! The encoding of the bodies in messaging's timelines: events and the records of ledgers, all in
//! one frame (docs/messaging.md).
//!
//! ```text
//!  frame := sequence: u64, kind: u8, flags: u8, about, lifetime in ms (0: none),
//!           length: u8, conversation, length: u8, user, [run], body     plain numbers are varints
//!  flags := 1 pulled: the event is in the conversation's timeline only
//!         | 2 the conversation has, or may come to have, pulled events
//!         | 4 members see the history only from their own joining on; of an edit or a recall:
//!           only members who may see the message get it
//!         | 8 there is a run
//!  run   := first, last: the entries of the conversation from first to last are edits and recalls
//! ```
//!
//! The sequence is the event's own position in its conversation's timeline. The engine writes it
//! when it commits the event (its origin), so the copy in each sync timeline refers to the
//! original. Decoders are total: any bytes are an event, or `None`. The reader checks whether the
//! things that an event names exist.

use bytes::Bytes;
use strandline::{Entry, MAX_SEQUENCE, Sequence, TimeMs};

use super::names::MAX_ID_BYTES;

/// The kind of an event, or of a record in a ledger. Persisted: numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A user sent a message; `about` is how often it was edited.
    Message = 1,
    /// A message has a new body; `about` is its sequence.
    Edit = 2,
    /// A message was recalled; `about` is its sequence, or 0 in the entry of the message itself.
    Recall = 3,
    /// A user has read up to the sequence.
    Read = 4,
    /// A user became a member; `about` is when the conversation was created.
    Join = 5,
    /// A user is not a member any more; `about` is when the conversation was created.
    Leave = 6,
    /// A user hides the message at the sequence from itself.
    Hide = 7,
    /// Ledger of a conversation: it was created. Body: settings.
    Created = 8,
    /// Ledger of a conversation: members. Body: a list.
    Members = 9,
    /// Ledger of a user: it is a member from the sequence on, by the creation of the conversation.
    /// The time of the entry is that of the creation.
    Added = 10,
    /// Ledgers: the conversation has pulled events from here on.
    Pulls = 11,
    /// Ledgers: a snapshot begins. It replaces all records before it.
    Reset = 12,
    /// Ledger of a user: conversations with periods and marks. Body: a list.
    Memberships = 13,
    /// Ledger of pulled events: the conversation got a pulled event.
    Pulled = 14,
    /// Ledger of pulled events: a conversation that has pulled events got a pushed one.
    Pushed = 15,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        use Kind::{
            Added, Created, Edit, Hide, Join, Leave, Members, Memberships, Message, Pulled, Pulls,
            Pushed, Read, Recall, Reset,
        };
        let all = [
            Message,
            Edit,
            Recall,
            Read,
            Join,
            Leave,
            Hide,
            Created,
            Members,
            Added,
            Pulls,
            Reset,
            Memberships,
            Pulled,
            Pushed,
        ];
        all.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Edit => "edit",
            Kind::Recall => "recall",
            Kind::Read => "read",
            Kind::Join => "join",
            Kind::Leave => "leave",
            Kind::Hide => "hide",
            _ => NOTE,
        }
    }
}

/// The word for kinds that only ledgers have.
const NOTE: &str = "note";

/// The event is in the conversation's timeline only.
pub const PULLED: u8 = 1;
/// The conversation has, or may come to have, pulled events.
pub const PULLS: u8 = 2;
/// Members see the history only from their own joining on.
pub const HISTORY_JOINED: u8 = 4;
/// The event has a run; set and cleared by [`Event::encode`] alone.
const HAS_RUN: u8 = 8;

/// The times of an event.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Its timestamp: when it was committed.
    pub time_ms: TimeMs,
    /// When its lifetime began; another time than the timestamp after a clock was corrected.
    pub start_ms: TimeMs,
}

impl When {
    /// The times of an entry.
    pub fn of(entry: &Entry) -> When {
        When { time_ms: entry.time_ms, start_ms: entry.start_ms }
    }

    /// Both times, if no other start of the lifetime is known.
    pub fn at(time_ms: TimeMs) -> When {
        When { time_ms, start_ms: time_ms }
    }
}

/// A decoded frame. Its parts are slices of the entry's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its own sequence in the conversation's timeline; of reads and hides the sequence that is
    /// marked.
    pub sequence: Sequence,
    /// Its kind.
    pub kind: Kind,
    /// See [`PULLED`], [`PULLS`], [`HISTORY_JOINED`].
    pub flags: u8,
    /// The thing that it is about: see [`Kind`].
    pub about: u64,
    /// The lifetime after which it expires, in milliseconds; 0: none.
    pub lifetime_ms: u64,
    /// The conversation.
    pub conv: Bytes,
    /// The user who caused it.
    pub user: Bytes,
    /// Of an edit or a recall: the entries directly before it, from the first to the last, that are
    /// edits and recalls too. A history skips them.
    pub run: Option<(Sequence, Sequence)>,
    /// The content.
    pub body: Bytes,
}

impl Event {
    /// An event without flags and without a body.
    pub fn new(kind: Kind, conv: &Bytes, user: &Bytes) -> Event {
        Event {
            sequence: 0,
            kind,
            flags: 0,
            about: 0,
            lifetime_ms: 0,
            conv: conv.clone(),
            user: user.clone(),
            run: None,
            body: Bytes::new(),
        }
    }

    /// The encoded frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(54 + self.conv.len() + self.user.len() + self.body.len());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        let flags = (self.flags & !HAS_RUN) | if self.run.is_some() { HAS_RUN } else { 0 };
        out.extend_from_slice(&[self.kind as u8, flags]);
        put_number(&mut out, self.about);
        put_number(&mut out, self.lifetime_ms);
        put_name(&mut out, &self.conv);
        put_name(&mut out, &self.user);
        if let Some((first, last)) = self.run {
            put_number(&mut out, first);
            put_number(&mut out, last);
        }
        out.extend_from_slice(&self.body);
        out
    }

    /// Decodes an event that members get; `None` for other bytes and for records of ledgers.
    pub fn for_members(bytes: &Bytes) -> Option<Event> {
        Event::decode(bytes).filter(|event| event.kind.word() != NOTE)
    }

    /// Decodes an event or a record; `None` for other bytes.
    pub fn decode(bytes: &Bytes) -> Option<Event> {
        let mut parts = Parts::new(bytes);
        let sequence = u64::from_le_bytes(parts.take(8)?.as_ref().try_into().ok()?);
        if sequence > MAX_SEQUENCE {
            return None;
        }
        let (kind, flags) = (Kind::of(parts.byte()?)?, parts.byte()?);
        Some(Event {
            sequence,
            kind,
            flags: flags & !HAS_RUN,
            about: parts.sequence()?,
            lifetime_ms: parts.number()?,
            conv: parts.name()?,
            user: parts.name()?,
            run: if flags & HAS_RUN == 0 {
                None
            } else {
                Some((parts.sequence()?, parts.sequence()?))
            },
            body: parts.rest(),
        })
    }

    /// Whether the event is in the conversation's timeline only.
    pub fn is_pulled(&self) -> bool {
        self.flags & PULLED != 0
    }

    /// Whether it is an edit or a recall of a message.
    pub fn is_change(&self) -> bool {
        matches!(self.kind, Kind::Edit | Kind::Recall) && self.about != 0
    }

    /// Whether it is a mark of a user: how far it has read, or what it hides.
    pub fn is_mark(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Hide)
    }

    /// Whether it is a message, recalled or not.
    pub fn is_message(&self) -> bool {
        self.kind == Kind::Message || (self.kind == Kind::Recall && self.about == 0)
    }

    /// The sequence that readers are shown: that of the message for an edit or a recall.
    pub fn shown_sequence(&self) -> Sequence {
        match self.kind {
            Kind::Edit | Kind::Recall if self.is_change() => self.about,
            _ => self.sequence,
        }
    }

    /// When it expires, if it has a lifetime, given when the lifetime began.
    pub fn expires_at_ms(&self, start_ms: TimeMs) -> Option<TimeMs> {
        (self.lifetime_ms > 0).then(|| start_ms.saturating_add(self.lifetime_ms))
    }
}

/// Appends a varint: seven bits per byte, the lowest first.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the id of a conversation or user, which has at most 200 bytes.
pub fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(name.len() as u8);
    out.extend_from_slice(name);
}

/// Reads the parts of a frame, a list or a cursor.
pub struct Parts {
    rest: Bytes,
}

impl Parts {
    /// Reads from these bytes.
    pub fn new(bytes: &Bytes) -> Parts {
        Parts { rest: bytes.clone() }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.rest.len()).then(|| self.rest.split_to(count))
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// The next varint.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next varint, which is a sequence or a time; both have at most 63 bits.
    pub fn sequence(&mut self) -> Option<Sequence> {
        self.number().filter(|sequence| *sequence <= MAX_SEQUENCE)
    }

    /// The next id.
    pub fn name(&mut self) -> Option<Bytes> {
        let len = usize::from(self.byte()?);
        (len <= MAX_ID_BYTES).then(|| self.take(len))?
    }

    /// All bytes that are left.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_reads_back_as_written() {
        let (conv, user) = (Bytes::from_static(b"c1"), Bytes::from_static(b"ann"));
        let event = Event {
            sequence: 7,
            flags: PULLED,
            about: 300,
            lifetime_ms: u64::MAX,
            run: Some((2, 6)),
            body: Bytes::from_static(b"hello"),
            ..Event::new(Kind::Edit, &conv, &user)
        };
        assert_eq!(Event::decode(&event.encode().into()), Some(event));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_refused(bytes: Vec<u8>) {
            if let Some(event) = Event::decode(&bytes.into()) {
                prop_assert_eq!(Event::decode(&event.encode().into()), Some(event));
            }
        }
    }
}
