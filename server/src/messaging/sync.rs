//! Syncing: everything that a terminal lacks, from its own cursor, pushed and pulled in one row (P10, P11).
//!
//! ```text
//!  the user's sync timeline          ── pushed ──▶ ┐
//!                                                  ├─ by time, each conversation in its order ─▶ page, cursor
//!  conversations that moved (pulled) ── pulled ──▶ ┘
//! ```
//!
//! 1. Read a piece of the sync timeline, then how far pulled events have come (the frontier), then look whether the sync timeline has
//!    moved meanwhile; if so, again. Now everything before anything in the two is in the two. If the user's ledger has moved, all
//!    begins anew: there may be a conversation more to look into.
//! 2. Merge by time. At the same time pushed events come first, unless the conversation has a pulled one of a lower sequence: so a
//!    conversation that switched between the two keeps its order. (A mark bears the sequence that it means, and comes behind it.)
//! 3. The position passes what is given; at the end of everything it reaches the frontier.
//!
//! A copy in the sync timeline may be older than an edit or a recall: if the conversation's ledger of changes has moved since, the
//! original is shown.
//!
//! The cost is that of what is new; see `pulled`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use strandline::{Entry, Limit, Sequence, Store, TimeMs, Verdict};

use super::cursor::{Cursor, Position};
use super::event::{Event, Kind};
use super::ledger::Ledger;
use super::page::{Delivery, Shown, Standing, SyncPage};
use super::periods::Periods;
use super::pulled::Frontier;
use super::trouble::Result;
use super::user::User;
use super::{Messaging, names};

/// Most of one pulled conversation that is read at a time. The first read takes one entry, each further one twice as many as the one
/// before: so what is read ahead is no more than what was given, and one entry of each conversation.
const MOST_AHEAD: Limit =
    Limit { entries: 64, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: false };

/// How often the sync timeline may move between two looks. A look takes microseconds, a commit a hundred times that.
const MOST_LOOKS: usize = 100;

/// Frames have at most so many bytes around a body.
const FRAME_BYTES: u64 = 450;

/// Pulled conversations watched one by one; who is in more watches the ledger of them all.
const MOST_WATCHED: usize = 256;

impl Messaging {
    /// Reads a cursor of a user.
    pub fn cursor(&self, user: &[u8], text: &[u8]) -> Result<Cursor> {
        names::valid(user)?;
        Cursor::decode(text, self.history, user)
    }

    /// The cursor behind one event of a page, for who takes them one by one.
    pub fn cursor_behind(&self, user: &[u8], delivery: &Delivery) -> Vec<u8> {
        delivery.position.encode(self.history, user)
    }

    /// The cursor behind everything that is there now.
    pub fn tail(&self, user: &[u8]) -> Result<Vec<u8>> {
        let user = names::valid(user)?;
        let position = self.user(&user, |ledger| self.newest(&user, ledger))?;
        Ok(position.encode(self.history, &user))
    }

    fn newest(&self, user: &Bytes, ledger: &Ledger<User>) -> Result<Position> {
        // The sync timeline first: what is behind it but before the frontier is only seen again, never missed.
        let (inbox, _) = self.sync.end(&names::inbox(user))?;
        Ok(Position { inbox, ..self.frontier(&ledger.state)? })
    }

    /// The timelines to watch to know when a user may have something new. Those of a user's own ledger tell when there are others.
    pub fn watched(&self, user: &[u8]) -> Result<Vec<(Store, Vec<u8>)>> {
        let user = names::valid(user)?;
        self.user(&user, |ledger| {
            let mut timelines = vec![
                (self.sync.clone(), names::inbox(&user)),
                (self.state.clone(), names::user_ledger(&user)),
            ];
            let current = |conv: &&Bytes| {
                ledger.state.membership(conv).is_some_and(|membership| membership.periods.is_member())
            };
            let pulled: Vec<&Bytes> =
                ledger.state.pulled().iter().filter(current).take(MOST_WATCHED + 1).collect();
            if pulled.len() > MOST_WATCHED {
                timelines.push((self.pulled.clone(), names::PULLED_LOG.to_vec()));
            } else {
                let own = |conv: &Bytes| (self.messages.clone(), names::conversation(conv));
                timelines.extend(pulled.into_iter().map(own));
            }
            Ok(timelines)
        })
    }

