//! Which of a user's pulled conversations have moved: so that a sync reads what is new, and not all that the user is in.
//!
//! Every pulled event leaves a line in one ledger of the whole server, with its conversation and sequence. A user who was here lately
//! has few lines to look at; one with few conversations looks at those instead. The cheaper way is taken: a sync looks at no more lines
//! than came on the whole server since, and at no more than eight for each of the user's pulled conversations, or a thousand; else at
//! the ends of those conversations.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Limit, Sequence, TimeMs, Verdict};

use super::around::{Gap, sequence_at, told_if_hidden};
use super::cursor::Position;
use super::event::Event;
use super::trouble::Result;
use super::user::User;
use super::{Messaging, names};

/// Lines read at a time.
const PAGE: Limit =
    Limit { entries: 4096, body_bytes: 8 * 1024 * 1024, first_always: true, around_damage: false };

/// A read that asks only where a timeline starts and ends.
pub const NOTHING: Limit = Limit { entries: 0, body_bytes: 0, first_always: false, around_damage: false };

/// So many lines are looked at without asking whether there is a cheaper way.
const CHEAP_LINES: u64 = 1024;

/// Pages of lines that are looked through for when lost events were pulled.
const MOST_LINE_PAGES: usize = 64;

/// A line costs about an eighth of a look into a timeline.
const LINES_A_LOOK: u64 = 8;

/// Pulled events that a sync may give: those of earlier times, and of this very time up to these sequences. Everything in it was
/// visible when it was made, and everything before it too.
pub type Frontier = Position;

impl Messaging {
    /// How far pulled events have come, as far as they concern a user.
    pub(super) fn frontier(&self, user: &User) -> Result<Frontier> {
        if user.pulled().is_empty() {
            return Ok(Frontier::default());
        }
        let (last, last_ms) = self.pulled.end(names::PULLED_LOG)?;
        if last == 0 {
            return Ok(Frontier::default());
        }
        let Some(mut seen) = self.newest_lines(user, last, last_ms)? else {
            // The newest line has expired: what is of its time has long been there, and what comes is of a later one.
            return Ok(Frontier { time_ms: last_ms + 1, ..Frontier::default() });
        };
        // The timelines of a group of commits, which has one time, become visible one after the other: a line of the newest group
        // may be there before its event is.
        for (conv, sequence) in &mut seen {
            let end = told_if_hidden(self.messages.end(&names::conversation(conv)))?;
            *sequence = end.map_or(*sequence, |(last, _)| last.min(*sequence));
        }
        Ok(Frontier { time_ms: last_ms, seen, ..Frontier::default() })
    }

    /// The highest sequences in the lines of the newest time, of a user's conversations; `None` when those lines have expired.
    fn newest_lines(
        &self,
        user: &User,
        last: Sequence,
        last_ms: TimeMs,
    ) -> Result<Option<BTreeMap<Bytes, Sequence>>> {
        let mut seen = BTreeMap::new();
        let (mut high, mut found) = (last, false);
        while high > 0 {
            let page = self.pulled.range_back(names::PULLED_LOG, 1..=high, Limit::entries(64))?;
            for entry in &page.entries {
                found = true;
                if entry.time_ms < last_ms {
                    return Ok(Some(seen));
                }
                if let Some(line) = Event::decode(&entry.body)
                    && user.pulled().contains(&line.conv)
                {
                    let known = seen.entry(Bytes::copy_from_slice(&line.conv)).or_insert(0);
                    *known = line.sequence.max(*known);
                }
            }
            match page.entries.last() {
                Some(entry) if page.more => high = entry.sequence - 1,
                _ => break,
            }
        }
        Ok(found.then_some(seen))
    }

