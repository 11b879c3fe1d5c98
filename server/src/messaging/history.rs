//! Roaming: the history of a conversation, as far as a user may see it (membership periods, policy, hidden messages).
//!
//! It is read from the conversation's timeline alone, which has every event as it is to be seen now. Edits and recalls stand in it as
//! events of their own; they are passed over, since the messages that they changed show it.

use bytes::Bytes;
use strandline::{Entry, Limit, MAX_SEQUENCE, Sequence, TimeMs};

use super::event::{Event, Kind};
use super::page::Shown;
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
            Some(membership) => self.visible_history(&conv, membership, window, limit),
            None => Ok(Vec::new()),
        })
    }

    fn visible_history(
        &self,
        conv: &Bytes,
        membership: &Membership,
        window: Window,
        limit: Limit,
    ) -> Result<Vec<Shown>> {
        let name = names::conversation(conv);
        let (low, high, descending) = match window {
            Window::Newest => (1, MAX_SEQUENCE, true),
            Window::Before(sequence) => (1, sequence.saturating_sub(1), true),
            Window::After(sequence) => (sequence.saturating_add(1), MAX_SEQUENCE, false),
            Window::At(time_ms) => (self.messages.sequence_at(&name, time_ms)?, MAX_SEQUENCE, false),
        };
        let mut ranges = membership.visible();
        if descending {
            ranges.reverse();
        }
        let mut shown = Vec::new();
        let mut used_bytes = 0;
        for (first, last) in ranges {
            let whole =
                self.walk(&name, (first.max(low), last.min(high)), descending, limit, |entry, event| {
                    let wanted = event.is_message() || matches!(event.kind, Kind::Join | Kind::Leave);
                    if !wanted || membership.hidden.contains(&entry.sequence) {
                        return true;
                    }
                    used_bytes += event.body.len() as u64;
                    let fits =
                        shown.is_empty() || (shown.len() < limit.entries && used_bytes <= limit.body_bytes);
                    if fits {
                        shown.push(Shown::of(entry.time_ms, event));
                    }
                    fits
                })?;
            if !whole {
                break;
            }
        }
        Ok(shown)
    }

    /// Hands each event of a range to `take` until that is false. Whether it never was.
    pub(super) fn walk(
        &self,
        name: &[u8],
        (mut low, mut high): (Sequence, Sequence),
        descending: bool,
        limit: Limit,
        mut take: impl FnMut(&Entry, Event) -> bool,
    ) -> Result<bool> {
        let page_limit = Limit::entries(limit.entries.clamp(1, PAGE_ENTRIES)).body_bytes(PAGE_BYTES);
        while low <= high {
            let page = if descending {
                self.messages.range_back(name, low..=high, page_limit)?
            } else {
                self.messages.range(name, low..=high, page_limit)?
            };
            for entry in &page.entries {
                if Event::decode(&entry.body).is_some_and(|event| !take(entry, event)) {
                    return Ok(false);
                }
            }
            match page.entries.last() {
                Some(last) if page.more && descending => high = last.sequence - 1,
                Some(last) if page.more => low = last.sequence + 1,
                _ => break,
            }
        }
        Ok(true)
    }
}
