//! One page of a sync: what was pushed and what was pulled, merged by time (steps 2 and 3 of
//! `sync`).
//!
//! What a cursor in the middle of a time can say decides in which order the pulled events of that
//! time come:
//!
//! 1. if the conversations that have some can be noted, by id;
//! 2. else by id, too, when the time is over: nothing is added below an id any more. Not if one of
//!    them was also pushed to then, whose events come in its own order;
//! 3. else by the line of each event, while the lines are kept.

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
use super::refill::{Arrival, Content};
use super::trouble::Result;
use super::user::User;

/// A page in the making.
pub struct Merge<'a> {
    /// All there is.
    pub moment: &'a Moment<'a>,
    /// Whose page.
    pub user: &'a Bytes,
    /// What the user's ledger says.
    pub state: &'a User,
    /// How much of it.
    pub limit: Limit,
    /// What was pulled.
    pub moves: Moves,
    /// How far it is.
    pub position: Position,
    /// Something is gone that the user lacks.
    pub trimmed: bool,
    /// What was pushed.
    pub inbox: VecDeque<Arrival>,
    /// There is more of that.
    pub inbox_more: bool,
    /// Where that goes on.
    pub inbox_next: Sequence,
    /// The next pulled events.
    pub heads: Heads,
    /// What is given so far.
    pub out: Given,
}

/// What a page has so far.
#[derive(Default)]
pub struct Given {
    /// The place before the first event.
    start: Option<Position>,
    /// The time whose pulled events come now, and how.
    ties: Option<(TimeMs, Ties)>,
    /// When each conversation's ledger of changes moved last.
    changes: HashMap<Bytes, TimeMs>,
    used_bytes: u64,
    deliveries: Vec<Delivery>,
}

/// How the pulled events of one time are ordered, and said to be passed: see the heading.
enum Ties {
    Noted,
    ById,
    ByLine(VecDeque<(Sequence, Bytes, Sequence)>),
}