    /// The user's conversations that may have pulled events behind a position, and from which sequence on.
    pub(super) fn moved(&self, user: &User, from: &Position) -> Result<BTreeMap<Bytes, Sequence>> {
        let pulled = user.pulled();
        let mut moved = BTreeMap::new();
        if pulled.is_empty() {
            return Ok(moved);
        }
        let behind = |conv: &Bytes| from.seen.get(conv).map_or(1, |seen| seen + 1);
        if let Some(first) = self.first_line(from, pulled.len() as u64)? {
            let mut cursor = first - 1;
            loop {
                let page = self.pulled.read_after(names::PULLED_LOG, cursor, PAGE)?;
                if page.verdict == Verdict::Trimmed {
                    // Lines have expired since they were counted.
                    break;
                }
                for line in page.entries.iter().filter_map(|entry| Event::decode(&entry.body)) {
                    let membership =
                        user.membership(&line.conv).filter(|membership| membership.pulls_from.is_some());
                    let is_for_it = membership.is_some_and(|one| one.periods.contains(line.sequence));
                    if is_for_it && line.sequence >= behind(&line.conv) {
                        moved.entry(Bytes::copy_from_slice(&line.conv)).or_insert(line.sequence);
                    }
                }
                if !page.more {
                    return Ok(moved);
                }
                cursor = page.next;
            }
        }
        for conv in pulled {
            let name = names::conversation(conv);
            let Some((last, last_ms)) = told_if_hidden(self.messages.end(&name))? else {
                // What is hidden shows by its lines, if at all.
                moved.insert(conv.clone(), behind(conv));
                continue;
            };
            if last_ms < from.time_ms || user.membership(conv).is_none_or(|one| one.is_over(from.time_ms)) {
                continue;
            }
            let first = sequence_at(&self.messages, &name, from.time_ms)?;
            // If nothing readable is before it, events of the same times may have been trimmed: the read from the start tells.
            let lowest = self.messages.read_after(&name, 0, NOTHING.around_damage())?.first;
            let first = if first == lowest { behind(conv) } else { first.max(behind(conv)) };
            if first <= last {
                moved.insert(conv.clone(), first);
            }
        }
        Ok(moved)
    }

    /// The times of those events of a gap that were pulled, as the lines tell them; `None` when lines may have expired, or are too
    /// many.
    pub(super) fn pulled_times(&self, conv: &Bytes, gap: &Gap) -> Result<Option<BTreeMap<Sequence, TimeMs>>> {
        let mut times = BTreeMap::new();
        let Some(first) = self.first_kept_line(gap.from_ms)? else { return Ok(None) };
        let mut cursor = first - 1;
        for _ in 0..MOST_LINE_PAGES {
            let page = self.pulled.read_after(names::PULLED_LOG, cursor, PAGE)?;
            if page.verdict == Verdict::Trimmed {
                return Ok(None);
            }
            for entry in &page.entries {
                if entry.time_ms > gap.to_ms {
                    return Ok(Some(times));
                }
                let line = Event::decode(&entry.body).filter(|line| line.conv == *conv);
                if let Some(line) = line.filter(|line| gap.sequences().contains(&line.sequence)) {
                    times.insert(line.sequence, entry.time_ms);
                }
            }
            if !page.more {
                return Ok(Some(times));
            }
            cursor = page.next;
        }
        Ok(None)
    }

    /// The first line of a time or a later one, if all of them are still there.
    fn first_kept_line(&self, from_ms: TimeMs) -> Result<Option<Sequence>> {
        let first = self.pulled.sequence_at(names::PULLED_LOG, from_ms)?;
        let page = self.pulled.read_after(names::PULLED_LOG, 0, NOTHING)?;
        // Lines expire. A line of an earlier time that is still there says that none of those that matter has.
        Ok((page.first == 1 || first > page.first).then_some(first))
    }

    /// The first line that matters, if all that matter are still there and they are cheaper than a look into each timeline.
    fn first_line(&self, from: &Position, looks: u64) -> Result<Option<Sequence>> {
        let Some(first) = self.first_kept_line(from.time_ms)? else { return Ok(None) };
        let (last, _) = self.pulled.end(names::PULLED_LOG)?;
        let lines = (last + 1).saturating_sub(first);
        let is_cheap = lines <= CHEAP_LINES.max(LINES_A_LOOK * looks);
        Ok(is_cheap.then_some(first))
    }
}