    /// The page behind a cursor.
    pub fn sync(&self, user: &[u8], cursor: &Cursor, limit: Limit) -> Result<SyncPage> {
        let user = names::valid(user)?;
        loop {
            if let Some(page) = self.user(&user, |ledger| self.sync_as(&user, ledger, cursor, limit))? {
                return Ok(page);
            }
        }
    }

    /// The page behind a cursor, for a user of whom the ledger says this; `None` when it has moved on meanwhile.
    pub(super) fn sync_as(
        &self,
        user: &Bytes,
        ledger: &Ledger<User>,
        cursor: &Cursor,
        limit: Limit,
    ) -> Result<Option<SyncPage>> {
        let start = match cursor {
            Cursor::Oldest => Position::default(),
            Cursor::At(position) => position.clone(),
            Cursor::Newest => {
                let cursor = self.newest(user, ledger)?.encode(self.history, user);
                return Ok(Some(SyncPage {
                    verdict: Standing::Ok,
                    cursor,
                    more: false,
                    deliveries: Vec::new(),
                }));
            }
            Cursor::Foreign => return Ok(Some(SyncPage::start_again(Standing::Epoch))),
        };
        let (inbox, frontier) = self.look(user, &ledger.state, &start, limit)?;
        let pulls = !ledger.state.pulled().is_empty();
        // The frontier would pass a conversation that was joined, or began to be pulled, between the two looks.
        if pulls && self.state.end(&names::user_ledger(user))?.0 != ledger.version {
            return Ok(None);
        }
        let ahead = pulls && start.time_ms > frontier.time_ms.saturating_add(1);
        if ahead || inbox.verdict == Verdict::Future {
            return Ok(Some(SyncPage::start_again(Standing::Future)));
        }
        let told = *cursor != Cursor::Oldest;
        let (heads, trimmed) = self.heads(&ledger.state, &start, &frontier)?;
        let merge = Merge {
            messaging: self,
            user,
            limit,
            frontier,
            position: start,
            trimmed: trimmed || inbox.verdict == Verdict::Trimmed,
            inbox_more: inbox.more,
            inbox_next: inbox.next,
            inbox: inbox.entries.into(),
            heads,
            changes: HashMap::new(),
            used_bytes: 0,
            deliveries: Vec::new(),
        };
        merge.run(told).map(Some)
    }

    /// Step 1 of the heading.
    fn look(
        &self,
        user: &Bytes,
        state: &User,
        start: &Position,
        limit: Limit,
    ) -> Result<(strandline::Page, Frontier)> {
        let name = names::inbox(user);
        let entries = limit.entries.saturating_add(1);
        let frames = FRAME_BYTES.saturating_mul(entries as u64);
        let wanted = Limit::entries(entries).body_bytes(limit.body_bytes.saturating_add(frames));
        for _ in 0..MOST_LOOKS {
            let page = self.sync.read_after(&name, start.inbox, wanted)?;
            let frontier = self.frontier(state)?;
            // The batch of the newest line may have an entry for the sync timeline, too.
            self.sync.see_whole_batches();
            if page.more || state.pulled().is_empty() || self.sync.end(&name)?.0 == page.last {
                return Ok((page, frontier));
            }
        }
        Ok((self.sync.read_after(&name, start.inbox, wanted)?, start.clone()))
    }

    /// The first pulled event of each conversation that moved, by time, and whether one was trimmed that this user lacks.
    fn heads(&self, state: &User, start: &Position, frontier: &Frontier) -> Result<(Heads, bool)> {
        let (mut heads, mut trimmed) = (Heads::new(), false);
        for (conv, first) in self.moved(state, start)? {
            let Some(membership) = state.membership(&conv) else { continue };
            let first = first.max(membership.pulls_from.unwrap_or(0));
            let pull = Pull {
                name: names::conversation(&conv),
                conv,
                periods: membership.periods.clone(),
                cursor: first.saturating_sub(1),
                ahead: 1,
                buffer: VecDeque::new(),
                more: true,
            };
            trimmed |= self.put_back(&mut heads, pull, frontier)?;
        }
        Ok((heads, trimmed))
    }

