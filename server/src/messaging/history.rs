//! Roaming: the history of a conversation, as far as a user may see it (membership periods, policy,
//! hidden messages).
//!
//! It is read from the conversation's timeline, which has each message in its newest form; where
//! that is damaged, from the copies in the sync timelines of the user and of other members. The
//! timeline also has edits and recalls as events of their own. They are skipped, since the changed
//! messages show them. Of a long run of such events only a few are read: each event has the start
//! of the run directly before it, and in ascending order the end of the run is found in steps of
//! growing size.

use bytes::Bytes;
use strandline::{Entry, Limit, MAX_SEQUENCE, Sequence, TimeMs};

use super::around::{self, Piece, Scan};
use super::copies::MOST_PAGES;
use super::event::{Event, When};
use super::page::{Seen, Shown};
use super::trouble::Result;
use super::user::Membership;
use super::{Messaging, names};

/// The most entries that are read at a time.
const PAGE_ENTRIES: usize = 64;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// The distance of the first probe after a page of edits and recalls only.
const FIRST_STEP: u64 = 64;

/// A part of a history.
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
    /// The events of a conversation that a user may see, in the direction of the window.
    pub fn history(
        &self,
        conv: &[u8],
        user: &[u8],
        window: Window,
        limit: Limit,
    ) -> Result<Vec<Shown>> {
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
                let first =
                    around::sequence_at(&self.messages, &names::conversation(conv), time_ms)?;
                (first, MAX_SEQUENCE, false)
            }
        };
        let mut ranges = membership.visible();
        if descending {
            ranges.reverse();
        }
        let page = Limit::entries(limit.entries.clamp(1, PAGE_ENTRIES)).body_bytes(PAGE_BYTES);
        let mut found = Vec::new();
        let mut used_bytes = 0;
        for (first, last) in ranges {
            let range = (first.max(low), last.min(high));
            let whole = self.walk(conv, user, range, descending, page, |seen| {
                if !seen.is_in_history() || membership.hidden.contains(&seen.sequence) {
                    return true;
                }
                used_bytes += seen.event.as_ref().map_or(0, |event| event.body.len() as u64);
                let fits = found.is_empty()
                    || (found.len() < limit.entries && used_bytes <= limit.body_bytes);
                if fits {
                    found.push(seen);
                }
                fits
            })?;
            if !whole {
                break;
            }
        }
        found.into_iter().map(|seen| self.as_shown(user, membership, seen)).collect()
    }

    fn as_shown(&self, user: &Bytes, membership: &Membership, seen: Seen) -> Result<Shown> {
        let Some(event) = seen.event else { return Ok(seen.shown()) };
        let (event, edited) =
            self.shown_to(user, Some(membership), event, When::at(seen.time_ms))?;
        Ok(Seen { event, edited, ..seen }.shown())
    }

    /// Passes each event of a range to `take` until `take` returns false. Returns whether it never
    /// did. Damaged events are read from copies in sync timelines, or passed on as damaged. `page`:
    /// how much is read at a time.
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
            let mut at_end = None;
            let mut are_changes = true;
            for piece in pieces {
                let goes_on = match piece {
                    Piece::Whole(entry) => match Event::decode(&entry.body) {
                        Some(event) => {
                            let Entry { sequence, time_ms, .. } = entry;
                            are_changes &= event.is_change();
                            at_end = Some((sequence, event.run));
                            let event =
                                self.as_it_is_stored(user, event, When::of(&entry))?.event();
                            take(Seen { sequence, time_ms, event, edited: 0 })
                        }
                        None => true,
                    },
                    Piece::Lost(gap) => {
                        (at_end, are_changes) = (None, false);
                        self.seek(conv, user, gap, descending, &mut pages, &mut take)?
                    }
                };
                if !goes_on {
                    return Ok(false);
                }
            }
            match at_end {
                Some((sequence, Some(run))) if descending && reaches(run, sequence) => {
                    scan.step_over(run);
                }
                Some((sequence, _)) if !descending && are_changes => {
                    scan.step_over((sequence, self.last_of_run(&name, sequence, range.1)?));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Searches for the end of a run of edits and recalls, with probes at doubling distances.
    /// Returns a change of the run; it may be before the last one, but never after it.
    fn last_of_run(&self, name: &[u8], first: Sequence, high: Sequence) -> Result<Sequence> {
        let (mut known, mut step) = (first, FIRST_STEP);
        loop {
            let next = known.saturating_add(step);
            if next > high {
                return Ok(known);
            }
            let stored = self.stored_at(name, next)?;
            let run =
                stored.filter(|(_, event)| event.is_change()).and_then(|(_, event)| event.run);
            if !run.is_some_and(|run| reaches(run, next) && run.0 <= known + 1) {
                return Ok(known);
            }
            (known, step) = (next, 2 * step);
        }
    }
}

/// Whether a run ends directly before an event.
fn reaches((first, last): (Sequence, Sequence), sequence: Sequence) -> bool {
    first <= last && last.checked_add(1) == Some(sequence)
}
