//! Writing frames for subscriptions that are behind, as long as the connection's output has room.

use strandline::{Entry, Limit, Sequence, Verdict};
use tokio::time::Instant;

use super::{Kind, Source, Subscription, Subscriptions};
use crate::metrics::Metrics;
use crate::protocol::Encoder;
use crate::refusal::{NO_STORE, Refusal};

/// One turn of one subscription: small enough that many share a connection fairly, large enough that a catch-up is not paid for
/// by the call.
pub(super) const PAGE: Limit =
    Limit { entries: 256, body_bytes: 256 * 1024, first_always: true, around_damage: false };

impl Subscriptions {
    /// Whether [`Subscriptions::pump`] would write something.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Writes frames until nobody is behind or the output has `high_water` bytes. Whether any turn was taken.
    pub fn pump(&mut self, out: &mut Encoder, high_water: usize, metrics: &Metrics) -> Result<bool, Refusal> {
        let mut moved = false;
        while out.len() < high_water {
            let Some(token) = self.behind.pop_front() else { break };
            moved = true;
            let Some(one) = self.by_token.get_mut(&token) else { continue };
            let before = out.mark();
            let more = match &mut one.source {
                Source::User(inbox) => {
                    let (Some(messaging), Some(watcher)) = (&self.messaging, &self.watcher) else { continue };
                    // Before the read, so that a conversation that is joined meanwhile is not missed.
                    inbox.watch(messaging, watcher, token)?;
                    inbox.turn(one.kind, &one.channel, messaging, out, metrics)?
                }
                _ => match one.turn(out, metrics) {
                    Err(refusal) if refusal.word == NO_STORE => {
                        self.store_is_gone(token, out);
                        continue;
                    }
                    turned => turned?,
                },
            };
            if let Some(heartbeat) = one.heartbeat.as_mut().filter(|_| out.mark() > before) {
                heartbeat.pushed(Instant::now());
            }
            if more {
                self.behind.push_back(token);
            } else {
                one.queued = false;
            }
        }
        Ok(moved)
    }

    /// The store of a timeline was dropped: a follow ends, with a gap that says so; a channel falls silent.
    fn store_is_gone(&mut self, token: u64, out: &mut Encoder) {
        let Some(one) = self.by_token.get_mut(&token) else { return };
        if one.kind == Kind::Follow {
            one.write_gap("EPOCH", 1, 0, out);
            let (kind, channel) = (one.kind, one.channel.clone());
            self.remove(kind, &channel);
            return;
        }
        one.queued = false;
        let source = std::mem::replace(&mut one.source, Source::Nothing);
        if let (Source::Timeline { key, .. }, Some(watcher)) = (source, &self.watcher) {
            // It was watched: it is of this engine.
            let _ended = watcher.unwatch(&key.store, key.name(), token);
        }
    }
}

impl Subscription {
    /// Writes one page; whether there is more.
    fn turn(&mut self, out: &mut Encoder, metrics: &Metrics) -> Result<bool, Refusal> {
        let Source::Timeline { key, cursor } = &mut self.source else { return Ok(false) };
        let page = key.store.read_after(key.name(), *cursor, PAGE)?;
        *cursor = page.next;
        if self.kind == Kind::Follow && page.verdict != Verdict::Ok {
            self.write_gap(verdict_word(page.verdict), page.first, page.last, out);
        }
        for entry in &page.entries {
            self.write_entry(entry, out);
        }
        metrics.pushes.add(page.entries.len() as u64);
        Ok(page.more)
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
            Kind::Follow => {
                out.push(5);
                out.bulk("tl.entry");
                out.bulk(&self.channel);
                out.integer(entry.sequence);
                out.integer(entry.time_ms);
                out.bulk(&entry.body);
                return;
            }
            Kind::Message => "message",
            Kind::ShardMessage => "smessage",
            Kind::UserFollow => return,
        };
        out.push(3);
        out.bulk(word);
        out.bulk(&self.channel);
        let head = format!("{} {}\n", entry.sequence, entry.time_ms);
        out.bulk_of(&[head.as_bytes(), &entry.body]);
    }
}

/// The verdict as the wire names it.
pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Trimmed => "TRIMMED",
        Verdict::Future => "FUTURE",
    }
}
