//! Builds one page of a sync: merges pushed and pulled events by time (steps 2 and 3 of `sync`).
//!
//! The order of the pulled events of one time depends on what a cursor in the middle of that time
//! can express:
//!
//! 1. If all conversations with events at that time can be noted in the cursor, the order is by id.
//! 2. Otherwise the order is by id as well, if the time is over, so that no conversation with a
//!    lower id gets an event of that time; except if one of the conversations also has pushed
//!    events of that time, whose order must be kept.
//! 3. Otherwise the order is that of the events' lines, as long as the lines are kept.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use strandline::{Limit, Sequence, TimeMs};

use super::copies::Found;
use super::cursor::{Passed, Position, can_be_noted, noted_bytes};
use super::event::{Event, Kind, When};
use super::heads::Heads;
use super::moment::Moment;
use super::names;
use super::page::{Delivery, Shown, Standing, SyncPage};
use super::pulled::Moves;
use super::refill::{Arrival, ArrivalContent};
use super::trouble::Result;
use super::user::User;

/// A page that is being built.
pub struct Merge<'a> {
    /// The conversations and users.
    pub moment: &'a Moment<'a>,
    /// The user whose page it is.
    pub user: &'a Bytes,
    /// The state of the user's ledger.
    pub state: &'a User,
    /// The limit of the page.
    pub limit: Limit,
    /// The conversations with pulled events.
    pub moves: Moves,
    /// The position reached so far.
    pub position: Position,
    /// Entries that the user lacks are gone.
    pub trimmed: bool,
    /// The pushed events.
    pub inbox: VecDeque<Arrival>,
    /// Whether there are more pushed events.
    pub inbox_more: bool,
    /// The position after the pushed events read so far.
    pub inbox_next: Sequence,
    /// The next pulled event of each conversation.
    pub heads: Heads,
    /// The page so far.
    pub out: Given,
}

/// The page so far.
#[derive(Default)]
pub struct Given {
    /// The position before the first event.
    start: Option<Position>,
    /// The time of the current pulled events, and their order.
    ties: Option<(TimeMs, Ties)>,
    /// When each conversation's ledger of changes last advanced.
    changes: HashMap<Bytes, TimeMs>,
    used_bytes: u64,
    deliveries: Vec<Delivery>,
}

/// How the pulled events of one time are ordered and passed: see the heading.
enum Ties {
    Noted,
    ById,
    ByLine(VecDeque<(Sequence, Bytes, Sequence)>),
}

