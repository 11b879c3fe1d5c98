//! The turns of subscriptions that are behind: each reads one page and writes it as frames.

use std::sync::Arc;

use strandline::{Entry, Page, Sequence, Verdict, Watcher};
use tokio::time::Instant;

use super::inbox::Inbox;
use super::{PAGE, Source, Subscription, SubscriptionKind, Subscriptions};
use crate::key::Key;
use crate::messaging::{Messaging, SyncPage};
use crate::metrics::Metrics;
use crate::protocol::Encoder;
use crate::refusal::{NO_STORE, Refusal};

/// The most turns that are taken together on a thread that may block, if their pages are small.
const TOGETHER: usize = 32;

/// The read of a page for a subscription.
pub struct Turn {
    token: u64,
    /// Whether the page is in memory.
    is_near: bool,
    asked: Asked,
}

/// Turns that are taken one after the other: one whose page is in memory, or several whose pages
/// may not be.
pub struct Turns(Vec<Turn>);

/// The pages that turns have read, and the turns that were not taken because the pages read have
/// enough bytes.
pub struct Taken {
    found: Vec<TurnPage>,
    left: Vec<Turn>,
}

enum Asked {
    Timeline(Key, Sequence),
    User(Inbox, Arc<Messaging>, Arc<Watcher>),
}

/// The page that a turn has read.
struct TurnPage {
    token: u64,
    page: FoundPage,
}

enum FoundPage {
    Timeline(Result<Page, Refusal>),
    User(Inbox, Result<SyncPage, Refusal>),
}

impl Turns {
    /// Whether all pages are in memory.
    pub fn are_near(&self) -> bool {
        self.0.iter().all(|turn| turn.is_near)
    }

    /// Reads the pages.
    pub fn take(self) -> Taken {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut turns = self.0.into_iter();
        while bytes < PAGE.body_bytes
            && let Some(turn) = turns.next()
        {
            let one = turn.read();
            bytes += one.body_bytes();
            found.push(one);
        }
        Taken { found, left: turns.collect() }
    }
}

impl TurnPage {
    fn body_bytes(&self) -> u64 {
        match &self.page {
            FoundPage::Timeline(Ok(page)) => {
                page.entries.iter().map(|entry| entry.body.len() as u64).sum()
            }
            FoundPage::User(_, Ok(page)) => {
                page.deliveries.iter().map(|one| one.shown.body.len() as u64).sum()
            }
            _ => 0,
        }
    }
}

impl Turn {
    /// Reads the page.
    fn read(self) -> TurnPage {
        let page = match self.asked {
            Asked::Timeline(key, cursor) => FoundPage::Timeline(
                key.store.read_after(key.name(), cursor, PAGE).map_err(Refusal::from),
            ),
            Asked::User(mut inbox, messaging, watcher) => {
                // Watched before the read, so that a conversation that is joined meanwhile is not
                // missed.
                let read = inbox
                    .watch(&messaging, &watcher, self.token)
                    .and_then(|()| inbox.read(&messaging));
                FoundPage::User(inbox, read)
            }
        };
        TurnPage { token: self.token, page }
    }
}

impl Subscriptions {
    /// Whether a subscription is behind.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The next turns. Their pages must be written before the next call.
    pub fn next_turns(&mut self) -> Option<Turns> {
        let mut turns = vec![self.next_turn()?];
        while turns.len() < TOGETHER && !turns[0].is_near {
            match self.next_turn() {
                Some(turn) if turn.is_near => {
                    self.put_back(turn);
                    break;
                }
                Some(turn) => turns.push(turn),
                None => break,
            }
        }
        Some(Turns(turns))
    }

    fn put_back(&mut self, Turn { token, asked, .. }: Turn) {
        let Some(one) = self.by_token.get_mut(&token) else { return };
        if let Asked::User(inbox, ..) = asked {
            one.source = Source::User(inbox);
        }
        self.behind.push_front(token);
    }

    fn next_turn(&mut self) -> Option<Turn> {
        loop {
            let token = self.behind.pop_front()?;
            let Some(one) = self.by_token.get_mut(&token) else { continue };
            match std::mem::replace(&mut one.source, Source::Nothing) {
                Source::Nothing => one.queued = false,
                Source::Timeline { key, cursor } => {
                    let is_near = key
                        .store
                        .is_in_memory(key.name(), cursor.saturating_add(1))
                        .unwrap_or(true);
                    one.source = Source::Timeline { key: key.clone(), cursor };
                    return Some(Turn { token, is_near, asked: Asked::Timeline(key, cursor) });
                }
                Source::User(inbox) => {
                    let (Some(messaging), Some(watcher)) = (&self.messaging, &self.watcher) else {
                        continue;
                    };
                    let asked = Asked::User(inbox, Arc::clone(messaging), Arc::clone(watcher));
                    return Some(Turn { token, is_near: false, asked });
                }
            }
        }
    }

