//! Roaming: the history of a conversation, as far as a user may see it (membership periods, policy, hidden messages).
//!
//! It is read from the conversation's timeline, which has every event as it is to be seen now; where that is damaged, from the copies
//! in the user's sync timeline. Edits and recalls stand in it as events of their own; they are passed over, since the messages that
//! they changed show it.

use bytes::Bytes;
use strandline::{Entry, Limit, MAX_SEQUENCE, Sequence, TimeMs};

use super::around::{self, Piece, Scan};
use super::copies::{MOST_PAGES, When};
use super::event::Event;
use super::page::{Seen, Shown};
use super::trouble::Result;
use super::user::Membership;
use super::{Messaging, names};

/// Entries read at a time, at least.
const PAGE_ENTRIES: usize = 64;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// Which part of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The newest first.
    Newest,
    /// Below a sequence, the newest first.
    Before(Sequence),
    /// Above a sequence, the oldest first.
    After(Sequence),
    /// From a time on, the oldest first.
    At(TimeMs),
}

impl Messaging {
    /// What a user may see of a conversation, in the direction of the window.
    pub fn history(&self, conv: &[u8], user: &[u8], window: Window, limit: Limit) -> Result<Vec<Shown>> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        let user = names::valid(user)?;
        self.user(&user, |ledger| match ledger.state.membership(&conv) {
            Some(membership) => self.visible_history(&conv, &user, membership, window, limit),
            None => Ok(Vec::new()),
        })
    }

    fn visible_history(
        &self,
        conv: &Bytes,
        user: &Bytes,
        membership: &Membership,
        window: Window,
        limit: Limit,
    ) -> Result<Vec<Shown>> {
        let (low, high, descending) = match window {
            Window::Newest => (1, MAX_SEQUENCE, true),
            Window::Before(sequence) => (1, sequence.saturating_sub(1), true),
            Window::After(sequence) => (sequence.saturating_add(1), MAX_SEQUENCE, false),
            Window::At(time_ms) => {
                let first = around::sequence_at(&self.messages, &names::conversation(conv), time_ms)?;
                (first, MAX_SEQUENCE, false)
            }
        };
        let mut ranges = membership.visible();
        if descending {
            ranges.reverse();
        }
        let page = Limit::entries(limit.entries.clamp(1, PAGE_ENTRIES)).body_bytes(PAGE_BYTES);
        let mut shown = Vec::new();
        let mut used_bytes = 0;
        for (first, last) in ranges {
            let range = (first.max(low), last.min(high));
            let whole = self.walk(conv, user, range, descending, page, |seen| {
                if !seen.is_in_history() || membership.hidden.contains(&seen.sequence) {
                    return true;
                }
                let next = seen.shown();
                used_bytes += next.body.len() as u64;
                let fits =
                    shown.is_empty() || (shown.len() < limit.entries && used_bytes <= limit.body_bytes);
                if fits {
                    shown.push(next);
                }
                fits
            })?;
            if !whole {
                break;
            }
        }
        Ok(shown)
    }

    /// Hands each event of a range to `take` until that is false. Whether it never was. What is
    /// damaged is read from the copies in the user's sync timeline, or handed on as damaged. `page`: how
    /// much is read at a time.
    pub(super) fn walk(
        &self,
        conv: &Bytes,
        user: &Bytes,
        range: (Sequence, Sequence),
        descending: bool,
        page: Limit,
        mut take: impl FnMut(Seen) -> bool,
    ) -> Result<bool> {
        let name = names::conversation(conv);
        let mut scan = Scan::new(&self.messages, &name, range, descending, page);
        let mut pages = MOST_PAGES;
        while let Some(pieces) = scan.next_page()? {
            for piece in pieces {
                let goes_on = match piece {
                    Piece::Whole(entry) => match Event::decode(&entry.body) {
                        Some(event) => {
                            let Entry { sequence, time_ms, .. } = entry;
                            let event = self.as_it_is_stored(user, event, When::of(&entry))?.event();
                            take(Seen { sequence, time_ms, event })
                        }
                        None => true,
                    },
                    Piece::Lost(gap) => self.seek(conv, user, gap, descending, &mut pages, &mut take)?,
                };
                if !goes_on {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
