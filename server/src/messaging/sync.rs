//! Syncing: all events that a terminal lacks, from its own cursor, pushed and pulled ones in one
//! list (P10, P11).
//!
//! ```text
//!  the user's sync timeline          ── pushed ──▶ ┐
//!                                                  ├─ by time, each conversation ─▶ page, cursor
//!  conversations that moved (pulled) ── pulled ──▶ ┘  in its order
//! ```
//!
//! 1. In one snapshot (`moment`), read a page of the sync timeline and what was pulled up to the
//!    newest line (`pulled`). If the user's ledger has moved, start over: there may be another
//!    conversation to read.
//! 2. Merge by time. At the same time pushed events come first, unless the conversation has a
//!    pulled event of a lower sequence: so a conversation that switched between push and pull keeps
//!    its order. (A mark has the sequence that it marks, and comes after it.)
//! 3. The position passes what is delivered (`merge`). At the end of all events it is the end of
//!    both sources, the same as that of IM.TAIL.
//!
//! Events that damage hides in one of the two are read from the other (`refill`, `copies`), or
//! delivered as damaged or lost.
//!
//! A copy in the sync timeline may be older than an edit or a recall: if the conversation's ledger
//! of changes has advanced since, the copy is shown in its current form (`visible`). An edit or a
//! recall of a message that the user may not see is skipped.
//!
//! The cost depends only on what is new; see `pulled`.

use bytes::Bytes;
use strandline::{Error, Limit, Page, Sequence, Store, Verdict};

use super::cursor::{Cursor, Passed, Position};
use super::ledger::Ledger;
use super::merge::{Given, Merge};
use super::moment::Moment;
use super::page::{Delivery, Standing, SyncPage};
use super::trouble::{Result, Trouble};
use super::user::User;
use super::{Messaging, names};

/// The most bytes that a frame has besides its body.
const FRAME_BYTES: u64 = 450;

/// The most pulled conversations that are watched one by one. For members of more conversations the
/// ledger of pulled events is watched.
const MOST_WATCHED: usize = 256;

impl Messaging {
    /// Parses a cursor of a user.
    pub fn cursor(&self, user: &[u8], text: &[u8]) -> Result<Cursor> {
        names::valid(user)?;
        Cursor::decode(text, self.history, user)
    }

    /// The cursor after one event of a page, for callers that deliver them one by one.
    pub fn cursor_behind(&self, user: &[u8], delivery: &Delivery) -> Vec<u8> {
        delivery.position.encode(self.history, user)
    }

    /// The cursor at the end of all events now.
    pub fn tail(&self, user: &[u8]) -> Result<Vec<u8>> {
        let user = names::valid(user)?;
        let position = self.at_one_moment(&user, |moment, ledger| moment.newest(&user, ledger))?;
        Ok(position.encode(self.history, &user))
    }

    /// The timelines to watch for new events of a user. The user's own ledger is one of them: it
    /// shows when the list changes.
    pub fn watched(&self, user: &[u8]) -> Result<Vec<(Store, Vec<u8>)>> {
        let user = names::valid(user)?;
        self.user(&user, |ledger| {
            let mut timelines = vec![
                (self.sync.clone(), names::inbox(&user)),
                (self.state.clone(), names::user_ledger(&user)),
            ];
            let current = |conv: &&Bytes| {
                ledger
                    .state
                    .membership(conv)
                    .is_some_and(|membership| membership.periods.is_member())
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

    /// The page after a cursor.
    pub fn sync(&self, user: &[u8], cursor: &Cursor, limit: Limit) -> Result<SyncPage> {
        let user = names::valid(user)?;
        self.at_one_moment(&user, |moment, ledger| moment.sync_as(&user, ledger, cursor, limit))
    }

    /// Reads at one moment for which the user's ledger is known: `read` returns `None` if it is
    /// not.
    fn at_one_moment<T>(
        &self,
        user: &Bytes,
        read: impl Fn(&Moment<'_>, &Ledger<User>) -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            match self.user(user, |ledger| read(&self.now(), ledger)) {
                Ok(Some(answer)) => return Ok(answer),
                // The snapshot was revoked because memory was short.
                Ok(None) | Err(Trouble::Engine(Error::SnapshotTooOld)) => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

impl Moment<'_> {
    /// The place behind everything, for a user of whom the ledger says this; `None` when it has
    /// moved on meanwhile.
    fn newest(&self, user: &Bytes, ledger: &Ledger<User>) -> Result<Option<Position>> {
        let (inbox, _) = self.sync.end(names::inbox(user))?;
        let moves = self.end_of_pulled(user, &ledger.state)?;
        if self.has_moved_on(user, ledger)? {
            return Ok(None);
        }
        Ok(Some(Position { inbox, pulled: self.end_of(user, &ledger.state, &moves)? }))
    }

    /// Whether the user is in pulled conversations, and at this moment its ledger is not as it was
    /// read: there may be another conversation.
    fn has_moved_on(&self, user: &Bytes, ledger: &Ledger<User>) -> Result<bool> {
        let pulls = !ledger.state.pulled().is_empty();
        Ok(pulls && self.users.end_in(&self.state, &names::user_ledger(user))?.0 != ledger.version)
    }

    /// The page after a cursor, for a user with this state; `None` if the user's ledger has
    /// advanced meanwhile.
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
                let newest = self.newest(user, ledger)?;
                return Ok(
                    newest.map(|position| SyncPage::end(position.encode(self.history, user)))
                );
            }
            Cursor::Foreign => return Ok(Some(SyncPage::start_again(Standing::Epoch))),
        };
        let state = &ledger.state;
        let inbox = self.pushed_after(user, start.inbox, limit)?;
        let mut moves = self.moves_since(user, state, &start.pulled)?;
        self.advance(state, &start.pulled, &mut moves)?;
        // Otherwise the newest line could pass a conversation that the user joined, or that began
        // to be pulled, after the ledger was read.
        if self.has_moved_on(user, ledger)? {
            return Ok(None);
        }
        let Passed { time_ms, line, .. } = start.pulled;
        // A cursor of version 1 may be one millisecond after the newest time.
        let ahead = time_ms > moves.time_ms.saturating_add(1) || line > moves.line;
        if (ahead && !state.pulled().is_empty()) || inbox.verdict == Verdict::Future {
            return Ok(Some(SyncPage::start_again(Standing::Future)));
        }
        let reports_trim = *cursor != Cursor::Oldest;
        let (heads, trimmed) = self.heads(user, state, time_ms, &moves)?;
        let trimmed = trimmed || inbox.verdict == Verdict::Trimmed;
        // At the end the position also passes expired entries.
        let (inbox_more, inbox_next) =
            (inbox.more, if inbox.more { inbox.next } else { inbox.last });
        let inbox = self.arrivals(user, state, start.inbox, inbox)?;
        let merge = Merge {
            moment: self,
            user,
            state,
            limit,
            moves,
            position: start,
            trimmed,
            inbox,
            inbox_more,
            inbox_next,
            heads,
            out: Given::default(),
        };
        merge.run(reports_trim).map(Some)
    }

    /// A page of the sync timeline, with one entry more than the limit lets through.
    fn pushed_after(&self, user: &Bytes, cursor: Sequence, limit: Limit) -> Result<Page> {
        let entries = limit.entries.saturating_add(1);
        let frames = FRAME_BYTES.saturating_mul(entries as u64);
        let wanted = Limit::entries(entries).body_bytes(limit.body_bytes.saturating_add(frames));
        Ok(self.sync.read_after(names::inbox(user), cursor, wanted.around_damage())?)
    }
}
