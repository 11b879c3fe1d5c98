//! The log of pulled events, as a sync reads it: one ledger of the whole server, with a line for
//! each pulled event, in commit order. Lines expire after a week, so each function reports whether
//! the lines that it needs are still there. `pulled` uses the lines; `lines` checks that the log
//! belongs to the conversations in the engine.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Limit, Sequence, TimeMs, Verdict};

use super::around::Gap;
use super::cursor::Passed;
use super::event::{Event, Kind};
use super::moment::Moment;
use super::names;
use super::trouble::Result;
use super::user::{Membership, User};

/// Lines read at a time.
const PAGE: Limit =
    Limit { entries: 4096, body_bytes: 8 * 1024 * 1024, first_always: true, around_damage: false };

/// This many lines are read without comparing the costs.
const CHEAP_LINES: u64 = 1024;

/// Pages of lines that are searched for the times of lost events.
const MOST_LINE_PAGES: usize = 64;

/// A line costs about an eighth of a lookup of an end.
const LINES_A_LOOK: u64 = 8;

impl Moment<'_> {
    /// Passes the lines after `after` up to `last` to `take`: sequence, time, line.
    pub(super) fn walk_lines(
        &self,
        after: Sequence,
        last: Sequence,
        mut take: impl FnMut(Sequence, TimeMs, Event),
    ) -> Result<()> {
        for entry in self.pulled.entries(names::PULLED_LOG, after + 1..=last) {
            let entry = entry?;
            self.effort.add_lines(1);
            let line = Event::decode(&entry.body);
            if let Some(line) = line.filter(|line| matches!(line.kind, Kind::Pulled | Kind::Pushed))
            {
                take(entry.sequence, entry.time_ms, line);
            }
        }
        Ok(())
    }

    /// The user's pulled events of a time, in the order of their lines, after the line that was
    /// passed and up to `last`; `None` if lines have expired.
    pub(super) fn lines_of_time(
        &self,
        state: &User,
        time_ms: TimeMs,
        passed: &Passed,
        last: Sequence,
    ) -> Result<Option<Vec<(Sequence, Bytes, Sequence)>>> {
        let is_its_time = passed.time_ms == time_ms;
        let first = match passed.line {
            line if line > 0 && is_its_time => self.are_kept(line + 1)?.then_some(line + 1),
            _ => self.first_kept_line(time_ms)?,
        };
        let Some(first) = first else { return Ok(None) };
        let end = self.pulled.sequence_at(names::PULLED_LOG, time_ms + 1)?.saturating_sub(1);
        let mut lines = Vec::new();
        self.walk_lines(first - 1, last.min(end), |place, _, line| {
            let is_passed = is_its_time && passed.has(&line.conv, line.sequence);
            if line.kind == Kind::Pulled && !is_passed && gets(state, &line).is_some() {
                lines.push((place, Bytes::copy_from_slice(&line.conv), line.sequence));
            }
        })?;
        Ok(Some(lines))
    }

    /// The user's own newest line of a time; 0 if there is none any more.
    pub(super) fn newest_line(
        &self,
        state: &User,
        time_ms: TimeMs,
        last: Sequence,
    ) -> Result<Sequence> {
        let later = self.pulled.sequence_at(names::PULLED_LOG, time_ms + 1)?;
        let high = last.min(later.saturating_sub(1));
        for entry in self.pulled.entries(names::PULLED_LOG, ..=high).rev() {
            let entry = entry?;
            self.effort.add_lines(1);
            if entry.time_ms < time_ms {
                break;
            }
            if Event::decode(&entry.body).is_some_and(|line| gets(state, &line).is_some()) {
                return Ok(entry.sequence);
            }
        }
        Ok(0)
    }

    /// The times of the pulled events of a gap, from their lines; `None` if lines may have expired,
    /// or are too many.
    pub(super) fn pulled_times(
        &self,
        conv: &Bytes,
        gap: &Gap,
    ) -> Result<Option<BTreeMap<Sequence, TimeMs>>> {
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
                let line = Event::decode(&entry.body);
                let line = line.filter(|line| line.kind == Kind::Pulled && line.conv == *conv);
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

    /// The first line of a time or a later one, if all these lines are still there.
    pub(super) fn first_kept_line(&self, from_ms: TimeMs) -> Result<Option<Sequence>> {
        let first = self.pulled.sequence_at(names::PULLED_LOG, from_ms)?;
        let page = self.pulled.read_after(names::PULLED_LOG, 0, Limit::NOTHING)?;
        // Lines expire from the oldest on. If a line of an earlier time is still there, no line of
        // interest has expired.
        Ok((page.first == 1 || first > page.first).then_some(first))
    }

    /// Whether a line and all lines after it are still there.
    pub(super) fn are_kept(&self, first: Sequence) -> Result<bool> {
        Ok(self.pulled.read_after(names::PULLED_LOG, 0, Limit::NOTHING)?.first <= first)
    }

    /// Whether these lines are also cheaper than a lookup of each end.
    pub(super) fn are_kept_and_cheap(&self, first: Sequence, looks: u64) -> Result<bool> {
        let (last, _) = self.pulled.end(names::PULLED_LOG)?;
        let lines = (last + 1).saturating_sub(first);
        Ok(lines <= CHEAP_LINES.max(LINES_A_LOOK * looks) && self.are_kept(first)?)
    }
}

/// The user's membership, if the event of a line is for the user.
pub fn gets<'a>(state: &'a User, line: &Event) -> Option<&'a Membership> {
    let membership = state.membership(&line.conv).filter(|one| one.pulls_from.is_some());
    // The line of an edit or a recall names the message, if not all members may see it.
    let shows = |one: &&Membership| line.about == 0 || one.may_see(line.about);
    membership.filter(|one| one.periods.contains(line.sequence)).filter(shows)
}