    /// Writes the pages that turns have read.
    pub fn write(
        &mut self,
        taken: Taken,
        out: &mut Encoder,
        metrics: &Metrics,
    ) -> Result<(), Refusal> {
        taken.left.into_iter().rev().for_each(|turn| self.put_back(turn));
        taken.found.into_iter().try_for_each(|found| self.write_one(found, out, metrics))
    }

    fn write_one(
        &mut self,
        found: TurnPage,
        out: &mut Encoder,
        metrics: &Metrics,
    ) -> Result<(), Refusal> {
        let TurnPage { token, page } = found;
        let Some(one) = self.by_token.get_mut(&token) else { return Ok(()) };
        let before = out.mark();
        let more = match page {
            FoundPage::Timeline(Err(refusal)) if refusal.word == NO_STORE => {
                self.store_is_gone(token, out);
                return Ok(());
            }
            FoundPage::Timeline(page) => one.write_page(&page?, out, metrics),
            FoundPage::User(mut inbox, page) => {
                let Some(messaging) = &self.messaging else { return Ok(()) };
                let written = page.map(|page| {
                    inbox.write(one.kind, &one.channel, page, (messaging, metrics), out)
                });
                one.source = Source::User(inbox);
                written?
            }
        };
        if let Some(heartbeat) = one.heartbeat.as_mut().filter(|_| out.mark() > before) {
            heartbeat.pushed(Instant::now());
        }
        if more {
            self.behind.push_back(token);
        } else {
            one.queued = false;
        }
        Ok(())
    }

    /// Takes all turns. Returns whether there were any.
    #[cfg(test)]
    pub fn pump(&mut self, out: &mut Encoder, metrics: &Metrics) -> bool {
        let mut moved = false;
        while let Some(turns) = self.next_turns() {
            self.write(turns.take(), out, metrics).expect("reads");
            moved = true;
        }
        moved
    }

    /// The store of a timeline was dropped: a follow ends with a gap that has the verdict EPOCH; a
    /// channel becomes silent.
    fn store_is_gone(&mut self, token: u64, out: &mut Encoder) {
        let Some(one) = self.by_token.get_mut(&token) else { return };
        if one.kind == SubscriptionKind::Follow {
            one.write_gap("EPOCH", 1, 0, out);
            let (kind, channel) = (one.kind, one.channel.clone());
            self.remove(kind, &channel);
            return;
        }
        one.queued = false;
        let source = std::mem::replace(&mut one.source, Source::Nothing);
        if let (Source::Timeline { key, .. }, Some(watcher)) = (source, &self.watcher) {
            // The key was watched, so it belongs to this engine.
            let _ended = watcher.unwatch(&key.store, key.name(), token);
        }
    }
}

impl Subscription {
    /// Writes a page. Returns whether there is more.
    fn write_page(&mut self, page: &Page, out: &mut Encoder, metrics: &Metrics) -> bool {
        let Source::Timeline { cursor, .. } = &mut self.source else { return false };
        *cursor = page.next;
        if self.kind == SubscriptionKind::Follow && page.verdict != Verdict::Ok {
            self.write_gap(verdict_word(page.verdict), page.first, page.last, out);
        }
        for entry in &page.entries {
            self.write_entry(entry, out);
        }
        metrics.pushes.add(page.entries.len() as u64);
        page.more
    }

    fn write_gap(&self, verdict: &str, first: Sequence, last: Sequence, out: &mut Encoder) {
        out.push(5);
        out.bulk("tl.gap");
        out.bulk(&self.channel);
        out.bulk(verdict);
        out.integer(first);
        out.integer(last);
    }

    fn write_entry(&self, entry: &Entry, out: &mut Encoder) {
        let word = match self.kind {
            SubscriptionKind::Follow => {
                out.push(5);
                out.bulk("tl.entry");
                out.bulk(&self.channel);
                out.integer(entry.sequence);
                out.integer(entry.time_ms);
                out.bulk(&entry.body);
                return;
            }
            SubscriptionKind::Message => "message",
            SubscriptionKind::ShardMessage => "smessage",
            SubscriptionKind::UserFollow => return,
        };
        out.push(3);
        out.bulk(word);
        out.bulk(&self.channel);
        let head = format!("{} {}\n", entry.sequence, entry.time_ms);
        out.bulk_of(&[head.as_bytes(), &entry.body]);
    }
}

/// The word of a verdict on the wire.
pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Trimmed => "TRIMMED",
        Verdict::Future => "FUTURE",
    }
}
