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
//! What damage hides in one of the two is read from the other (`refill`, `copies`), or given as damaged or lost.
//!
//! A copy in the sync timeline may be older than an edit or a recall: if the conversation's ledger of changes has moved since, it is
//! shown as it is now (`visible`). An edit or a recall of a message that the user may not see is passed over.
//!
//! The cost is that of what is new; see `pulled`.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use strandline::{Limit, Sequence, Store, TimeMs, Verdict};

use super::copies::Found;
use super::cursor::{Cursor, Position};
use super::event::{Event, Kind, When};
use super::heads::Heads;
use super::ledger::Ledger;
use super::page::{Delivery, Shown, Standing, SyncPage};
use super::pulled::Frontier;
use super::refill::{Arrival, Content};
use super::trouble::Result;
use super::user::User;
use super::{Messaging, names};

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
        let (heads, trimmed) = self.heads(user, &ledger.state, &start, &frontier)?;
        let trimmed = trimmed || inbox.verdict == Verdict::Trimmed;
        let (inbox_more, inbox_next) = (inbox.more, inbox.next);
        let arrivals = self.arrivals(user, &ledger.state, start.inbox, inbox)?;
        let merge = Merge {
            messaging: self,
            user,
            state: &ledger.state,
            limit,
            frontier,
            position: start,
            trimmed,
            inbox_more,
            inbox_next,
            inbox: arrivals,
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
        let wanted = wanted.around_damage();
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
}

/// Step 2 and 3 of the heading.
struct Merge<'a> {
    messaging: &'a Messaging,
    user: &'a Bytes,
    state: &'a User,
    limit: Limit,
    frontier: Frontier,
    position: Position,
    trimmed: bool,
    inbox: VecDeque<Arrival>,
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
            let full = match self.next_pushed()? {
                // Not ours: somebody appended to the timeline by itself, or the user may not see what it is about.
                Some(Arrival { place, content: Content::Foreign, .. }) => {
                    self.inbox.pop_front();
                    self.position.inbox = place;
                    false
                }
                Some(arrival) => match self.pulled_before(&arrival) {
                    Some(place) => !self.pulled(&place)?,
                    None => !self.pushed(arrival)?,
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

    /// The first of the sync timeline that was not given yet. What is lost there is read where its original is.
    fn next_pushed(&self) -> Result<Option<Arrival>> {
        let Some(mut arrival) = self.inbox.front().cloned() else { return Ok(None) };
        if let Content::Original(conv, sequence) = &arrival.content {
            arrival.content = match self.messaging.event_at(conv, self.user, *sequence)? {
                Found::Event(_, event) => Content::Copy(event),
                Found::Lost(..) => Content::Damaged(conv.clone(), *sequence),
                Found::Nothing => Content::Lost,
            };
        }
        if let Content::Copy(copy) = &arrival.content
            && copy.is_change()
            && self.state.membership(&copy.conv).is_some_and(|membership| !membership.may_see(copy.about))
        {
            arrival.content = Content::Foreign;
        }
        Ok(Some(arrival))
    }

    /// The pulled conversation whose event comes before a pushed one: of an earlier time, or of the same and of the conversation itself.
    fn pulled_before(&self, pushed: &Arrival) -> Option<(TimeMs, Bytes)> {
        let earliest = self.heads.keys().next()?;
        if earliest.0 < pushed.time_ms {
            return Some(earliest.clone());
        }
        let (conv, sequence) = pushed.event()?;
        let own = (pushed.time_ms, conv.clone());
        let seen = self.heads.get(&own)?.buffer.front()?;
        (seen.sequence <= sequence).then_some(own)
    }

    /// Gives the next pulled event of a conversation; false if it does not fit.
    fn pulled(&mut self, place: &(TimeMs, Bytes)) -> Result<bool> {
        let Some(mut pull) = self.heads.remove(place) else { return Ok(true) };
        let Some(seen) = pull.buffer.pop_front() else { return Ok(true) };
        let (sequence, time_ms) = (seen.sequence, seen.time_ms);
        let shown = seen.shown();
        if !self.fits(&shown) {
            return Ok(false);
        }
        self.position.pass(&pull.conv, sequence, time_ms);
        self.give(pull.conv.clone(), shown);
        self.trimmed |= self.messaging.put_back(self.user, &mut self.heads, pull, &self.frontier)?;
        Ok(true)
    }

    /// Gives the next pushed event; false if it does not fit.
    fn pushed(&mut self, arrival: Arrival) -> Result<bool> {
        let Arrival { place, time_ms, content } = arrival;
        let (conv, shown) = match content {
            Content::Copy(copy) => {
                let (conv, sequence) = (copy.conv.clone(), copy.sequence);
                let shown = match self.as_it_is_now(copy, time_ms)? {
                    (Some(event), edited) => Shown::of(time_ms, event, edited),
                    (None, _) => Shown::damaged(sequence, time_ms),
                };
                (conv, shown)
            }
            Content::Damaged(conv, sequence) => (conv, Shown::damaged(sequence, time_ms)),
            Content::Original(..) | Content::Foreign | Content::Lost => (Bytes::new(), Shown::lost()),
        };
        if !self.fits(&shown) {
            return Ok(false);
        }
        self.inbox.pop_front();
        self.position.inbox = place;
        self.position.reach(time_ms.min(self.frontier.time_ms));
        self.give(conv, shown);
        Ok(true)
    }

    fn fits(&mut self, shown: &Shown) -> bool {
        let used_bytes = self.used_bytes + shown.body.len() as u64;
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

    /// A copy as it is now, and how often its message was edited; `None` when it cannot be known what it became.
    fn as_it_is_now(&mut self, copy: Event, copied_ms: TimeMs) -> Result<(Option<Event>, u64)> {
        if !matches!(copy.kind, Kind::Message | Kind::Edit) {
            return Ok((Some(copy), 0));
        }
        let messaging = self.messaging;
        let changed_ms = if let Some(known) = self.changes.get(&copy.conv) {
            *known
        } else {
            let (_, changed_ms) = messaging.state.end(&names::changes_ledger(&copy.conv))?;
            self.changes.insert(copy.conv.clone(), changed_ms);
            changed_ms
        };
        if changed_ms < copied_ms {
            return Ok((Some(copy), 0));
        }
        let membership = self.state.membership(&copy.conv);
        messaging.copy_shown_to(self.user, membership, copy, When::at(copied_ms))
    }
}