impl Merge<'_> {
    /// The page. `told`: whether the terminal hears of what was trimmed.
    pub fn run(mut self, told: bool) -> Result<SyncPage> {
        let more = loop {
            let full = match self.next_pushed()? {
                // Not ours: somebody appended to the timeline by itself, or the user may not see
                // what it is about.
                Some(Arrival { place, content: Content::Foreign, .. }) => {
                    self.inbox.pop_front();
                    self.position.inbox = place;
                    false
                }
                Some(arrival) => match self.pulled_before(&arrival)? {
                    Some(place) => !self.pulled(&place)?,
                    None => !self.pushed(arrival)?,
                },
                // What is pulled may come behind what is still to be read of the sync timeline.
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
        let verdict = if trimmed && told { Standing::Trimmed } else { Standing::Ok };
        Ok(SyncPage { verdict, start, cursor, more, deliveries: out.deliveries })
    }

    /// The first of the sync timeline that was not given yet. What is lost there is read where its
    /// original is.
    fn next_pushed(&self) -> Result<Option<Arrival>> {
        let Some(mut arrival) = self.inbox.front().cloned() else { return Ok(None) };
        if let Content::Original(conv, sequence) = &arrival.content {
            arrival.content = match self.moment.event_at(conv, self.user, *sequence)? {
                Found::Event(_, event) => Content::Copy(event),
                Found::Lost(..) => Content::Damaged(conv.clone(), *sequence),
                Found::Nothing => Content::Lost,
            };
        }
        if let Content::Copy(copy) = &arrival.content
            && copy.is_change()
            && self
                .state
                .membership(&copy.conv)
                .is_some_and(|membership| !membership.may_see(copy.about))
        {
            arrival.content = Content::Foreign;
        }
        Ok(Some(arrival))
    }

    /// The pulled event that comes before a pushed one: of an earlier time, or of the same if the
    /// conversation itself has one.
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
        // Those before it in its order come before it.
        let is_noted = matches!(&self.out.ties, Some((_, Ties::Noted)));
        Ok(Some(if is_noted { own } else { earliest }))
    }

    /// The conversation of the next pulled event, and its time.
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
                // It has expired, or was trimmed.
                lines.pop_front();
            }
        }
        Ok(Some(earliest))
    }

    /// How the pulled events of a time come that is to come now.
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

    /// Whether a conversation has, or may have, both pulled and pushed events of a time: these come
    /// in its order.
    fn are_pushed_too(&self, time_ms: TimeMs) -> bool {
        let is_cut =
            self.inbox_more && self.inbox.back().is_none_or(|last| last.time_ms <= time_ms);
        let of_time = self.inbox.iter().filter(|arrival| arrival.time_ms == time_ms);
        let mut convs = of_time.filter_map(Arrival::event).map(|(conv, _)| conv);
        is_cut || convs.any(|conv| self.heads.contains_key(&(time_ms, conv.clone())))
    }

    /// What is noted, and what is to come of a time, if each is noted.
    fn bytes_to_note(&self, time_ms: TimeMs, passed: &Passed) -> usize {
        let place = |conv: &Bytes| (time_ms, conv.clone());
        let done = passed.noted.iter().filter(|(conv, _)| !self.heads.contains_key(&place(conv)));
        let waiting = self.heads.range(place(&Bytes::new())..);
        let waiting = waiting.take_while(|((other_ms, _), _)| *other_ms == time_ms);
        done.map(|(conv, last)| noted_bytes(conv, *last)).sum::<usize>()
            + waiting.map(|((_, conv), pull)| noted_bytes(conv, pull.last)).sum::<usize>()
    }

    /// A pulled event is passed.
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
                // Without a line of its own, among too many: rather it comes again.
                let _fits = passed.note(conv, sequence);
            }
        }
    }

    /// Gives the next pulled event of a conversation; false if it does not fit.
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

    /// Gives the next pushed event; false if it does not fit.
    fn pushed(&mut self, arrival: Arrival) -> Result<bool> {
        self.note_start()?;
        let Arrival { place, time_ms, content } = arrival;
        let mut lined = None;
        let (conv, shown) = match content {
            Content::Copy(copy) => {
                let (conv, sequence) = (copy.conv.clone(), copy.sequence);
                lined = (!copy.is_mark()).then_some((conv.clone(), sequence));
                let shown = match self.as_it_is_now(copy, time_ms)? {
                    (Some(event), edited) => Shown::of(time_ms, event, edited),
                    (None, _) => Shown::damaged(sequence, time_ms),
                };
                (conv, shown)
            }
            Content::Damaged(conv, sequence) => (conv, Shown::damaged(sequence, time_ms)),
            Content::Original(..) | Content::Foreign | Content::Lost => {
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

    /// A pushed event of a conversation that has pulled ones has a line, too: the end is behind it.
    fn note_pushed(&mut self, conv: &Bytes, sequence: Sequence, time_ms: TimeMs) {
        let membership = self.state.membership(conv);
        let has_line =
            membership.and_then(|one| one.pulls_from).is_some_and(|from| sequence >= from);
        let is_noted = match &self.out.ties {
            Some((known_ms, ties)) if *known_ms == time_ms => matches!(ties, Ties::Noted),
            _ => true,
        };
        // Those of earlier versions have no line: the newest one may be before them.
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

    /// Before the first event: the place before it, behind all that was passed over.
    fn note_start(&mut self) -> Result<()> {
        if self.out.start.is_some() {
            return Ok(());
        }
        let inbox = match self.inbox.front() {
            // It stands for a range, the end of which is its place.
            Some(Arrival { content: Content::Lost, .. }) => self.position.inbox,
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

    /// The place before all pulled events that are there to be given, the earliest of which are of
    /// a time.
    fn before_heads(&self, time_ms: TimeMs) -> Passed {
        let mut passed = self.position.pulled.clone();
        passed.reach(time_ms);
        if !self.trimmed || passed.line > 0 || passed.by_id {
            return passed;
        }
        // What was trimmed of them is passed over, as far as it can be noted.
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

    /// A copy as it is now, and how often its message was edited; `None` when it cannot be known
    /// what it became.
    fn as_it_is_now(&mut self, copy: Event, copied_ms: TimeMs) -> Result<(Option<Event>, u64)> {
        if !matches!(copy.kind, Kind::Message | Kind::Edit) {
            return Ok((Some(copy), 0));
        }
        let moment = self.moment;
        let changed_ms = if let Some(known) = self.out.changes.get(&copy.conv) {
            *known
        } else {
            let (_, changed_ms) = moment.state.end(&names::changes_ledger(&copy.conv))?;
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
