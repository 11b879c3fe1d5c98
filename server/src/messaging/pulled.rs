//! Finds which of a user's pulled conversations have new events, so that a sync reads what is new
//! and not all conversations of the user.
//!
//! Every pulled event adds a line to one ledger of the whole server, with its conversation and
//! sequence. So does every pushed event of a conversation that has pulled events, marked as pushed.
//! Lines are in commit order, and are kept for a week.
//!
//! ```text
//!  by lines   reads the lines after the terminal's position,    cost: the events on the whole
//!             up to the newest                                  server since then
//!  by ends    looks up the end of the timeline of each of the   cost: the number of these
//!             user's pulled conversations                       conversations
//! ```
//!
//! The cheaper way is taken. A sync reads lines if those since its position are at most 1024, or at
//! most eight for each of the user's pulled conversations; otherwise it looks up the ends. Neither
//! way walks through all events of one time, which may be very many: a clock that was set back
//! stands still for hours.
//!
//! Both ways give the same result: the sequences that each conversation has up to the newest line,
//! and the *end*, which is the position after all of them. An end names the time of the user's own
//! newest event and the events that the user got at that time. It names no events of others, so it
//! does not move for them. If these events cannot be noted in a cursor, the end has the line of the
//! newest one instead. The line up to which a user's end is known is kept in memory (`tails`), so
//! that the same lines are not read twice. Without it the cost is higher, and nothing else differs.

use std::collections::BTreeMap;

use bytes::Bytes;
use quick_cache::sync::Cache;
use strandline::{Limit, MAX_SEQUENCE, Sequence, TimeMs};

use super::around::{Piece, Scan, none_if_hidden, sequence_at};
use super::conversation::History;
use super::cursor::{Passed, all_noted_bytes, can_be_noted};
use super::event::{Event, Kind};
use super::moment::Moment;
use super::names;
use super::pulled_log::gets;
use super::trouble::Result;
use super::user::{Membership, User};

/// Entries read at a time to find the last one that is for a user, and the most reads.
const LAST: Limit =
    Limit { entries: 4, body_bytes: 1024 * 1024, first_always: true, around_damage: true };
const MOST_LAST_PAGES: usize = 64;

/// The number of users whose ends are kept in memory, at most about 400 bytes each.
const MOST_TAILS: usize = 8192;

/// The end of a user's pulled events, and the line up to which it is valid.
#[derive(Clone)]
pub struct Tail {
    line: Sequence,
    end: Passed,
}

/// The ends of users who synced recently.
pub type Tails = Cache<Bytes, Tail>;

/// An empty cache of ends.
pub fn tails() -> Tails {
    Cache::new(MOST_TAILS)
}

/// The sequences of a conversation that a user may lack, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The lowest.
    pub first: Sequence,
    /// The highest; `MAX_SEQUENCE` if damage hides the end.
    pub last: Sequence,
}

/// The new events between the position of a terminal and the newest line.
pub struct Moves {
    /// The newest line. It was read when its whole batch, and every batch before it, was visible.
    pub line: Sequence,
    /// Its time.
    pub time_ms: TimeMs,
    /// The conversations with new events.
    pub convs: BTreeMap<Bytes, Stretch>,
    /// It is unknown which events of the cursor's own time the cursor has passed: their lines have
    /// expired.
    pub is_trimmed: bool,
    newest: NewestEvents,
}

/// The user's own newest events.
#[derive(Default)]
struct NewestEvents {
    is_known: bool,
    time_ms: TimeMs,
    /// The line of the newest event; 0: not known.
    line: Sequence,
    /// The events of that time cannot all be noted, and not all of them are in `convs`.
    is_part: bool,
    convs: BTreeMap<Bytes, Sequence>,
}

impl NewestEvents {
    /// The newest events according to an end.
    fn of(end: &Passed) -> NewestEvents {
        NewestEvents {
            is_known: true,
            time_ms: end.time_ms,
            line: end.line,
            is_part: end.line > 0 || end.by_id,
            convs: end.noted.clone(),
        }
    }

    fn add(&mut self, conv: &Bytes, sequence: Sequence, time_ms: TimeMs, line: Sequence) {
        if time_ms > self.time_ms || !self.is_known {
            *self = NewestEvents { is_known: true, time_ms, ..NewestEvents::default() };
        }
        if time_ms == self.time_ms {
            self.line = self.line.max(line);
            // A slice of a line would keep its block alive.
            let known = self.convs.entry(Bytes::copy_from_slice(conv)).or_insert(0);
            *known = sequence.max(*known);
        }
    }

    fn can_be_noted(&self) -> bool {
        !self.is_part && can_be_noted(all_noted_bytes(&self.convs))
    }
}