    /// Puts a conversation under the time of its next event, if it has one. Whether events before that were trimmed.
    fn put_back(&self, heads: &mut Heads, mut pull: Pull, frontier: &Frontier) -> Result<bool> {
        let mut trimmed = false;
        while pull.buffer.is_empty() && pull.more {
            // Nothing outside of a membership is for this user.
            let Some(first) = pull.periods.next(pull.cursor + 1) else { break };
            pull.cursor = first - 1;
            let limit = Limit { entries: pull.ahead, ..MOST_AHEAD };
            pull.ahead = (2 * pull.ahead).min(MOST_AHEAD.entries);
            let page = self.messages.read_after(&pull.name, pull.cursor, limit)?;
            trimmed |= page.verdict == Verdict::Trimmed;
            pull.more = page.more;
            pull.cursor = page.next;
            for entry in page.entries {
                let Some(event) = Event::told(&entry.body) else { continue };
                let beyond = entry.sequence > pull.periods.last()
                    || entry.time_ms > frontier.time_ms
                    || (entry.time_ms == frontier.time_ms
                        && entry.sequence > frontier.seen.get(&pull.conv).copied().unwrap_or(0));
                if beyond {
                    pull.more = false;
                    break;
                }
                if event.is_pulled() && pull.periods.contains(entry.sequence) {
                    pull.buffer.push_back((entry, event));
                }
            }
        }
        if let Some((entry, _)) = pull.buffer.front() {
            heads.insert((entry.time_ms, pull.conv.clone()), pull);
        }
        Ok(trimmed)
    }
}

/// A pulled conversation that is being read.
struct Pull {
    conv: Bytes,
    name: Vec<u8>,
    periods: Periods,
    cursor: Sequence,
    /// Entries that the next read takes.
    ahead: usize,
    buffer: VecDeque<(Entry, Event)>,
    more: bool,
}

/// Pulled conversations by the time of their next event.
type Heads = BTreeMap<(TimeMs, Bytes), Pull>;

/// Step 2 and 3 of the heading.
struct Merge<'a> {
    messaging: &'a Messaging,
    user: &'a Bytes,
    limit: Limit,
    frontier: Frontier,
    position: Position,
    trimmed: bool,
    inbox: VecDeque<Entry>,
    inbox_more: bool,
    inbox_next: Sequence,
    heads: Heads,
    /// When each conversation's ledger of changes moved last.
    changes: HashMap<Bytes, TimeMs>,
    used_bytes: u64,
    deliveries: Vec<Delivery>,
}

