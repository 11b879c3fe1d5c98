//! What a sync gives: a page of events as terminals see them, and what the terminal's cursor is
//! worth (P11).

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::cursor::Position;
use super::event::{Event, Kind};

/// An event as a terminal sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its sequence; of an edit or a recall that of the message.
    pub sequence: Sequence,
    /// When it happened.
    pub time_ms: TimeMs,
    /// Who did it.
    pub sender: Bytes,
    /// What it is.
    pub kind: &'static str,
    /// What was said.
    pub body: Bytes,
    /// How often its message was edited.
    pub edited: u64,
    /// Its body cannot be read any more; who did it is not known, nor what it is.
    pub is_damaged: bool,
}

/// The kind of what stands for entries of a sync timeline that cannot be read.
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

    /// What there is to say of it besides its five parts: names and values.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let all = [("edited", self.edited), ("damaged", u64::from(self.is_damaged))];
        all.into_iter().filter(|(_, value)| *value > 0)
    }

    /// Whether there is.
    pub fn has_attributes(&self) -> bool {
        self.attributes().next().is_some()
    }

    /// An event that cannot be read anywhere: of a message its place is left.
    pub(super) fn damaged(sequence: Sequence, time_ms: TimeMs) -> Shown {
        Shown { sequence, is_damaged: true, ..Shown::nothing(time_ms) }
    }

    /// In a sync, entries of which nothing is known.
    pub(super) fn lost() -> Shown {
        Shown { kind: LOST, ..Shown::nothing(0) }
    }

    /// Where there is no message yet.
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

/// An event on its way to a terminal.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its conversation.
    pub conv: Bytes,
    /// The event.
    pub shown: Shown,
    /// The place behind it.
    pub(super) position: Position,
}

/// What a cursor is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything behind it is here or follows.
    Ok,
    /// Something behind it is gone for good.
    Trimmed,
    /// It is ahead of everything: an older copy of the directory was put back.
    Future,
    /// It is of another history.
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

    /// Whether one can go on from it.
    pub fn goes_on(self) -> bool {
        matches!(self, Standing::Ok | Standing::Trimmed)
    }
}

/// A page of what a terminal lacks.
#[derive(Clone, Debug)]
pub struct SyncPage {
    /// What the cursor was worth.
    pub verdict: Standing,
    /// The place before the first event, behind what was passed over: who keeps that lacks none of
    /// them.
    pub start: Vec<u8>,
    /// What to pass next time.
    pub cursor: Vec<u8>,
    /// Whether the limit kept something back.
    pub more: bool,
    /// The events.
    pub deliveries: Vec<Delivery>,
}

impl SyncPage {
    /// Nothing is behind this cursor.
    pub(super) fn end(cursor: Vec<u8>) -> SyncPage {
        let start = cursor.clone();
        SyncPage { verdict: Standing::Ok, start, cursor, more: false, deliveries: Vec::new() }
    }

    /// The cursor belongs to something else: begin with the oldest that is kept.
    pub(super) fn start_again(verdict: Standing) -> SyncPage {
        SyncPage { verdict, ..SyncPage::end(b"0".to_vec()) }
    }
}

/// One event of a conversation, read for a user.
pub struct Seen {
    /// Its place.
    pub sequence: Sequence,
    /// When it was committed; of what is damaged not later.
    pub time_ms: TimeMs,
    /// What it is; `None`: it is damaged, and there is no copy.
    pub event: Option<Event>,
    /// How often its message was edited, if that was looked up.
    pub edited: u64,
}

impl Seen {
    /// Whether a history shows it: what is damaged may be a message.
    pub fn is_in_history(&self) -> bool {
        let shows =
            |event: &Event| event.is_message() || matches!(event.kind, Kind::Join | Kind::Leave);
        self.event.as_ref().is_none_or(shows)
    }

    /// Whether it is, or may be, a message that somebody sent.
    pub fn may_be_message(&self) -> bool {
        self.event.as_ref().is_none_or(Event::is_message)
    }

    /// As a terminal sees it.
    pub fn shown(self) -> Shown {
        match self.event {
            Some(event) => {
                // A message as it is stored says so itself.
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
