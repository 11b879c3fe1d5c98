//! Restores the events of a damaged conversation from the sync timelines of its members (P5): each
//! has a pushed event as the same frame, committed at the same time. The sync timeline of the
//! reader is searched first.
//!
//! A copy shows an event as it was committed. If the event was edited or recalled since, the
//! ledgers of changes show it, and the copy is changed accordingly; an earlier edit also gets the
//! newest body. The same is done for an original while any damage is known: a change is stored
//! separately from the entry that it changes, and may be lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Error, Limit, Sequence, TimeMs};

use super::around::{self, Gap, Piece, Scan, piece_at, sequence_at, sequence_up_to};
use super::became::Became;
use super::event::{Event, Kind, When};
use super::page::Seen;
use super::trouble::Result;
use super::{Messaging, names};

/// Entries of a sync timeline read at a time.
const PAGE: Limit =
    Limit { entries: 256, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: true };

/// Lost entries of a conversation that are searched for at a time.
const MOST_SOUGHT: u64 = 64;

/// Pages of the sync timeline that one walk through a damaged conversation may read.
pub const MOST_PAGES: usize = 256;

/// Members whose sync timelines are searched if the reader's own has no copy.
const MOST_ASKED: usize = 8;

/// The event at a sequence of a conversation.
pub enum Found {
    /// The event, and when it was committed.
    Event(When, Event),
    /// An event that cannot be read anywhere: the earliest time at which it was committed, the
    /// error, and its author, if known.
    Lost(When, Error, Option<Bytes>),
    /// There is nothing, or the entry is not an event.
    Nothing,
}

impl Found {
    /// The event, if it can be read.
    pub fn event(self) -> Option<Event> {
        match self {
            Found::Event(_, event) => Some(event),
            Found::Lost(..) | Found::Nothing => None,
        }
    }
}

impl Messaging {
    /// The event at a sequence of a conversation as it is shown now: the original, or a copy of the
    /// user or of another member.
    pub(super) fn event_at(&self, conv: &Bytes, user: &Bytes, sequence: Sequence) -> Result<Found> {
        let name = names::conversation(conv);
        let gap = match piece_at(&self.messages, &name, sequence)? {
            None => return Ok(Found::Nothing),
            Some(Piece::Whole(entry)) => {
                return match Event::decode(&entry.body) {
                    Some(event) => self.as_it_is_stored(user, event, When::of(&entry)),
                    None => Ok(Found::Nothing),
                };
            }
            Some(Piece::Lost(gap)) => around::bounded(&self.messages, &name, gap)?,
        };
        match self.copies(conv, user, &gap, false, &mut { MOST_PAGES })?.remove(&sequence) {
            Some((when, copy)) => self.as_it_became(user, copy, when),
            None => self.lost(conv, user, sequence, gap),
        }
    }

    /// The event that is stored at a sequence of a conversation's timeline, if it can be read.
    pub(super) fn stored_at(
        &self,
        name: &[u8],
        sequence: Sequence,
    ) -> Result<Option<(When, Event)>> {
        let piece = piece_at(&self.messages, name, sequence)?;
        let entry = piece.as_ref().and_then(Piece::entry);
        Ok(entry.and_then(|entry| Some((When::of(entry), Event::decode(&entry.body)?))))
    }

    /// Passes each lost entry of a gap to `take`, with the user's copy if there is one, until
    /// `take` returns false. Returns whether it never did. `pages`: how many pages of the sync
    /// timeline may still be read.
    pub(super) fn seek(
        &self,
        conv: &Bytes,
        user: &Bytes,
        gap: Gap,
        descending: bool,
        pages: &mut usize,
        take: &mut dyn FnMut(Seen) -> bool,
    ) -> Result<bool> {
        let mut left = around::bounded(&self.messages, &names::conversation(conv), gap)?;
        loop {
            let part = left.part(descending, MOST_SOUGHT);
            let mut copies = self.copies(conv, user, &part, descending, pages)?;
            for at in 0..part.count() {
                let sequence = if descending { part.last - at } else { part.first + at };
                let mut seen = Seen { sequence, time_ms: left.from_ms, event: None, edited: 0 };
                if let Some((when, copy)) = copies.remove(&sequence) {
                    // Times never decrease within a timeline, so this time bounds the rest of the
                    // gap.
                    let bound = if descending { &mut left.to_ms } else { &mut left.from_ms };
                    *bound = when.time_ms;
                    seen.time_ms = when.time_ms;
                    seen.event = self.as_it_became(user, copy, when)?.event();
                } else {
                    seen.event = self.by_changes(conv, user, sequence, left.from_ms)?;
                }
                if !take(seen) {
                    return Ok(false);
                }
            }
            if part.count() == left.count() {
                return Ok(true);
            }
            if descending {
                left.last = part.first - 1;
            } else {
                left.first = part.last + 1;
            }
        }
    }

