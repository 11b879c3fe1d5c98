//! Finds the message that a user wants to change, wherever it is kept: in its conversation; if it
//! was trimmed or has expired there, in a sync timeline; or, if no copy is found, in its newest
//! edit.
//!
//! The events of a conversation are in a sync timeline in their order, interleaved with those of
//! other conversations. So a copy is found by binary search: the next event of the conversation at
//! or after the middle shows which half has the copy.
//!
//! The sync timelines that are searched are those of: the user, the user who changed the message
//! last, the first members, the users who left last, and the users that the oldest events in these
//! sync timelines name, who may be former members. Copies that other users have are not found.

use bytes::Bytes;
use strandline::{Limit, MAX_SEQUENCE, Sequence};

use super::around::{Piece, Scan};
use super::became::Became;
use super::conversation::{Conversation, Mode};
use super::copies::{Found, MOST_PAGES};
use super::event::{Event, Kind, When};
use super::trouble::Result;
use super::{Messaging, each_once, names};

/// Entries of a sync timeline read at a time.
const PAGE: Limit =
    Limit { entries: 64, body_bytes: 1024 * 1024, first_always: true, around_damage: true };

/// The number of members whose sync timelines are searched, and the number of all users, including
/// those who left and those whom events name.
const MOST_MEMBERS: usize = 8;
const MOST_ASKED: usize = 48;

/// Pages of a sync timeline that are searched for names of further users.
const NAMING_PAGES: usize = 4;

/// A message that can be changed, as far as it can be read.
pub struct Content {
    /// When the message was sent.
    pub when: When,
    /// The message; its kind is that of a recall if it was recalled.
    pub message: Event,
    /// Its newest change.
    pub became: Option<Became>,
    /// Where a copy of it is, if its conversation does not have it any more.
    pub copy: Option<CopyPosition>,
    /// Whether its conversation still has it.
    pub is_in_place: bool,
}

/// A position in a user's sync timeline.
pub struct CopyPosition {
    pub user: Bytes,
    pub place: Sequence,
}

impl Messaging {
    /// The message at a sequence of a conversation; `None` if there is none, or nothing of it is
    /// kept.
    ///
    /// The sender of a damaged message is read from a member's copy. If there is no copy, any
    /// member may recall the message, since only its position is left. An edit is then refused with
    /// the error of the damage.
    pub(super) fn content(
        &self,
        conversation: &Conversation,
        conv: &Bytes,
        user: &Bytes,
        sequence: Sequence,
        kind: Kind,
    ) -> Result<Option<Content>> {
        let became = self.became(conv, sequence, 0)?;
        let found = match self.event_at(conv, user, sequence)? {
            Found::Event(when, message) if message.is_message() => {
                Some((when, message, None, true))
            }
            Found::Event(..) => None,
            Found::Lost(when, _, author) if kind == Kind::Recall => {
                let author = author.unwrap_or_else(|| user.clone());
                let message = Event { sequence, ..Event::new(Kind::Message, conv, &author) };
                Some((when, message, None, true))
            }
            Found::Lost(_, error, _) => return Err(error.into()),
            Found::Nothing => {
                let found =
                    self.copied_content(conversation, conv, user, sequence, became.as_ref())?;
                found.map(|(when, message, copy)| (when, message, copy, false))
            }
        };
        Ok(found.map(|(when, message, copy, is_in_place)| Content {
            when,
            message,
            became,
            copy,
            is_in_place,
        }))
    }

