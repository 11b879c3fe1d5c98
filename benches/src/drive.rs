//! Runs feeds of work against a peer, one thread per feed, each with a fixed amount of work in
//! flight; and reads, one after the other.
//!
//! With a window of one this is a caller that waits for each acknowledgement, which is all that a
//! blocking peer supports. With a larger window it is an event loop: it fills the window, waits for
//! the oldest, takes every other answer that has arrived, and fills the window again. A latency
//! lasts from before the submission until the driver has the answer, so an answer that waits for
//! the driver counts as late.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use crate::peers::{Durability, Found, Peer, Pending, Work};

/// Work in its order.
pub type Feed<'w> = Box<dyn Iterator<Item = Work<'w>> + Send + 'w>;

/// How a feed is driven.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The amount of work in flight.
    pub window: usize,
    /// Whether the work that refills the window is submitted in one call, as a server does with the
    /// requests that its sockets received.
    pub together: bool,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// When to stop taking work; `None`: when the feed ends.
    pub stop_after: Option<Duration>,
    /// Whether to read the clock twice for each piece of work.
    pub latencies: bool,
}

impl Pace {
    /// So many calls in flight, each submitted on its own, with latencies, until the feed ends.
    pub fn new(window: usize, durability: Durability) -> Pace {
        Pace { window, together: false, durability, stop_after: None, latencies: true }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Pieces of work that were acknowledged.
    pub works: u64,
    /// Entries that they added.
    pub timeline_writes: u64,
    /// From the first submission to the last acknowledgement.
    pub elapsed: Duration,
    /// Nanoseconds to acknowledgement.
    pub latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> Outcome {
        Outcome {
            works: 0,
            timeline_writes: 0,
            elapsed: Duration::ZERO,
            latency: latency_histogram(),
        }
    }

    /// Pieces of work per second.
    pub fn works_per_second(&self) -> f64 {
        self.works as f64 / self.elapsed.as_secs_f64()
    }

    /// Entries per second.
    pub fn timeline_writes_per_second(&self) -> f64 {
        self.timeline_writes as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latencies, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Nanoseconds up to a minute, three digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .expect("constant bounds that the crate accepts")
}

/// Drives every feed to its end, or until it is time to stop.
pub fn run(peer: &dyn Peer, feeds: Vec<Feed<'_>>, pace: Pace) -> Result<Outcome> {
    let start_line = Barrier::new(feeds.len());
    let parts: Vec<Result<Outcome>> = thread::scope(|scope| {
        let threads: Vec<_> = feeds
            .into_iter()
            .map(|feed| {
                let start_line = &start_line;
                scope.spawn(move || {
                    start_line.wait();
                    run_feed(peer, feed, pace)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a writer panicked"))))
            .collect()
    });
    let mut sum = Outcome::new();
    for part in parts {
        let part = part?;
        sum.works += part.works;
        sum.timeline_writes += part.timeline_writes;
        sum.elapsed = sum.elapsed.max(part.elapsed);
        sum.latency.add(&part.latency)?;
    }
    Ok(sum)
}

/// Reads the newest `count` entries of each of these timelines in turn. The pieces of work are the
/// reads.
pub fn read_latest(peer: &dyn Peer, timelines: &[u32], count: usize) -> Result<Outcome> {
    read_each(timelines, true, |&timeline| peer.latest(timeline, count))
}

/// Does each of these reads in turn. The pieces of work are the reads. Without `latencies` the
/// clock is not read between them: it takes a good part of the time of a read that finds nothing.
pub fn read_each<R>(
    reads: &[R],
    latencies: bool,
    read: impl Fn(&R) -> Result<Found>,
) -> Result<Outcome> {
    let mut outcome = Outcome::new();
    let start = Instant::now();
    for one in reads {
        let since = latencies.then(Instant::now);
        black_box(read(one)?);
        record(&mut outcome, since, 0);
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// Work in flight.
struct Flying {
    since: Option<Instant>,
    timeline_writes: u64,
    pending: Pending,
}

fn run_feed(peer: &dyn Peer, mut feed: Feed<'_>, pace: Pace) -> Result<Outcome> {
    let mut outcome = Outcome::new();
    let mut flying: VecDeque<Flying> = VecDeque::with_capacity(pace.window);
    let start = Instant::now();
    loop {
        let goes_on = pace.stop_after.is_none_or(|limit| start.elapsed() < limit);
        if pace.window == 1 && !pace.together {
            let Some(work) = feed.next().filter(|_| goes_on) else { break };
            let since = pace.latencies.then(Instant::now);
            peer.commit(work, pace.durability)?;
            record(&mut outcome, since, work.timeline_writes());
            continue;
        }
        if goes_on {
            fill(peer, &mut feed, pace, &mut flying)?;
        }
        let Some(oldest) = flying.pop_front() else { break };
        oldest.pending.wait()?;
        record(&mut outcome, oldest.since, oldest.timeline_writes);
        while let Some(next) = flying.front_mut() {
            if !next.pending.is_done()? {
                break;
            }
            record(&mut outcome, next.since, next.timeline_writes);
            flying.pop_front();
        }
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

fn fill(
    peer: &dyn Peer,
    feed: &mut Feed<'_>,
    pace: Pace,
    flying: &mut VecDeque<Flying>,
) -> Result<()> {
    let room = pace.window - flying.len();
    if pace.together {
        let works: Vec<Work<'_>> = feed.take(room).collect();
        let since = pace.latencies.then(Instant::now);
        let mut taken = Vec::with_capacity(works.len());
        peer.submit_all(&works, pace.durability, &mut taken)?;
        flying.extend(works.iter().zip(taken).map(|(work, pending)| Flying {
            since,
            timeline_writes: work.timeline_writes(),
            pending,
        }));
    } else {
        for work in feed.take(room) {
            let since = pace.latencies.then(Instant::now);
            let pending = peer.submit(work, pace.durability)?;
            flying.push_back(Flying { since, timeline_writes: work.timeline_writes(), pending });
        }
    }
    Ok(())
}

fn record(outcome: &mut Outcome, since: Option<Instant>, timeline_writes: u64) {
    outcome.works += 1;
    outcome.timeline_writes += timeline_writes;
    if let Some(since) = since {
        outcome.latency.saturating_record(since.elapsed().as_nanos() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Append;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counter {
        taken: AtomicU64,
        calls: AtomicU64,
        reads: AtomicU64,
    }

    impl Peer for Counter {
        fn submit(&self, work: Work<'_>, _: Durability) -> Result<Pending> {
            self.taken.fetch_add(work.timeline_writes(), Ordering::SeqCst);
            Ok(Pending::Done)
        }

        fn submit_all(
            &self,
            works: &[Work<'_>],
            how: Durability,
            pending: &mut Vec<Pending>,
        ) -> Result<()> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            works.iter().try_for_each(|&work| {
                pending.push(self.submit(work, how)?);
                Ok(())
            })
        }

        fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
            self.reads.fetch_add(u64::from(timeline) * count as u64, Ordering::SeqCst);
            Ok(Found::default())
        }

        fn after(&self, _: u32, _: u64, _: usize) -> Result<Found> {
            Ok(Found::default())
        }

        fn get(&self, _: u32, _: u64) -> Result<Found> {
            Ok(Found::default())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }

        fn compact(&self) -> Result<()> {
            Ok(())
        }
    }

    fn pace(window: usize, together: bool) -> Pace {
        Pace { together, ..Pace::new(window, Durability::Logged) }
    }

    #[test]
    fn every_piece_of_every_feed_is_driven_once() {
        let appends = [Append { timeline: 1, body: b"x" }; 70];
        let peer = Counter::default();
        let feeds: Vec<Feed<'_>> =
            (0..3).map(|_| Box::new(appends.chunks(7).map(Work::Appends)) as Feed<'_>).collect();
        let outcome = run(&peer, feeds, pace(4, false)).expect("a run");
        assert_eq!((outcome.works, outcome.timeline_writes), (30, 210));
        assert_eq!(peer.taken.load(Ordering::SeqCst), 210);
        assert_eq!(outcome.latency.len(), 30);
    }

    #[test]
    fn what_fills_the_window_goes_in_one_call() {
        let appends = [Append { timeline: 1, body: b"x" }; 12];
        let peer = Counter::default();
        let feed: Feed<'_> = Box::new(appends.chunks(1).map(Work::Appends));
        run(&peer, vec![feed], pace(4, true)).expect("a run");
        // Three full windows, and the call that finds the end of the feed.
        assert_eq!(peer.calls.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn each_timeline_is_read_once() {
        let peer = Counter::default();
        let outcome = read_latest(&peer, &[1, 20, 300], 10).expect("reads");
        assert_eq!(peer.reads.load(Ordering::SeqCst), 3210);
        assert_eq!((outcome.works, outcome.latency.len()), (3, 3));
    }
}