    /// The copies of a gap's entries, as they were committed: first from the user's sync timeline,
    /// then from those of other members.
    fn copies(
        &self,
        conv: &Bytes,
        user: &Bytes,
        gap: &Gap,
        descending: bool,
        pages: &mut usize,
    ) -> Result<Copies> {
        let mut copies = Copies::new();
        self.add_copies(&mut copies, conv, user, gap, descending, pages)?;
        let are_all = |copies: &Copies| copies.len() as u64 == gap.count();
        if are_all(&copies) {
            return Ok(copies);
        }
        // The list of members may be lost as well. Then nobody else is searched.
        for other in self.members(conv, &[], MOST_ASKED).unwrap_or_default() {
            if other != *user && !are_all(&copies) {
                self.add_copies(&mut copies, conv, &other, gap, descending, pages)?;
            }
        }
        Ok(copies)
    }

    fn add_copies(
        &self,
        copies: &mut Copies,
        conv: &Bytes,
        user: &Bytes,
        gap: &Gap,
        descending: bool,
        pages: &mut usize,
    ) -> Result<()> {
        if *pages == 0 {
            return Ok(());
        }
        let name = names::inbox(user);
        let low = sequence_at(&self.sync, &name, gap.from_ms)?;
        let high = sequence_up_to(&self.sync, &name, gap.to_ms)?;
        let mut scan = Scan::new(&self.sync, &name, (low, high), descending, PAGE);
        while *pages > 0
            && (copies.len() as u64) < gap.count()
            && let Some(pieces) = scan.next_page()?
        {
            *pages -= 1;
            for entry in pieces.iter().filter_map(Piece::entry) {
                let Some(event) = Event::for_members(&entry.body) else { continue };
                let is_sought = event.conv == *conv && gap.sequences().contains(&event.sequence);
                if is_sought && !event.is_mark() {
                    copies.entry(event.sequence).or_insert((When::of(entry), event));
                }
            }
        }
        Ok(())
    }

    /// A message that cannot be read anywhere, as the newest change since `since_ms` left it;
    /// `None` if there is none.
    fn by_changes(
        &self,
        conv: &Bytes,
        user: &Bytes,
        sequence: Sequence,
        since_ms: TimeMs,
    ) -> Result<Option<Event>> {
        let Some(became) = self.became(conv, sequence, since_ms)? else { return Ok(None) };
        let message = Event {
            sequence,
            about: became.edited,
            ..Event::new(Kind::Message, conv, &became.user)
        };
        if became.kind == Kind::Recall {
            return Ok(Some(Event { kind: Kind::Recall, about: 0, ..message }));
        }
        Ok(self
            .event_at(conv, user, became.sequence)?
            .event()
            .map(|edit| Event { body: edit.body, ..message }))
    }

    /// The result for an event that cannot be read anywhere.
    fn lost(&self, conv: &Bytes, user: &Bytes, sequence: Sequence, gap: Gap) -> Result<Found> {
        if let Some(event) = self.by_changes(conv, user, sequence, gap.from_ms)? {
            return Ok(Found::Event(When::at(gap.from_ms), event));
        }
        // The author of a message that was edited is known: nobody else could have edited it.
        let became = self.became(conv, sequence, gap.from_ms)?;
        let author = became.filter(|became| became.kind == Kind::Edit).map(|became| became.user);
        Ok(Found::Lost(When::at(gap.from_ms), gap.error, author))
    }