impl Moment<'_> {
    /// The new events since a position, by the cheaper way; not yet up to the newest line
    /// ([`Messaging::advance`]).
    pub(super) fn moves_since(&self, user: &Bytes, state: &User, start: &Passed) -> Result<Moves> {
        let moves = |line, newest| Moves {
            line,
            time_ms: 0,
            convs: BTreeMap::new(),
            is_trimmed: false,
            newest,
        };
        if state.pulled().is_empty() {
            return Ok(moves(0, NewestEvents { is_known: true, ..NewestEvents::default() }));
        }
        let looks = state.pulled().len() as u64;
        if let Some(tail) = self.tails.get(user).filter(|tail| tail.end == *start)
            && self.are_kept_and_cheap(tail.line + 1, looks)?
        {
            return Ok(moves(tail.line, NewestEvents::of(&tail.end)));
        }
        if start.line > 0 {
            if self.are_kept_and_cheap(start.line + 1, looks)? {
                return Ok(moves(
                    start.line,
                    NewestEvents { is_part: true, ..NewestEvents::of(start) },
                ));
            }
        } else if let Some(first) = self.first_kept_line(start.time_ms)?
            && self.are_kept_and_cheap(first, looks)?
        {
            return Ok(moves(first - 1, NewestEvents::default()));
        }
        self.moves_by_ends(state, Some(start))
    }

    /// Advances to the newest line of the moment.
    pub(super) fn advance(&self, state: &User, start: &Passed, moves: &mut Moves) -> Result<()> {
        if state.pulled().is_empty() {
            return Ok(());
        }
        let (last, last_ms) = self.pulled.end(names::PULLED_LOG)?;
        moves.time_ms = moves.time_ms.max(last_ms);
        self.walk_lines(moves.line, last, |place, time_ms, line| {
            let Some(membership) = gets(state, &line) else { return };
            let newest = &mut moves.newest;
            newest.add(&line.conv, line.sequence, time_ms, place);
            let is_passed = time_ms < start.time_ms
                || (time_ms == start.time_ms
                    && (place <= start.line || start.has(&line.conv, line.sequence)));
            if line.kind != Kind::Pulled || is_passed || membership.pulls_from.is_none() {
                return;
            }
            let sequence = line.sequence;
            if let Some(known) = moves.convs.get_mut(&line.conv) {
                known.last = known.last.max(sequence);
            } else {
                let stretch = Stretch { first: sequence, last: sequence };
                moves.convs.insert(Bytes::copy_from_slice(&line.conv), stretch);
            }
        })?;
        moves.line = moves.line.max(last);
        if !moves.newest.is_known {
            // No line of the user's is left.
            moves.newest = self.moves_by_ends(state, None)?.newest;
        }
        Ok(())
    }

    /// The new events, by the end of each conversation. Without a start, only the user's newest
    /// events.
    fn moves_by_ends(&self, state: &User, start: Option<&Passed>) -> Result<Moves> {
        let (line, time_ms) = self.pulled.end(names::PULLED_LOG)?;
        let mut moves = Moves {
            line,
            time_ms,
            convs: BTreeMap::new(),
            is_trimmed: false,
            newest: NewestEvents { is_known: true, ..NewestEvents::default() },
        };
        let firsts = match start.filter(|start| start.line > 0) {
            Some(start) => self.firsts_behind_line(state, start)?,
            None => Some(BTreeMap::new()),
        };
        moves.is_trimmed = firsts.is_none();
        let firsts = firsts.unwrap_or_default();
        for conv in state.pulled() {
            let Some(membership) = state.membership(conv) else { continue };
            self.effort.add_look();
            let Some(end) = none_if_hidden(self.messages.end(names::conversation(conv)))? else {
                // Hidden events can only be found by their lines.
                if let Some(start) = start {
                    let first = start.noted.get(conv).map_or(1, |last| last + 1);
                    moves.convs.insert(conv.clone(), Stretch { first, last: MAX_SEQUENCE });
                }
                continue;
            };
            let Some((last, last_ms)) = self.own_end(conv, membership, end)? else { continue };
            moves.newest.add(conv, last, last_ms, 0);
            let Some(start) = start.filter(|start| last_ms >= start.time_ms) else { continue };
            let first = self.first_behind(conv, start, &firsts)?;
            if first <= last {
                moves.convs.insert(conv.clone(), Stretch { first, last });
            }
        }
        Ok(moves)
    }

    /// The last event of a conversation that is for a member, and its time, given the end of the
    /// timeline.
    fn own_end(
        &self,
        conv: &Bytes,
        membership: &Membership,
        (last, last_ms): (Sequence, TimeMs),
    ) -> Result<Option<(Sequence, TimeMs)>> {
        let own = membership.periods.last().min(last);
        if !membership.periods.contains(own) {
            return Ok(None);
        }
        let end = (own, if own < last { membership.left_ms } else { last_ms });
        if membership.history == History::All {
            return Ok(Some(end));
        }
        // Edits and recalls of messages that the member may not see are not for it.
        let name = names::conversation(conv);
        let mut scan = Scan::new(&self.messages, &name, (1, own), true, LAST);
        let mut next = own;
        for _ in 0..MOST_LAST_PAGES {
            let Some(pieces) = scan.next_page()? else { break };
            for piece in pieces {
                let Piece::Whole(entry) = piece else { return Ok(Some(end)) };
                // The last event has expired: it is assumed that it was for the member.
                if entry.sequence < next && next == own {
                    return Ok(Some(end));
                }
                next = entry.sequence - 1;
                let event = Event::for_members(&entry.body);
                if membership.periods.contains(entry.sequence)
                    && event.is_none_or(|event| membership.gets(entry.sequence, &event))
                {
                    return Ok(Some((entry.sequence, entry.time_ms)));
                }
            }
        }
        Ok(Some(end))
    }

    /// The first sequence of a conversation that a position has not passed.
    fn first_behind(
        &self,
        conv: &Bytes,
        start: &Passed,
        firsts: &BTreeMap<Bytes, Sequence>,
    ) -> Result<Sequence> {
        let name = names::conversation(conv);
        if let Some(first) = firsts.get(conv) {
            return Ok(*first);
        }
        let floor = start.noted.get(conv).map_or(1, |last| last + 1);
        // Whether the position has passed all events of its time.
        let is_behind = start.line > 0 || (floor == 1 && start.has(conv, MAX_SEQUENCE));
        let first = sequence_at(&self.messages, &name, start.time_ms + u64::from(is_behind))?;
        // If nothing readable is before it, events of the same times may have been trimmed. The
        // read from the start shows that.
        let lowest = self.messages.read_after(&name, 0, Limit::NOTHING.around_damage())?.first;
        Ok(if first == lowest { floor } else { first.max(floor) })
    }

    /// The first sequence of each conversation that has the time of a position and comes after its
    /// line; `None` if lines have expired.
    fn firsts_behind_line(
        &self,
        state: &User,
        start: &Passed,
    ) -> Result<Option<BTreeMap<Bytes, Sequence>>> {
        let mut firsts = BTreeMap::new();
        if !self.are_kept(start.line + 1)? {
            return Ok(None);
        }
        let last = self.pulled.sequence_at(names::PULLED_LOG, start.time_ms + 1)?.saturating_sub(1);
        self.walk_lines(start.line, last, |_, _, line| {
            let is_new = gets(state, &line).is_some() && !start.has(&line.conv, line.sequence);
            if line.kind == Kind::Pulled && is_new && !firsts.contains_key(&line.conv) {
                firsts.insert(Bytes::copy_from_slice(&line.conv), line.sequence);
            }
        })?;
        Ok(Some(firsts))
    }

    /// The current end of a user's pulled events.
    pub(super) fn end_of_pulled(&self, user: &Bytes, state: &User) -> Result<Moves> {
        let looks = state.pulled().len() as u64;
        let start = match self.tails.get(user) {
            Some(tail) if self.are_kept_and_cheap(tail.line + 1, looks)? => tail.end,
            _ => {
                let mut moves = match looks {
                    0 => self.moves_since(user, state, &Passed::default())?,
                    _ => self.moves_by_ends(state, None)?,
                };
                self.advance(state, &Passed::default(), &mut moves)?;
                return Ok(moves);
            }
        };
        let mut moves = self.moves_since(user, state, &start)?;
        self.advance(state, &start, &mut moves)?;
        Ok(moves)
    }

    /// The position after everything in `moves`; it is kept for the next sync.
    pub(super) fn end_of(&self, user: &Bytes, state: &User, moves: &Moves) -> Result<Passed> {
        if state.pulled().is_empty() {
            return Ok(Passed::default());
        }
        let end = self.end_at(state, &moves.newest, moves.line)?;
        self.tails.insert(user.clone(), Tail { line: moves.line, end: end.clone() });
        Ok(end)
    }

    fn end_at(&self, state: &User, newest: &NewestEvents, last: Sequence) -> Result<Passed> {
        let time_ms = newest.time_ms;
        if newest.can_be_noted() {
            return Ok(Passed { time_ms, noted: newest.convs.clone(), ..Passed::default() });
        }
        let line = match newest.line {
            0 => self.newest_line(state, time_ms, last)?,
            line => line,
        };
        if line > 0 {
            return Ok(Passed { time_ms, line, ..Passed::default() });
        }
        // The lines have expired. The time is long over, so the order by id can be used.
        let noted = newest.convs.iter().next_back().map(|(conv, last)| (conv.clone(), *last));
        Ok(Passed { time_ms, line, noted: noted.into_iter().collect(), by_id: true })
    }
}
