//! The result of a sync: a page of events as terminals see them, and the verdict on the terminal's
//! cursor (P11).

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::cursor::Position;
use super::event::{Event, Kind};

/// An event as a terminal sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its sequence; that of the message for an edit or a recall.
    pub sequence: Sequence,
    /// When it was committed.
    pub time_ms: TimeMs,
    /// The user who caused it.
    pub sender: Bytes,
    /// Its kind.
    pub kind: &'static str,
    /// The content.
    pub body: Bytes,
    /// How often its message was edited.
    pub edited: u64,
    /// The body cannot be read any more; the sender and the kind are not known.
    pub is_damaged: bool,
}

/// The kind that stands for entries of a sync timeline that cannot be read.
const LOST: &str = "lost";

impl Shown {
    pub(super) fn of(time_ms: TimeMs, event: Event, edited: u64) -> Shown {
        Shown {
            sequence: event.shown_sequence(),
            time_ms,
            sender: event.user,
            kind: event.kind.word(),
            body: event.body,
            edited,
            is_damaged: false,
        }
    }

    /// Its attributes besides the five parts: names and values.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let all = [("edited", self.edited), ("damaged", u64::from(self.is_damaged))];
        all.into_iter().filter(|(_, value)| *value > 0)
    }

    /// Whether it has attributes.
    pub fn has_attributes(&self) -> bool {
        self.attributes().next().is_some()
    }

    /// An event that cannot be read anywhere: only its sequence is known.
    pub(super) fn damaged(sequence: Sequence, time_ms: TimeMs) -> Shown {
        Shown { sequence, is_damaged: true, ..Shown::nothing(time_ms) }
    }

    /// In a sync, entries of which nothing is known.
    pub(super) fn lost() -> Shown {
        Shown { kind: LOST, ..Shown::nothing(0) }
    }

    /// The value where there is no message yet.
    pub(super) fn nothing(time_ms: TimeMs) -> Shown {
        Shown {
            sequence: 0,
            time_ms,
            sender: Bytes::new(),
            kind: Kind::Message.word(),
            body: Bytes::new(),
            edited: 0,
            is_damaged: false,
        }
    }
}

/// An event on a page.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its conversation.
    pub conv: Bytes,
    /// The event.
    pub shown: Shown,
    /// The position after it.
    pub(super) position: Position,
}

/// The verdict on a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything after it is on this page or a later one.
    Ok,
    /// Something after it is gone for good.
    Trimmed,
    /// It is after the end of everything: an older copy of the directory was put back.
    Future,
    /// It belongs to another history.
    Epoch,
}

impl Standing {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Ok => "OK",
            Standing::Trimmed => "TRIMMED",
            Standing::Future => "FUTURE",
            Standing::Epoch => "EPOCH",
        }
    }

    /// Whether a terminal can continue from it.
    pub fn goes_on(self) -> bool {
        matches!(self, Standing::Ok | Standing::Trimmed)
    }
}

/// A page of the events that a terminal lacks.
#[derive(Clone, Debug)]
pub struct SyncPage {
    /// The verdict on the cursor.
    pub verdict: Standing,
    /// The cursor before the first event, after everything that was skipped. A terminal that keeps
    /// this cursor misses none of the events.
    pub start: Vec<u8>,
    /// The cursor for the next sync.
    pub cursor: Vec<u8>,
    /// Whether there is more, which the limit excluded.
    pub more: bool,
    /// The events.
    pub deliveries: Vec<Delivery>,
}

impl SyncPage {
    /// The page for a cursor after which there is nothing.
    pub(super) fn end(cursor: Vec<u8>) -> SyncPage {
        let start = cursor.clone();
        SyncPage { verdict: Standing::Ok, start, cursor, more: false, deliveries: Vec::new() }
    }

    /// The page for a cursor of something else: the terminal begins with the oldest event that is
    /// kept.
    pub(super) fn start_again(verdict: Standing) -> SyncPage {
        SyncPage { verdict, ..SyncPage::end(b"0".to_vec()) }
    }
}

/// An event of a conversation, read for a user.
pub struct Seen {
    /// Its sequence.
    pub sequence: Sequence,
    /// When it was committed; of a damaged event, an estimate.
    pub time_ms: TimeMs,
    /// The event; `None`: it is damaged, and there is no copy.
    pub event: Option<Event>,
    /// How often its message was edited, if that was looked up.
    pub edited: u64,
}

impl Seen {
    /// Whether a history shows it. A damaged event counts, since it may be a message.
    pub fn is_in_history(&self) -> bool {
        let shows =
            |event: &Event| event.is_message() || matches!(event.kind, Kind::Join | Kind::Leave);
        self.event.as_ref().is_none_or(shows)
    }

    /// Whether it is, or may be, a message.
    pub fn may_be_message(&self) -> bool {
        self.event.as_ref().is_none_or(Event::is_message)
    }

    /// The event as a terminal sees it.
    pub fn shown(self) -> Shown {
        match self.event {
            Some(event) => {
                // A stored message has the number of its edits in `about`.
                let edited = if event.kind == Kind::Message {
                    event.about.max(self.edited)
                } else {
                    self.edited
                };
                Shown::of(self.time_ms, event, edited)
            }
            None => Shown::damaged(self.sequence, self.time_ms),
        }
    }
}