    /// A message that its conversation does not have any more, from a copy or from an edit.
    fn copied_content(
        &self,
        conversation: &Conversation,
        conv: &Bytes,
        user: &Bytes,
        sequence: Sequence,
        became: Option<&Became>,
    ) -> Result<Option<(When, Event, Option<CopyPosition>)>> {
        if sequence > self.messages.end(names::conversation(conv))?.0 {
            return Ok(None);
        }
        let is_pushed =
            conversation.settings.as_ref().is_none_or(|settings| settings.mode != Mode::Pull);
        let changer = became.map(|became| &became.user);
        let members = conversation.members().take(MOST_MEMBERS);
        let likely =
            std::iter::once(user).chain(changer).chain(members).chain(conversation.former());
        let mut asked: Vec<Bytes> = each_once(likely.cloned());
        let (mut found, mut at) = (None, 0);
        while is_pushed && found.is_none() && at < asked.len().min(MOST_ASKED) {
            let copy = self.copy_of(&asked[at], conv, sequence)?;
            found = copy.map(|(place, when, event)| {
                (when, event, Some(CopyPosition { user: asked[at].clone(), place }))
            });
            if found.is_none() && asked.len() < MOST_ASKED {
                asked.extend(self.named_in(&asked[at], conv)?);
                asked = each_once(asked);
            }
            at += 1;
        }
        if found.is_none()
            && let Some(became) = became
        {
            let edit = self.content_of_edit(conv, user, sequence, became)?;
            found = edit.map(|(when, event)| (when, event, None));
        }
        let is_recalled = became.is_some_and(|became| became.kind == Kind::Recall);
        Ok(found.filter(|(_, event, _)| event.is_message()).map(|(when, event, copy)| {
            let kind = if is_recalled { Kind::Recall } else { event.kind };
            (when, Event { kind, about: 0, ..event }, copy)
        }))
    }

    /// A message as its newest edit describes it, if that edit is kept.
    fn content_of_edit(
        &self,
        conv: &Bytes,
        user: &Bytes,
        sequence: Sequence,
        became: &Became,
    ) -> Result<Option<(When, Event)>> {
        let Some((edit, _)) = became.edit else { return Ok(None) };
        let found = match self.stored_at(&names::conversation(conv), edit)? {
            Some(stored) => Some(stored),
            None => match self.kept_edit(conv, user, became)? {
                Found::Event(when, event) => Some((when, event)),
                Found::Lost(..) | Found::Nothing => None,
            },
        };
        Ok(found.map(|(when, edit)| {
            let sent = Some(became.message).filter(|sent| sent.time_ms > 0).unwrap_or(when);
            let message =
                Event { sequence, lifetime_ms: 0, ..Event::new(Kind::Message, conv, &edit.user) };
            (sent, message)
        }))
    }

    /// The users who acted in a conversation, according to the oldest of its events in a user's
    /// sync timeline.
    fn named_in(&self, user: &Bytes, conv: &Bytes) -> Result<Vec<Bytes>> {
        let name = names::inbox(user);
        let mut scan = Scan::new(&self.sync, &name, (1, MAX_SEQUENCE), false, PAGE);
        let mut named = Vec::new();
        for _ in 0..NAMING_PAGES {
            let Some(pieces) = scan.next_page()? else { break };
            let copied = pieces
                .iter()
                .filter_map(Piece::entry)
                .filter_map(|entry| Event::for_members(&entry.body));
            named.extend(copied.filter(|event| event.conv == *conv).map(|event| event.user));
        }
        Ok(named)
    }

    /// The copy of an event in a user's sync timeline, and its position there.
    pub(super) fn copy_of(
        &self,
        user: &Bytes,
        conv: &Bytes,
        sequence: Sequence,
    ) -> Result<Option<(Sequence, When, Event)>> {
        let name = names::inbox(user);
        let kept = self.sync.read_after(&name, 0, Limit::NOTHING.around_damage())?;
        let (mut low, mut end) = (kept.first, kept.last + 1);
        let mut pages = MOST_PAGES;
        while low < end {
            let middle = low + (end - low) / 2;
            match self.next_of(&name, conv, (middle, end - 1), &mut pages)? {
                Some(found) if found.2.sequence == sequence => return Ok(Some(found)),
                Some((place, _, event)) if event.sequence < sequence => low = place + 1,
                Some(_) | None => end = middle,
            }
        }
        Ok(None)
    }

    /// The first event of a conversation in a range of a sync timeline, and its position.
    fn next_of(
        &self,
        name: &[u8],
        conv: &Bytes,
        range: (Sequence, Sequence),
        pages: &mut usize,
    ) -> Result<Option<(Sequence, When, Event)>> {
        let mut scan = Scan::new(&self.sync, name, range, false, PAGE);
        while *pages > 0
            && let Some(pieces) = scan.next_page()?
        {
            *pages -= 1;
            for entry in pieces.iter().filter_map(Piece::entry) {
                let event = Event::for_members(&entry.body)
                    .filter(|event| event.conv == *conv && !event.is_mark());
                if let Some(event) = event {
                    return Ok(Some((entry.sequence, When::of(entry), event)));
                }
            }
        }
        Ok(None)
    }
}
