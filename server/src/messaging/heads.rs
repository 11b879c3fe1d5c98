//! The pulled conversations of a sync. Each is read in pages from the position of the terminal, and
//! is ordered by the time of its next event. Events that damage hides are delivered as damaged: the
//! lines in the ledger of pulled events show which events were pulled, and when (`pulled_log`).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use strandline::{Entry, Error, Limit, MAX_SEQUENCE, Sequence, TimeMs, Verdict};

use super::around::{Gap, Piece, bounded, pieces};
use super::copies::MOST_PAGES;
use super::event::{Event, When};
use super::moment::Moment;
use super::names;
use super::page::Seen;
use super::pulled::Moves;
use super::trouble::Result;
use super::user::{Membership, User};

/// The most that is read of one pulled conversation at a time. The first read takes one entry, each
/// further read twice as many as the one before. So the entries read ahead are at most as many as
/// those delivered, plus one of each conversation.
const MOST_AHEAD: Limit =
    Limit { entries: 64, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

impl Moment<'_> {
    /// The first pulled event of each conversation that moved, by time, and whether entries were
    /// trimmed that this user lacks.
    pub(super) fn heads(
        &self,
        user: &Bytes,
        state: &User,
        since_ms: TimeMs,
        moves: &Moves,
    ) -> Result<(Heads, bool)> {
        let (mut heads, mut trimmed) = (Heads::new(), moves.is_trimmed);
        for (conv, stretch) in &moves.convs {
            let Some(membership) = state.membership(conv) else { continue };
            let first = stretch.first.max(membership.pulls_from.unwrap_or(0));
            let pull = Pull {
                name: names::conversation(conv),
                conv: conv.clone(),
                last: stretch.last,
                until_ms: moves.time_ms,
                membership: Membership {
                    periods: membership.periods.clone(),
                    history: membership.history,
                    ..Membership::default()
                },
                pulls_from: membership.pulls_from.unwrap_or(Sequence::MAX),
                cursor: first.saturating_sub(1),
                time_ms: since_ms,
                ahead: 1,
                buffer: VecDeque::new(),
                more: true,
            };
            trimmed |= self.put_back(user, &mut heads, pull)?;
        }
        Ok((heads, trimmed))
    }

    /// Reads a conversation on if necessary, and files it under the time of its next event, if it
    /// has one. Returns whether events before that were trimmed.
    pub(super) fn put_back(&self, user: &Bytes, heads: &mut Heads, mut pull: Pull) -> Result<bool> {
        let mut trimmed = false;
        while pull.buffer.is_empty() && pull.more {
            // Events outside of memberships are not for this user. Events after the newest line are
            // for a later sync.
            let first =
                pull.membership.periods.next(pull.cursor + 1).filter(|first| *first <= pull.last);
            let Some(first) = first else { break };
            pull.cursor = first - 1;
            let limit = Limit { entries: pull.ahead, ..MOST_AHEAD }.around_damage();
            pull.ahead = (2 * pull.ahead).min(MOST_AHEAD.entries);
            let read = self.messages.read_after(&pull.name, pull.cursor, limit);
            let page = match read {
                Err(error) if error.is_damage() => {
                    trimmed |= !self.take_hidden(&mut pull, error)?;
                    break;
                }
                read => read?,
            };
            trimmed |= page.verdict == Verdict::Trimmed;
            pull.more = page.more;
            pull.cursor = page.next;
            for piece in pieces(page, false) {
                let goes_on = match piece {
                    Piece::Whole(entry) => self.take_whole(user, &mut pull, &entry)?,
                    Piece::Lost(gap) => self.take_lost(user, &mut pull, &gap)?,
                };
                if !goes_on {
                    break;
                }
            }
        }
        if let Some(seen) = pull.buffer.front() {
            heads.insert((seen.time_ms, pull.conv.clone()), pull);
        }
        Ok(trimmed)
    }

    /// Takes an entry if it is a pulled event for the user. Returns whether the entries after it
    /// are to be taken now.
    fn take_whole(&self, user: &Bytes, pull: &mut Pull, entry: &Entry) -> Result<bool> {
        let Some(event) = Event::for_members(&entry.body) else { return Ok(true) };
        let (sequence, time_ms) = (entry.sequence, entry.time_ms);
        if pull.is_beyond(sequence, time_ms) {
            pull.more = false;
            return Ok(false);
        }
        pull.time_ms = time_ms.max(pull.time_ms);
        if event.is_pulled() && pull.membership.gets(sequence, &event) {
            let (event, edited) =
                self.shown_to(user, Some(&pull.membership), event, When::of(entry))?;
            pull.buffer.push_back(Seen { sequence, time_ms, event, edited });
        }
        Ok(true)
    }

    /// Takes the pulled events of a gap. Returns whether the entries after it are to be taken now.
    ///
    /// Each lost event has a time of its own, so that a cursor passes it once: the time of its line
    /// in the ledger of pulled events. If there are no lines, it is the latest time that the event
    /// can have, and events with a copy in the sync timeline are skipped, since they were pushed.
    fn take_lost(&self, user: &Bytes, pull: &mut Pull, gap: &Gap) -> Result<bool> {
        let whole = gap.count();
        let part = bounded(&self.messages, &pull.name, gap.part(false, MOST_AHEAD.entries as u64))?;
        let mut lost: Vec<(Sequence, TimeMs)> = Vec::new();
        if let Some(times) = self.pulled_times(&pull.conv, &part)? {
            lost.extend(times);
        } else {
            let (conv, to_ms) = (pull.conv.clone(), part.to_ms);
            self.seek(&conv, user, part.clone(), false, &mut { MOST_PAGES }, &mut |seen| {
                lost.extend(seen.event.is_none().then_some((seen.sequence, to_ms)));
                true
            })?;
        }
        if !pull.give_lost(lost) {
            return Ok(false);
        }
        if part.count() < whole {
            // The rest of the gap is taken by the next read.
            (pull.cursor, pull.more) = (part.last, true);
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the pulled events of a conversation from here on when a damaged index hides all of it,
    /// as the ledger of pulled events lists them. Returns false if lines of them have expired.
    fn take_hidden(&self, pull: &mut Pull, error: Error) -> Result<bool> {
        let (first, from_ms, to_ms) = (pull.cursor + 1, pull.time_ms, pull.until_ms);
        let gap = Gap { first, last: MAX_SEQUENCE, from_ms, to_ms, error };
        let times = self.pulled_times(&pull.conv, &gap)?;
        let is_known = times.is_some();
        pull.give_lost(times.unwrap_or_default());
        pull.more = false;
        Ok(is_known)
    }
}

/// A pulled conversation that is being read.
pub struct Pull {
    /// The conversation.
    pub conv: Bytes,
    name: Vec<u8>,
    /// The user's membership, without its marks.
    membership: Membership,
    pulls_from: Sequence,
    /// The last sequence that is for this sync.
    pub last: Sequence,
    /// The time of the newest line.
    until_ms: TimeMs,
    cursor: Sequence,
    /// When the last event before the cursor was committed, or where the sync began: times never
    /// decrease.
    time_ms: TimeMs,
    /// The number of entries that the next read takes.
    ahead: usize,
    /// The events that were read and not delivered yet.
    pub buffer: VecDeque<Seen>,
    more: bool,
}

impl Pull {
    /// Adds lost events for the user as damaged. Returns whether the entries after them are to be
    /// taken now.
    fn give_lost(&mut self, lost: impl IntoIterator<Item = (Sequence, TimeMs)>) -> bool {
        for (sequence, time_ms) in lost {
            // If the end of the conversation is known, the sequence alone shows that an event is
            // for this sync.
            let latest_ms = if self.last < MAX_SEQUENCE { self.until_ms } else { TimeMs::MAX };
            let time_ms = time_ms.max(self.time_ms).min(latest_ms);
            if self.is_beyond(sequence, time_ms) {
                self.more = false;
                return false;
            }
            if sequence >= self.pulls_from && self.membership.periods.contains(sequence) {
                self.time_ms = time_ms;
                self.buffer.push_back(Seen { sequence, time_ms, event: None, edited: 0 });
            }
        }
        true
    }

    /// Whether an event is for a later sync, or not for the user at all.
    fn is_beyond(&self, sequence: Sequence, time_ms: TimeMs) -> bool {
        sequence > self.membership.periods.last() || sequence > self.last || time_ms > self.until_ms
    }
}

/// Pulled conversations by the time of their next event.
pub type Heads = BTreeMap<(TimeMs, Bytes), Pull>;