impl Merge<'_> {
    fn run(mut self, told: bool) -> Result<SyncPage> {
        let more = loop {
            let next_pushed = self.inbox.front().map(|entry| (entry.time_ms, Event::told(&entry.body)));
            let full = match next_pushed {
                Some((_, None)) => {
                    // Not ours: somebody appended to the timeline by itself.
                    let passed = self.inbox.pop_front().map_or(0, |entry| entry.sequence);
                    self.position.inbox = passed;
                    false
                }
                Some((time_ms, Some(event))) => match self.pulled_before(time_ms, &event) {
                    Some(place) => !self.pulled(&place)?,
                    None => !self.pushed(event)?,
                },
                // What is pulled may come behind what is still to be read of the sync timeline.
                None if self.inbox_more => break true,
                None => match self.heads.keys().next().cloned() {
                    Some(place) => !self.pulled(&place)?,
                    None => break false,
                },
            };
            if full {
                break true;
            }
        };
        if !more {
            self.position.inbox = self.inbox_next;
            if self.frontier.time_ms > self.position.time_ms {
                self.position.time_ms = self.frontier.time_ms;
                self.position.seen = std::mem::take(&mut self.frontier.seen);
            }
        }
        Ok(SyncPage {
            verdict: if self.trimmed && told { Standing::Trimmed } else { Standing::Ok },
            cursor: self.position.encode(self.messaging.history, self.user),
            more,
            deliveries: self.deliveries,
        })
    }

    /// The pulled conversation whose event comes before a pushed one: of an earlier time, or of the same and of the conversation itself.
    fn pulled_before(&self, time_ms: TimeMs, pushed: &Event) -> Option<(TimeMs, Bytes)> {
        let earliest = self.heads.keys().next()?;
        if earliest.0 < time_ms {
            return Some(earliest.clone());
        }
        let own = (time_ms, pushed.conv.clone());
        let (entry, _) = self.heads.get(&own)?.buffer.front()?;
        (entry.sequence <= pushed.sequence).then_some(own)
    }

    /// Gives the next pulled event of a conversation; false if it does not fit.
    fn pulled(&mut self, place: &(TimeMs, Bytes)) -> Result<bool> {
        let Some(mut pull) = self.heads.remove(place) else { return Ok(true) };
        let Some((entry, event)) = pull.buffer.pop_front() else { return Ok(true) };
        if !self.fits(&event) {
            return Ok(false);
        }
        self.position.pass(&pull.conv, entry.sequence, entry.time_ms);
        self.give(pull.conv.clone(), Shown::of(entry.time_ms, event));
        self.trimmed |= self.messaging.put_back(&mut self.heads, pull, &self.frontier)?;
        Ok(true)
    }

    /// Gives the next pushed event; false if it does not fit.
    fn pushed(&mut self, event: Event) -> Result<bool> {
        let Some(entry) = self.inbox.front().cloned() else { return Ok(true) };
        let event = self.as_it_is_now(&entry, event)?;
        if !self.fits(&event) {
            return Ok(false);
        }
        self.inbox.pop_front();
        self.position.inbox = entry.sequence;
        self.position.reach(entry.time_ms.min(self.frontier.time_ms));
        let conv = event.conv.clone();
        self.give(conv, Shown::of(entry.time_ms, event));
        Ok(true)
    }

    fn fits(&mut self, event: &Event) -> bool {
        let used_bytes = self.used_bytes + event.body.len() as u64;
        let fits = self.deliveries.is_empty()
            || (self.deliveries.len() < self.limit.entries && used_bytes <= self.limit.body_bytes);
        if fits {
            self.used_bytes = used_bytes;
        }
        fits
    }

    fn give(&mut self, conv: Bytes, shown: Shown) {
        self.deliveries.push(Delivery { conv, shown, position: self.position.clone() });
    }

    /// A copy, unless the original was changed after it was made.
    fn as_it_is_now(&mut self, copy: &Entry, event: Event) -> Result<Event> {
        if !matches!(event.kind, Kind::Message | Kind::Edit) {
            return Ok(event);
        }
        let messaging = self.messaging;
        let changed_ms = if let Some(known) = self.changes.get(&event.conv) {
            *known
        } else {
            let (_, changed_ms) = messaging.state.end(&names::changes_ledger(&event.conv))?;
            self.changes.insert(event.conv.clone(), changed_ms);
            changed_ms
        };
        if changed_ms < copy.time_ms {
            return Ok(event);
        }
        let original = messaging.messages.get(&names::conversation(&event.conv), event.sequence)?;
        if let Some(original) = original.and_then(|entry| Event::decode(&entry.body)) {
            return Ok(original);
        }
        // The original is gone, so it does not tell. Rather nothing is shown than a body that was taken back.
        let message = event.shown_sequence();
        let mut later = messaging.changes_of(&event.conv, message, copy.time_ms)?;
        later.retain(|change| change.sequence > event.sequence);
        if later.iter().any(|change| change.kind == Kind::Recall) {
            let kind = if event.kind == Kind::Message { Kind::Recall } else { event.kind };
            return Ok(Event { kind, body: Bytes::new(), ..event });
        }
        let Some(newest) = later.last().filter(|_| event.kind == Kind::Message) else { return Ok(event) };
        let edit = messaging.messages.get(&names::conversation(&event.conv), newest.sequence)?;
        let edit = edit.and_then(|entry| Event::decode(&entry.body));
        Ok(Event { body: edit.map(|edit| edit.body).unwrap_or_default(), ..event })
    }
}
