//! Heartbeats of follows: a frame with the current position when nothing was pushed for a while. It
//! keeps an idle connection open through read timeouts of clients and proxies, and a client that
//! missed its last push can see that from the position.
//!
//! The order of heartbeats is updated lazily: a push only moves the due time of its own follow, and
//! the order is corrected when the old time is reached.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Source, Subscription, Subscriptions};
use crate::protocol::Encoder;

/// The heartbeat of one follow.
pub struct Heartbeat {
    every: Duration,
    /// When something was last pushed.
    pushed: Instant,
}

impl Heartbeat {
    /// A heartbeat that is due after `every` without a push.
    pub fn new(every: Duration) -> Heartbeat {
        Heartbeat { every, pushed: Instant::now() }
    }

    /// Notes a push.
    pub fn pushed(&mut self, now: Instant) {
        self.pushed = now;
    }

    /// When a frame is due.
    pub fn due(&self) -> Instant {
        self.pushed + self.every
    }
}

/// The times at which subscriptions are checked. A subscription may be due later by then, or be
/// gone.
#[derive(Default)]
pub struct Heartbeats(BTreeSet<(Instant, u64)>);

impl Heartbeats {
    /// Schedules a check.
    pub fn set(&mut self, due: Instant, token: u64) {
        self.0.insert((due, token));
    }

    /// Removes the next subscription whose check is due.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let (due, _) = self.0.first()?;
        if *due <= now { self.0.pop_first().map(|(_, token)| token) } else { None }
    }
}

impl Subscriptions {
    /// When [`Subscriptions::beat`] must be called next.
    pub fn next_heartbeat(&self) -> Option<Instant> {
        self.heartbeats.0.first().map(|(due, _)| *due)
    }

    /// Writes the frames that are due. Returns whether there were any.
    pub fn beat(&mut self, now: Instant, out: &mut Encoder) -> bool {
        let mut written = false;
        while let Some(token) = self.heartbeats.take(now) {
            let Some(one) = self.by_token.get_mut(&token) else { continue };
            // A subscription that is behind gets its entries first; they include the position.
            let is_due = !one.queued
                && one.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.due() <= now);
            if is_due {
                one.write_position(out);
                written = true;
            }
            let Some(heartbeat) = &mut one.heartbeat else { continue };
            if is_due || one.queued {
                heartbeat.pushed(now);
            }
            self.heartbeats.set(heartbeat.due(), token);
        }
        written
    }
}

impl Subscription {
    fn write_position(&self, out: &mut Encoder) {
        match &self.source {
            Source::Nothing => {}
            Source::Timeline { cursor, .. } => {
                out.push(3);
                out.bulk("tl.cursor");
                out.bulk(&self.channel);
                out.integer(*cursor);
            }
            Source::User(inbox) => {
                out.push(3);
                out.bulk("im.cursor");
                out.bulk(&self.channel);
                out.bulk(inbox.cursor());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use strandline::clock::ManualClock;
    use strandline::vfs::Dir;
    use strandline::vfs::simulated::SimulatedDisk;
    use strandline::{Engine, World};

    use super::*;
    use crate::config::Config;
    use crate::key::Key;
    use crate::metrics::Metrics;
    use crate::protocol::Protocol;

    #[test]
    fn a_frame_comes_when_nothing_was_pushed_for_that_long_and_no_earlier() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let world = World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock };
        let engine = Engine::open_in(world, Config::default().engine_options()).expect("opens");
        let store = engine.store("messages").expect("it is there");
        let mut subscriptions = Subscriptions::new(Arc::default(), None);
        let key = Key::find(&engine, &"messages:t".into()).expect("a key");
        let every = Duration::from_secs(5);
        subscriptions.follow(&engine, key, 0, Some(every)).expect("its own store");
        let mut out = Encoder::speaking(Protocol::Resp3);
        let metrics = Metrics::default();
        let pump = |subscriptions: &mut Subscriptions, out: &mut Encoder| {
            subscriptions.collect();
            subscriptions.pump(out, &metrics)
        };
        pump(&mut subscriptions, &mut out);
        let due = subscriptions.next_heartbeat().expect("it has one");
        assert!(!subscriptions.beat(due - Duration::from_millis(1), &mut out) && out.is_empty());
        assert!(subscriptions.beat(due, &mut out));
        let frame = ">3\r\n$9\r\ntl.cursor\r\n$10\r\nmessages:t\r\n:0\r\n";
        assert_eq!(out.waiting(), frame.as_bytes());
        assert_eq!(subscriptions.next_heartbeat(), Some(due + every));
        store.append(b"t", b"x").expect("appends");
        // The wake-up may come later than the reply: subscriptions that are behind are read in any
        // case.
        while !pump(&mut subscriptions, &mut out) {
            std::hint::spin_loop();
        }
        out.take(out.len());
        let one = subscriptions.by_token.values().next().expect("it is there");
        assert!(
            one.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.due() < due + every),
            "it counts from the push"
        );
        assert!(subscriptions.beat(due + 2 * every, &mut out));
        assert!(out.waiting().ends_with(b":1\r\n"), "the position moved");
        engine.close().expect("closes");
    }
}