impl Merge<'_> {
    /// Builds the page. `reports_trim`: whether the verdict reports trimmed entries.
    pub fn run(mut self, reports_trim: bool) -> Result<SyncPage> {
        let more = loop {
            let full = match self.next_pushed()? {
                // Skipped: either a client appended to the timeline directly, or the user may not
                // see the message that the event is about.
                Some(Arrival { place, content: ArrivalContent::Foreign, .. }) => {
                    self.inbox.pop_front();
                    self.position.inbox = place;
                    false
                }
                Some(arrival) => match self.pulled_before(&arrival)? {
                    Some(place) => !self.pulled(&place)?,
                    None => !self.pushed(arrival)?,
                },
                // Pulled events may come after entries of the sync timeline that were not read yet.
                None if self.inbox_more => break true,
                None => match self.next_pulled()? {
                    Some(place) => !self.pulled(&place)?,
                    None => break false,
                },
            };
            if full {
                break true;
            }
        };
        let Merge { moment, user, state, moves, mut position, inbox_next, out, trimmed, .. } = self;
        if !more {
            let pulled = moment.end_of(user, state, &moves)?;
            position = Position { inbox: inbox_next, pulled };
        }
        let cursor = position.encode(moment.history, user);
        let start =
            out.start.map_or_else(|| cursor.clone(), |start| start.encode(moment.history, user));
        let verdict = if trimmed && reports_trim { Standing::Trimmed } else { Standing::Ok };
        Ok(SyncPage { verdict, start, cursor, more, deliveries: out.deliveries })
    }

    /// The first entry of the sync timeline that was not delivered yet. A lost entry is read from
    /// its original.
    fn next_pushed(&self) -> Result<Option<Arrival>> {
        let Some(mut arrival) = self.inbox.front().cloned() else { return Ok(None) };
        if let ArrivalContent::Original(conv, sequence) = &arrival.content {
            arrival.content = match self.moment.event_at(conv, self.user, *sequence)? {
                Found::Event(_, event) => ArrivalContent::Copy(event),
                Found::Lost(..) => ArrivalContent::Damaged(conv.clone(), *sequence),
                Found::Nothing => ArrivalContent::Lost,
            };
        }
        if let ArrivalContent::Copy(copy) = &arrival.content
            && copy.is_change()
            && self
                .state
                .membership(&copy.conv)
                .is_some_and(|membership| !membership.may_see(copy.about))
        {
            arrival.content = ArrivalContent::Foreign;
        }
        Ok(Some(arrival))
    }

    /// The pulled event that comes before a pushed one: one of an earlier time, or one of the same
    /// time if the conversation has an earlier pulled event of that time.
    fn pulled_before(&mut self, pushed: &Arrival) -> Result<Option<(TimeMs, Bytes)>> {
        let Some(earliest) = self.next_pulled()? else { return Ok(None) };
        if earliest.0 < pushed.time_ms {
            return Ok(Some(earliest));
        }
        let Some((conv, sequence)) = pushed.event() else { return Ok(None) };
        let own = (pushed.time_ms, conv.clone());
        let seen = self.heads.get(&own).and_then(|pull| pull.buffer.front());
        if seen.is_none_or(|seen| seen.sequence > sequence) {
            return Ok(None);
        }
        // The events before that one in the order of the time come first.
        let is_noted = matches!(&self.out.ties, Some((_, Ties::Noted)));
        Ok(Some(if is_noted { own } else { earliest }))
    }

    /// The conversation and the time of the next pulled event.
    fn next_pulled(&mut self) -> Result<Option<(TimeMs, Bytes)>> {
        let Some(earliest) = self.heads.keys().next().cloned() else { return Ok(None) };
        let time_ms = earliest.0;
        if self.out.ties.as_ref().is_none_or(|(known_ms, _)| *known_ms != time_ms) {
            self.out.ties = Some((time_ms, self.ties_of(time_ms)?));
        }
        if let Some((_, Ties::ByLine(lines))) = &mut self.out.ties {
            while let Some((_, conv, sequence)) = lines.front() {
                let place = (time_ms, conv.clone());
                let next = self.heads.get(&place).and_then(|pull| pull.buffer.front());
                if next.is_some_and(|seen| seen.sequence <= *sequence) {
                    return Ok(Some(place));
                }
                // The event has expired, or was trimmed.
                lines.pop_front();
            }
        }
        Ok(Some(earliest))
    }

    /// The order of the pulled events of a time.
    fn ties_of(&self, time_ms: TimeMs) -> Result<Ties> {
        let before = Passed { time_ms, ..Passed::default() };
        let passed =
            if self.position.pulled.time_ms == time_ms { &self.position.pulled } else { &before };
        if passed.by_id {
            return Ok(Ties::ById);
        }
        if passed.line == 0 && can_be_noted(self.bytes_to_note(time_ms, passed)) {
            return Ok(Ties::Noted);
        }
        if passed.is_before_its_time()
            && time_ms < self.moves.time_ms
            && !self.are_pushed_too(time_ms)
        {
            return Ok(Ties::ById);
        }
        let lines = self.moment.lines_of_time(self.state, time_ms, passed, self.moves.line)?;
        Ok(lines.map_or(Ties::ById, |lines| Ties::ByLine(lines.into())))
    }

    /// Whether a conversation has, or may have, both pulled and pushed events of a time, whose
    /// common order must be kept.
    fn are_pushed_too(&self, time_ms: TimeMs) -> bool {
        let is_cut =
            self.inbox_more && self.inbox.back().is_none_or(|last| last.time_ms <= time_ms);
        let of_time = self.inbox.iter().filter(|arrival| arrival.time_ms == time_ms);
        let mut convs = of_time.filter_map(Arrival::event).map(|(conv, _)| conv);
        is_cut || convs.any(|conv| self.heads.contains_key(&(time_ms, conv.clone())))
    }

    /// The bytes for noting every conversation that was passed at a time or has events of it to
    /// come.
    fn bytes_to_note(&self, time_ms: TimeMs, passed: &Passed) -> usize {
        let place = |conv: &Bytes| (time_ms, conv.clone());
        let done = passed.noted.iter().filter(|(conv, _)| !self.heads.contains_key(&place(conv)));
        let waiting = self.heads.range(place(&Bytes::new())..);
        let waiting = waiting.take_while(|((other_ms, _), _)| *other_ms == time_ms);
        done.map(|(conv, last)| noted_bytes(conv, *last)).sum::<usize>()
            + waiting.map(|((_, conv), pull)| noted_bytes(conv, pull.last)).sum::<usize>()
    }

    /// Passes a pulled event.
    fn pass(&mut self, conv: &Bytes, sequence: Sequence, time_ms: TimeMs) {
        let passed = &mut self.position.pulled;
        passed.reach(time_ms);
        match &mut self.out.ties {
            Some((_, Ties::ById)) => {
                let noted = [(conv.clone(), sequence)].into();
                *passed = Passed { time_ms: passed.time_ms, line: 0, noted, by_id: true };
            }
            Some((_, Ties::ByLine(lines)))
                if lines.front().is_some_and(|(_, next, its)| next == conv && *its == sequence) =>
            {
                passed.line = lines.pop_front().map_or(passed.line, |(line, ..)| line);
            }
            _ => {
                // The event has no line, and the conversation cannot be noted either: it may be
                // delivered again, but is not missed.
                let _fits = passed.note(conv, sequence);
            }
        }
    }

    /// Delivers the next pulled event of a conversation. False if it does not fit.
    fn pulled(&mut self, place: &(TimeMs, Bytes)) -> Result<bool> {
        self.note_start()?;
        let Some(mut pull) = self.heads.remove(place) else { return Ok(true) };
        let Some(seen) = pull.buffer.pop_front() else { return Ok(true) };
        let (sequence, time_ms) = (seen.sequence, seen.time_ms);
        let shown = seen.shown();
        if !self.fits(&shown) {
            return Ok(false);
        }
        self.pass(&pull.conv, sequence, time_ms);
        self.give(pull.conv.clone(), shown);
        self.trimmed |= self.moment.put_back(self.user, &mut self.heads, pull)?;
        Ok(true)
    }

    /// Delivers the next pushed event. False if it does not fit.
    fn pushed(&mut self, arrival: Arrival) -> Result<bool> {
        self.note_start()?;
        let Arrival { place, time_ms, content } = arrival;
        let mut lined = None;
        let (conv, shown) = match content {
            ArrivalContent::Copy(copy) => {
                let (conv, sequence) = (copy.conv.clone(), copy.sequence);
                lined = (!copy.is_mark()).then_some((conv.clone(), sequence));
                let shown = match self.as_it_is_now(copy, time_ms)? {
                    (Some(event), edited) => Shown::of(time_ms, event, edited),
                    (None, _) => Shown::damaged(sequence, time_ms),
                };
                (conv, shown)
            }
            ArrivalContent::Damaged(conv, sequence) => (conv, Shown::damaged(sequence, time_ms)),
            ArrivalContent::Original(..) | ArrivalContent::Foreign | ArrivalContent::Lost => {
                (Bytes::new(), Shown::lost())
            }
        };
        if !self.fits(&shown) {
            return Ok(false);
        }
        self.inbox.pop_front();
        self.position.inbox = place;
        if let Some((conv, sequence)) = lined {
            self.note_pushed(&conv, sequence, time_ms);
        }
        self.give(conv, shown);
        Ok(true)
    }

    /// Notes a pushed event of a conversation that has pulled events. Such an event has a line too,
    /// so the position at the end is after it.
    fn note_pushed(&mut self, conv: &Bytes, sequence: Sequence, time_ms: TimeMs) {
        let membership = self.state.membership(conv);
        let has_line =
            membership.and_then(|one| one.pulls_from).is_some_and(|from| sequence >= from);
        let is_noted = match &self.out.ties {
            Some((known_ms, ties)) if *known_ms == time_ms => matches!(ties, Ties::Noted),
            _ => true,
        };
        // Pushed events of earlier versions have no line, so they may be later than the newest
        // line.
        let is_before_end = time_ms <= self.moves.time_ms;
        if !(has_line && is_noted && is_before_end && time_ms >= self.position.pulled.time_ms) {
            return;
        }
        let mut passed = self.position.pulled.clone();
        passed.reach(time_ms);
        passed.noted.insert(conv.clone(), sequence);
        if !passed.by_id && can_be_noted(self.bytes_to_note(time_ms, &passed)) {
            self.position.pulled = passed;
        }
    }

    fn fits(&mut self, shown: &Shown) -> bool {
        let out = &mut self.out;
        let used_bytes = out.used_bytes + shown.body.len() as u64;
        let fits = out.deliveries.is_empty()
            || (out.deliveries.len() < self.limit.entries && used_bytes <= self.limit.body_bytes);
        if fits {
            out.used_bytes = used_bytes;
        }
        fits
    }

    fn give(&mut self, conv: Bytes, shown: Shown) {
        self.out.deliveries.push(Delivery { conv, shown, position: self.position.clone() });
    }

    /// Before the first event, records the position before it, after everything that was skipped.
    fn note_start(&mut self) -> Result<()> {
        if self.out.start.is_some() {
            return Ok(());
        }
        let inbox = match self.inbox.front() {
            // A lost entry stands for a range, and has the sequence of the range's end.
            Some(Arrival { content: ArrivalContent::Lost, .. }) => self.position.inbox,
            Some(arrival) => self.position.inbox.max(arrival.place - 1),
            None if self.inbox_more => self.position.inbox,
            None => self.inbox_next,
        };
        let pulled = match self.heads.keys().next() {
            Some((time_ms, _)) => self.before_heads(*time_ms),
            None if self.trimmed => self.moment.end_of(self.user, self.state, &self.moves)?,
            None => self.position.pulled.clone(),
        };
        self.out.start = Some(Position { inbox, pulled });
        Ok(())
    }

    /// The position before all pulled events that are to be delivered. `time_ms`: the time of the
    /// earliest ones.
    fn before_heads(&self, time_ms: TimeMs) -> Passed {
        let mut passed = self.position.pulled.clone();
        passed.reach(time_ms);
        if !self.trimmed || passed.line > 0 || passed.by_id {
            return passed;
        }
        // The position passes trimmed events of that time, as far as they can be noted.
        for ((_, conv), pull) in
            self.heads.iter().take_while(|((other_ms, _), _)| *other_ms == time_ms)
        {
            let before = pull.buffer.front().map_or(0, |seen| seen.sequence - 1);
            if passed.has(conv, before) || before == 0 {
                continue;
            }
            if !passed.note(conv, before) {
                break;
            }
        }
        passed
    }

    /// A copy in its current form, and how often its message was edited; `None` if the current form
    /// cannot be known.
    fn as_it_is_now(&mut self, copy: Event, copied_ms: TimeMs) -> Result<(Option<Event>, u64)> {
        if !matches!(copy.kind, Kind::Message | Kind::Edit) {
            return Ok((Some(copy), 0));
        }
        let moment = self.moment;
        let changed_ms = if let Some(known) = self.out.changes.get(&copy.conv) {
            *known
        } else {
            let (_, changed_ms) = moment.state.end(names::changes_ledger(&copy.conv))?;
            self.out.changes.insert(copy.conv.clone(), changed_ms);
            changed_ms
        };
        if changed_ms < copied_ms {
            return Ok((Some(copy), 0));
        }
        let membership = self.state.membership(&copy.conv);
        moment.copy_shown_to(self.user, membership, copy, When::at(copied_ms))
    }
}
