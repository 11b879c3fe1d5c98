//! A user's conversations by their last activity: the first page that a new terminal shows, in one call.
//!
//! Where a conversation's timeline ends tells when its last message can have come at the latest. So the ends of all are looked at, and
//! last messages are read in the order of that bound, until the next bound is below what the page has: those on the page and on pages
//! before it, and those in which something other than a message came last.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;
use strandline::{Limit, Sequence, TimeMs};

use super::around::told_if_hidden;
use super::page::Shown;
use super::trouble::{Result, Trouble};
use super::user::Membership;
use super::{Messaging, names};

/// Entries read at a time to find the last message.
const PAGE: Limit =
    Limit { entries: 8, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: true };

/// One conversation of the list.
#[derive(Clone, Debug)]
pub struct Item {
    /// Which.
    pub conv: Bytes,
    /// Its last message that the user may see; sequence 0 when there is none.
    pub last: Shown,
    /// How many messages the user has not read.
    pub unread: u64,
    /// How far it has read.
    pub read: Sequence,
}

impl Item {
    /// What the last message is; nothing when there is none.
    pub fn kind(&self) -> &'static str {
        if self.last.sequence == 0 && !self.last.is_damaged { "" } else { self.last.kind }
    }
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What to pass for the next page; empty: there is none.
    pub next: Vec<u8>,
    /// The conversations, the newest activity first.
    pub items: Vec<Item>,
}

/// A place in the list: newest first, then by id.
type Place = (Reverse<TimeMs>, Bytes);

impl Messaging {
    /// The page behind a token; an empty token asks for the first.
    pub fn conversations(&self, user: &[u8], token: &[u8], limit: Limit) -> Result<Listed> {
        // A name that nobody can have is in no conversation.
        let Ok(user) = names::valid(user) else { return Ok(Listed { next: Vec::new(), items: Vec::new() }) };
        let after = if token.is_empty() { None } else { Some(place(token)?) };
        self.user(&user, |ledger| {
            let mut heap = BinaryHeap::new();
            for (conv, membership) in ledger.state.current() {
                // One whose end is hidden by damage is looked at first: it may be the newest.
                let end = told_if_hidden(self.messages.end(&names::conversation(conv)))?;
                let bound_ms = end.map_or(TimeMs::MAX, |(_, last_ms)| last_ms.max(membership.created_ms));
                heap.push(Reverse((Reverse(bound_ms), conv.clone())));
            }
            let mut newest: HashMap<Bytes, Shown> = HashMap::new();
            let mut page: Vec<(Place, Item)> = Vec::new();
            let (mut used_bytes, mut more) = (0, false);
            while let Some(Reverse(place)) = heap.pop() {
                let Some(membership) = ledger.state.membership(&place.1) else { continue };
                let Some(last) = newest.get(&place.1).cloned() else {
                    let last = self.last_message(&place.1, &user, membership)?;
                    heap.push(Reverse((Reverse(last.time_ms), place.1.clone())));
                    newest.insert(place.1, last);
                    continue;
                };
                if after.as_ref().is_some_and(|after| place <= *after) {
                    continue;
                }
                used_bytes += last.body.len() as u64;
                let fits = page.len() < limit.entries && used_bytes <= limit.body_bytes;
                if !(page.is_empty() || fits) {
                    more = true;
                    break;
                }
                let unread = self.unread_in(&place.1, &user, membership)?;
                let item = Item { conv: place.1.clone(), last, unread, read: membership.read };
                page.push((place, item));
            }
            let next = match page.last() {
                Some((place, _)) if more => [place.0.0.to_string().as_bytes(), b":", &place.1].concat(),
                _ => Vec::new(),
            };
            Ok(Listed { next, items: page.into_iter().map(|(_, item)| item).collect() })
        })
    }

    /// The newest message that the user may see. One that has none is as old as the conversation.
    fn last_message(&self, conv: &Bytes, user: &Bytes, membership: &Membership) -> Result<Shown> {
        let mut found = None;
        for range in membership.visible().into_iter().rev() {
            let walked = self.walk(conv, user, range, true, PAGE, |seen| {
                if seen.may_be_message() && !membership.hidden.contains(&seen.sequence) {
                    found = Some(seen.shown());
                }
                found.is_none()
            });
            match walked {
                Ok(true) => {}
                Ok(false) => break,
                Err(Trouble::Engine(error)) if error.is_damage() => {
                    found = Some(Shown::damaged(0, membership.created_ms));
                    break;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(found.unwrap_or_else(|| Shown::nothing(membership.created_ms)))
    }
}

fn place(token: &[u8]) -> Result<Place> {
    let wrong = || Trouble::Usage("this is not a token of IM.CONVERSATIONS");
    let colon = token.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let time = std::str::from_utf8(&token[..colon]).ok().and_then(|time| time.parse().ok());
    Ok((Reverse(time.ok_or_else(wrong)?), Bytes::copy_from_slice(&token[colon + 1..])))
}