    /// The result for an original that was read. If damage may hide an edit or a recall, the
    /// ledgers of changes decide.
    pub(super) fn as_it_is_stored(&self, user: &Bytes, event: Event, when: When) -> Result<Found> {
        if self.engine.has_damage() {
            return self.as_it_became(user, event, when);
        }
        Ok(Found::Event(when, event))
    }

    /// A copy as it is shown now, when the original is gone or cannot be read. If in doubt, shows
    /// nothing rather than a body that was recalled.
    pub(super) fn as_it_became(&self, user: &Bytes, copy: Event, when: When) -> Result<Found> {
        let Some(became) = self.became_of(&copy, when)? else {
            return Ok(Found::Event(when, copy));
        };
        self.as_changed(user, copy, when, &became)
    }

    /// The newest change of the message that an event shows, since the event was committed.
    pub(super) fn became_of(&self, event: &Event, when: When) -> Result<Option<Became>> {
        match event.kind {
            Kind::Message | Kind::Edit => {
                self.became(&event.conv, event.shown_sequence(), when.time_ms)
            }
            _ => Ok(None),
        }
    }

    /// A copy of a message, or of an edit of it, with the newest change of that message applied.
    pub(super) fn as_changed(
        &self,
        user: &Bytes,
        copy: Event,
        when: When,
        became: &Became,
    ) -> Result<Found> {
        if became.kind == Kind::Recall {
            let recalled = if copy.kind == Kind::Message {
                Event { kind: Kind::Recall, about: 0, ..copy }
            } else {
                copy
            };
            return Ok(Found::Event(when, Event { body: Bytes::new(), ..recalled }));
        }
        let about = if copy.kind == Kind::Message { became.edited } else { copy.about };
        let copy = Event { about, ..copy };
        if became.sequence <= copy.sequence {
            return Ok(Found::Event(when, copy));
        }
        match self.newest_body(&copy.conv, user, copy.shown_sequence(), became)? {
            Found::Event(_, newest) => Ok(Found::Event(when, Event { body: newest.body, ..copy })),
            Found::Nothing => Ok(Found::Event(when, Event { body: Bytes::new(), ..copy })),
            Found::Lost(_, error, _) => Ok(Found::Lost(when, error, Some(copy.user))),
        }
    }

    /// The event with the newest body of an edited message: the newest edit; if that is gone, the
    /// message itself; otherwise a copy of that edit.
    fn newest_body(
        &self,
        conv: &Bytes,
        user: &Bytes,
        sequence: Sequence,
        became: &Became,
    ) -> Result<Found> {
        let edit = self.event_at(conv, user, became.sequence)?;
        if !matches!(edit, Found::Nothing) {
            return Ok(edit);
        }
        // While any damage is known, the stored message may lack the edit.
        if !self.engine.has_damage()
            && let Some((when, event)) = self.stored_at(&names::conversation(conv), sequence)?
        {
            return Ok(Found::Event(when, event));
        }
        self.kept_edit(conv, user, became)
    }

    /// The newest edit of a message, if a sync timeline has a copy of it.
    pub(super) fn kept_edit(&self, conv: &Bytes, user: &Bytes, became: &Became) -> Result<Found> {
        let Some((edit, edit_ms)) = became.edit else { return Ok(Found::Nothing) };
        let gap = Gap {
            first: edit,
            last: edit,
            from_ms: edit_ms,
            to_ms: edit_ms,
            error: Error::invalid("it is trimmed"),
        };
        let mut found = self.copies(conv, user, &gap, false, &mut { MOST_PAGES })?;
        if found.is_empty() {
            // The author of the edit has a copy too, and may have left since.
            self.add_copies(&mut found, conv, &became.user, &gap, false, &mut { MOST_PAGES })?;
        }
        let found = found.remove(&edit);
        Ok(found.map_or(Found::Nothing, |(when, event)| Found::Event(when, event)))
    }
}

/// Copies of events by sequence, and when they were committed.
type Copies = BTreeMap<Sequence, (When, Event)>;
