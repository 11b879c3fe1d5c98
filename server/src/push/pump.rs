//! Writing frames for subscriptions that are behind, as long as the connection's output has room.

use strandline::{Entry, Limit, Page, Verdict};

use super::{Kind, Subscription, Subscriptions};
use crate::metrics::Metrics;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

/// One turn of one subscription: small enough that many share a connection fairly, large enough that a catch-up is not paid for
/// by the call.
const PAGE_ENTRIES: usize = 256;
const PAGE_BYTES: u64 = 256 * 1024;

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
            if one.turn(out, metrics)? {
                self.behind.push_back(token);
            } else {
                one.queued = false;
            }
        }
        Ok(moved)
    }
}

impl Subscription {
    /// Writes one page; whether there is more.
    fn turn(&mut self, out: &mut Encoder, metrics: &Metrics) -> Result<bool, Refusal> {
        let Some(key) = &self.key else { return Ok(false) };
        let limit = Limit::entries(PAGE_ENTRIES).body_bytes(PAGE_BYTES);
        let page = key.store.read_after(key.name(), self.cursor, limit)?;
        if self.kind == Kind::Follow && page.verdict != Verdict::Ok {
            self.write_gap(&page, out);
        }
        for entry in &page.entries {
            self.write_entry(entry, out);
        }
        metrics.pushes.add(page.entries.len() as u64);
        self.cursor = page.next;
        Ok(page.more)
    }

    fn write_gap(&self, page: &Page, out: &mut Encoder) {
        out.push(5);
        out.bulk("tl.gap");
        out.bulk(&self.channel);
        out.bulk(verdict_word(page.verdict));
        out.integer(page.first);
        out.integer(page.last);
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
