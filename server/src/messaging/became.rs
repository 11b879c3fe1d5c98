//! The newest change of each message: edits and recalls, found by the message that they change.
//!
//! ```text
//!  ledger             content                                    answers
//!  m/conv{sequence}   the newest change of that message; one     which body is current,
//!                     ledger for each message ever changed       who may read it
//!  e/conv             the newest change of the conversation,     whether anything changed
//!                     and how many messages have a ledger        since a time; runs
//! ```
//!
//! Each change appends the same record to both. Only the last record of a ledger counts; older ones
//! are trimmed. So the size of the ledgers depends on the number of changed messages, not on how
//! often they were changed. Looking up one message reads no record of other messages, and no record
//! at all if the conversation has not changed since.
//!
//! An earlier version kept one record for each change in `e/conv`, and no ledgers of messages. Such
//! a ledger is still read; the next change in its conversation writes the ledgers of messages from
//! it.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Batch, Entry, Limit, Sequence, TimeMs, Trim};

use super::around::{Piece, Scan};
use super::event::{Event, Kind, Parts, When, put_number};
use super::trouble::{Result, Trouble};
use super::{Messaging, names};

/// Records read at a time.
const PAGE: Limit =
    Limit { entries: 1024, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

/// Records written at a time.
const WRITTEN: usize = 500;

/// A ledger is trimmed to its last record each time its last sequence is a multiple of this.
const MOST_OF_A_MESSAGE: u64 = 8;
const MOST_OF_ALL: u64 = 64;

/// The state of a message after its newest change.
#[derive(Clone, Debug)]
pub struct Became {
    /// The kind of the newest change: an edit or a recall.
    pub kind: Kind,
    /// The sequence of the newest change.
    pub sequence: Sequence,
    /// The user who made it.
    pub user: Bytes,
    /// How often the message was edited.
    pub edited: u64,
    /// The newest edit, and when it was committed.
    pub edit: Option<(Sequence, TimeMs)>,
    /// When the message was sent; zeros: not known.
    pub message: When,
}

/// The newest change of a conversation.
#[derive(Clone, Debug, Default)]
pub struct NewestChange {
    /// The sequence of the ledger's last record.
    pub last: Sequence,
    /// The sequence of the change; 0: not known, or there is none.
    sequence: Sequence,
    /// The changes directly before it.
    run: Option<(Sequence, Sequence)>,
    /// The number of messages that have a ledger.
    messages: u64,
}

impl NewestChange {
    /// The changes at the end of a conversation whose last event is `last`, if it ends with
    /// changes.
    pub fn run_up_to(&self, last: Sequence) -> Option<(Sequence, Sequence)> {
        if self.sequence == 0 || self.sequence != last {
            return None;
        }
        let joined = self.run.filter(|(first, end)| first <= end && end + 1 == last);
        Some((joined.map_or(last, |(first, _)| first), last))
    }
}

impl Became {
    /// The record of a further change of a message.
    pub fn record(
        before: Option<&Became>,
        change: &Event,
        when: When,
        newest: &NewestChange,
    ) -> Event {
        let is_edit = change.kind == Kind::Edit;
        let edited = before.map_or(0, |before| before.edited) + u64::from(is_edit);
        let edit = before.and_then(|before| before.edit).filter(|_| !is_edit);
        let messages = newest.messages + u64::from(before.is_none());
        let body = body_of_record(messages, edited, edit, when);
        Event { sequence: 0, body, ..change.clone() }
    }

    fn of_record(entry: &Entry) -> Option<Became> {
        let Event { kind, sequence, user, body, .. } = Event::decode(&entry.body)?;
        let mut parts = Parts::new(&body);
        let (_, edited) = (parts.number()?, parts.number()?);
        let (edit, edit_ms) = (parts.sequence()?, parts.number()?);
        let message = When { time_ms: parts.number()?, start_ms: parts.number()? };
        let edit = match kind {
            Kind::Edit if edit == 0 => Some((sequence, entry.time_ms)),
            _ => Some((edit, edit_ms)).filter(|(edit, _)| *edit > 0),
        };
        Some(Became { kind, sequence, user: Bytes::copy_from_slice(&user), edited, edit, message })
    }

    /// The state after one more change, which was committed at `time_ms`.
    fn changed(before: Option<Became>, change: &Event, time_ms: TimeMs) -> Became {
        let (edited, edit, message) = match before {
            Some(before) => (before.edited, before.edit, before.message),
            None => (0, None, When::at(0)),
        };
        let is_edit = change.kind == Kind::Edit;
        Became {
            kind: change.kind,
            sequence: change.sequence,
            user: Bytes::copy_from_slice(&change.user),
            edited: edited + u64::from(is_edit),
            edit: if is_edit { Some((change.sequence, time_ms)) } else { edit },
            message,
        }
    }
}

fn body_of_record(
    messages: u64,
    edited: u64,
    edit: Option<(Sequence, TimeMs)>,
    when: When,
) -> Bytes {
    let (edit, edit_ms) = edit.unwrap_or_default();
    let mut body = Vec::new();
    for number in [messages, edited, edit, edit_ms, when.time_ms, when.start_ms] {
        put_number(&mut body, number);
    }
    body.into()
}

/// Whether a record is of the version that kept no ledgers of messages.
fn is_earlier(record: &Event) -> bool {
    record.body.is_empty()
}

impl Messaging {
    /// The newest change of a message; `None` if there is none. `since_ms`: the caller knows the
    /// message as of this time, so `None` is also returned if nothing in the conversation changed
    /// since. A change before that time may be returned.
    pub(super) fn became(
        &self,
        conv: &[u8],
        sequence: Sequence,
        since_ms: TimeMs,
    ) -> Result<Option<Became>> {
        let (last, changed_ms) = self.state.end(names::changes_ledger(conv))?;
        if last == 0 || changed_ms < since_ms {
            return Ok(None);
        }
        let name = names::message_ledger(conv, sequence);
        if let Some(record) = self.last_record(&name)? {
            let unreadable = || self.lost_record(&name, record.sequence);
            return Became::of_record(&record).map(Some).ok_or_else(unreadable);
        }
        if self.newest_record(conv)?.is_some_and(|(_, record)| is_earlier(&record)) {
            return Ok(self.earlier_changes(conv, since_ms)?.0.remove(&sequence));
        }
        Ok(None)
    }

    /// The newest change of a conversation. Migrates the ledger of an earlier version, if it is
    /// one. The caller must hold the conversation's turn.
    pub(super) fn newest_change(&self, conv: &Bytes) -> Result<NewestChange> {
        let Some((last, record)) = self.newest_record(conv)? else {
            return Ok(NewestChange::default());
        };
        if is_earlier(&record) {
            let (changes, superseded) = self.earlier_changes(conv, 0)?;
            self.empty_edits(conv, &superseded)?;
            self.write_changes(conv, &changes)?;
            return self.newest_change(conv);
        }
        let messages = Parts::new(&record.body)
            .number()
            .ok_or_else(|| self.lost_record(&names::changes_ledger(conv), last))?;
        Ok(NewestChange { last, sequence: record.sequence, run: record.run, messages })
    }

    /// Trims the two ledgers of a changed message if they have become long. Waits for the disk. The
    /// command is done by then, so a failure is logged for the operator and not returned.
    pub(super) fn shorten_changes(&self, conv: &[u8], sequence: Sequence) {
        let ledgers = [
            (names::message_ledger(conv, sequence), MOST_OF_A_MESSAGE),
            (names::changes_ledger(conv), MOST_OF_ALL),
        ];
        for (name, most) in ledgers {
            let shortened = self.state.end(&name).and_then(|(last, _)| {
                let is_long = last > 0 && last % most == 0;
                if is_long { self.state.trim(&name, Trim::Before(last)).map(drop) } else { Ok(()) }
            });
            if let Err(error) = shortened {
                let ledger = name.escape_ascii();
                tracing::warn!(
                    %ledger, %error,
                    "a ledger could not be shortened: it grows until there is room"
                );
            }
        }
    }

    /// Writes the ledgers of all changed messages of a conversation. Waits for the disk.
    pub(super) fn write_changes(
        &self,
        conv: &Bytes,
        changes: &BTreeMap<Sequence, Became>,
    ) -> Result<()> {
        let name = names::changes_ledger(conv);
        let (last, _) = self.state.end(&name)?;
        let all: Vec<(&Sequence, &Became)> = changes.iter().collect();
        for some in all.chunks(WRITTEN) {
            let batch = some.iter().fold(Batch::new(), |batch, (sequence, became)| {
                let body = body_of_record(0, became.edited, became.edit, became.message);
                let (about, user) = (**sequence, &became.user);
                let record = Event {
                    sequence: became.sequence,
                    about,
                    body,
                    ..Event::new(became.kind, conv, user)
                };
                batch.append(&self.state, names::message_ledger(conv, about), record.encode())
            });
            self.engine.commit(batch)?;
        }
        let body = body_of_record(changes.len() as u64, 0, None, When::at(0));
        let whole = Event { body, ..Event::new(Kind::Reset, conv, &Bytes::new()) };
        let batch = Batch::new().append(&self.state, &name, whole.encode());
        self.engine.commit(batch.if_last_of(&self.state, &name, last))?;
        self.state.trim(&name, Trim::Before(last + 1))?;
        Ok(())
    }

    /// Whether all changes that were written for a conversation can be read.
    pub(super) fn has_all_changes(&self, conv: &[u8]) -> Result<bool> {
        let newest = match self.newest_record(conv) {
            Ok(newest) => newest,
            Err(trouble) if trouble.is_damage() => return Ok(false),
            Err(trouble) => return Err(trouble),
        };
        let Some((last, record)) = newest else { return Ok(true) };
        if is_earlier(&record) {
            return self.has_all_earlier(conv, last);
        }
        let known = self.changed_messages(conv)?;
        Ok(Parts::new(&record.body).number() == Some(known.len() as u64))
    }

    /// The changes of a conversation's messages, as far as their ledgers can be read.
    pub(super) fn changed_messages(&self, conv: &[u8]) -> Result<BTreeMap<Sequence, Became>> {
        let (head, mut after, mut known) =
            (names::changed_messages(conv), None::<Vec<u8>>, BTreeMap::new());
        loop {
            let listed = self.state.list(&head, after.as_deref(), WRITTEN)?;
            for name in &listed {
                let Some(sequence) = names::message_of_ledger(&name[head.len()..]) else {
                    continue;
                };
                let record = match self.last_record(name) {
                    Err(trouble) if trouble.is_damage() => None,
                    record => record?,
                };
                if let Some(became) = record.and_then(|record| Became::of_record(&record)) {
                    known.insert(sequence, became);
                }
            }
            after = listed.into_iter().next_back();
            if after.is_none() {
                return Ok(known);
            }
        }
    }

    /// Derives the changed messages from events with their times. Also returns the edits that a
    /// later edit superseded.
    pub(super) fn changes_of(
        events: impl Iterator<Item = (Event, TimeMs)>,
    ) -> (BTreeMap<Sequence, Became>, Vec<Sequence>) {
        let (mut changes, mut superseded) = (BTreeMap::<Sequence, Became>::new(), Vec::new());
        for (event, time_ms) in events.filter(|(event, _)| event.is_change()) {
            let before = changes.remove(&event.about);
            superseded.extend(before.as_ref().and_then(|before| before.edit).map(|(edit, _)| edit));
            changes.insert(event.about, Became::changed(before, &event, time_ms));
        }
        (changes, superseded)
    }

    /// The changes since a time in a ledger of the earlier version, and the edits that a later edit
    /// superseded.
    fn earlier_changes(
        &self,
        conv: &[u8],
        since_ms: TimeMs,
    ) -> Result<(BTreeMap<Sequence, Became>, Vec<Sequence>)> {
        let name = names::changes_ledger(conv);
        let mut notes = Vec::new();
        for entry in self.state.entries(&name, self.state.sequence_at(&name, since_ms)?..) {
            let entry = entry?;
            notes.extend(Event::decode(&entry.body).map(|record| (record, entry.time_ms)));
        }
        Ok(Messaging::changes_of(notes.into_iter()))
    }

    /// Whether a ledger of the earlier version has every record since its first, or since a
    /// rebuild.
    fn has_all_earlier(&self, conv: &[u8], last: Sequence) -> Result<bool> {
        let (name, mut next) = (names::changes_ledger(conv), 1);
        let mut scan = Scan::new(&self.state, &name, (1, last), false, PAGE);
        while let Some(pieces) = scan.next_page()? {
            for piece in pieces {
                let Piece::Whole(entry) = piece else { return Ok(false) };
                let begins =
                    Event::decode(&entry.body).is_some_and(|record| record.kind == Kind::Reset);
                if entry.sequence != next && !begins {
                    return Ok(false);
                }
                next = entry.sequence + 1;
            }
        }
        Ok(last < next)
    }

    /// Removes the bodies of superseded edits.
    fn empty_edits(&self, conv: &Bytes, edits: &[Sequence]) -> Result<()> {
        let own = names::conversation(conv);
        for some in edits.chunks(WRITTEN) {
            let mut batch = Batch::new();
            let mut is_empty = true;
            for edit in some {
                let stored = self.stored_at(&own, *edit)?;
                if let Some((_, event)) = stored.filter(|(_, event)| !event.body.is_empty()) {
                    let emptied = Event { body: Bytes::new(), ..event };
                    batch = batch.edit(&self.messages, &own, *edit, emptied.encode());
                    is_empty = false;
                }
            }
            if !is_empty {
                self.engine.commit(batch)?;
            }
        }
        Ok(())
    }

    /// The end of a conversation's ledger, and its last record.
    fn newest_record(&self, conv: &[u8]) -> Result<Option<(Sequence, Event)>> {
        let name = names::changes_ledger(conv);
        let (last, _) = self.state.end(&name)?;
        if last == 0 {
            return Ok(None);
        }
        let unreadable = || self.lost_record(&name, last);
        let (found, record) = match self.state.last(&name)? {
            Some(entry) => (entry.sequence, Event::decode(&entry.body).ok_or_else(unreadable)?),
            // The records of the earlier version expired together with their messages.
            None => (last, Event::new(Kind::Reset, &Bytes::new(), &Bytes::new())),
        };
        if found != last && !is_earlier(&record) {
            return Err(unreadable());
        }
        Ok(Some((last, record)))
    }

    /// The last record of a ledger in which only the last record counts.
    fn last_record(&self, name: &[u8]) -> Result<Option<Entry>> {
        let (last, _) = self.state.end(name)?;
        if last == 0 {
            return Ok(None);
        }
        self.state.get(name, last)?.map(Some).ok_or_else(|| self.lost_record(name, last))
    }

    fn lost_record(&self, name: &[u8], sequence: Sequence) -> Trouble {
        Trouble::Ledger {
            ledger: format!("{}:{}", self.state.name(), name.escape_ascii()),
            sequence,
        }
    }
}
