//! W1 and W2: appends by Zipf over 100 k timelines, logged and synced.
//!
//! W1 compares calls that return when the entry is logged (the peers) with a queue that answers
//! later (Strandline): hence two lines for Strandline, one with a window in flight and one that
//! waits for each answer. W2 keeps the number of outstanding appends equal. A peer whose calls
//! block gets one thread per writer up to 64; above that each thread's call carries several
//! appends, since more threads only slow the peer down. Because a caller could gather what is
//! outstanding into one batch, each engine also has a line in which one caller does that, with one
//! answer for all.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::written_per_work;
use crate::disk::Written;
use crate::drive::{self, Feed, Pace};
use crate::peers::{Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Append, Bodies, appends};

/// More threads than this make every peer slower.
const MOST_THREADS: usize = 64;

/// Appends of W1 at scale 1.
pub const APPENDS: usize = 2_000_000;

/// W1, one table for each size of a batch.
pub fn w1(settings: &Settings) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, settings.count(APPENDS, 1_000), 0, 1);
    let longest = Duration::from_secs_f64((20.0 * settings.scale).max(1.0));
    [("one per call", 1, 1_024), ("batches of 100", 100, 16)]
        .map(|(name, batch, window)| LoggedAppends { all: &all, name, batch, window, longest })
        .iter()
        .map(|workload| alternate(settings, workload))
        .collect()
}

/// W1 with one size of a batch.
struct LoggedAppends<'d> {
    all: &'d [Append<'d>],
    name: &'static str,
    batch: usize,
    /// Strandline's calls in flight.
    window: usize,
    /// The time after which the rate of a caller that waits is known.
    longest: Duration,
}

impl Workload for LoggedAppends<'_> {
    fn title(&self) -> String {
        format!("W1 append, {}, logged", self.name)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::compared("appends/s"),
            Column::compared("call bytes per append"),
            Column::compared("device bytes per append"),
        ]
    }

    fn contestants(&self) -> Vec<Contestant> {
        let batch = self.batch;
        let in_flight = Contestant::new(Kind::Strandline, format!("{} in flight", self.window));
        let mut contestants = vec![Contestant { window: self.window, batch, ..in_flight }];
        for kind in Kind::built() {
            contestants.push(Contestant { batch, ..Contestant::new(kind, "waits for each") });
        }
        contestants
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, dir: &Path) -> Result<Vec<f64>> {
        // A caller that waits for a cross-thread answer each time may be slow.
        let pace = Pace {
            stop_after: (contestant.window == 1).then_some(self.longest),
            latencies: false,
            ..Pace::new(contestant.window, Durability::Logged)
        };
        let before = Written::now(dir)?;
        let feed: Feed<'_> = Box::new(self.all.chunks(contestant.batch).map(Work::Appends));
        let outcome = drive::run(peer, vec![feed], pace)?;
        let [calls, device] = written_per_work(peer, dir, before, &outcome)?
            .map(|bytes| bytes / contestant.batch as f64);
        Ok(vec![outcome.timeline_writes_per_second(), calls, device])
    }
}

/// W2, one table for each number of outstanding appends.
pub fn w2(settings: &Settings, outstanding: &[usize]) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    outstanding
        .iter()
        .map(|&count| alternate(settings, &DurableAppends::new(settings, &bodies, count)))
        .collect()
}

/// W2 with one number of outstanding appends.
struct DurableAppends<'d> {
    outstanding: usize,
    time: Duration,
    /// Those of a single caller.
    alone: Vec<Vec<Append<'d>>>,
    /// Those of the threads of a peer, on disjoint timelines.
    apart: Vec<Vec<Append<'d>>>,
}

impl<'d> DurableAppends<'d> {
    fn new(settings: &Settings, bodies: &'d Bodies, outstanding: usize) -> DurableAppends<'d> {
        // Long enough that no contestant reaches the end and starts again within a second.
        let of = |writers: usize| {
            let writer = |writer| appends(bodies, 400_000 / writers, writer, writers as u32);
            (0..writers as u32).map(writer).collect()
        };
        DurableAppends {
            outstanding,
            time: Duration::from_secs_f64((5.0 * settings.scale).max(0.5)),
            alone: of(1),
            apart: of(outstanding.min(MOST_THREADS)),
        }
    }
}

impl Workload for DurableAppends<'_> {
    fn title(&self) -> String {
        format!("W2 durable append, {} outstanding, fdatasync", self.outstanding)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::compared("appends/s"),
            Column::plain("p50 µs"),
            Column::plain("p99 µs"),
            Column::plain("call bytes per append"),
            Column::plain("device bytes per append"),
        ]
    }

    fn contestants(&self) -> Vec<Contestant> {
        if self.outstanding == 1 {
            let alone = |kind| Contestant::new(kind, "one writer");
            return Kind::built().into_iter().map(alone).collect();
        }
        let threads = self.apart.len();
        let batch = self.outstanding.div_ceil(threads);
        let by_threads = match batch {
            1 => format!("{threads} threads"),
            batch => format!("{threads} threads × {batch} a call"),
        };
        let tickets = Contestant::new(Kind::Strandline, "one thread, tickets");
        let mut contestants = vec![Contestant { window: self.outstanding, ..tickets }];
        for kind in Kind::built() {
            let apart = Contestant::new(kind, by_threads.as_str());
            contestants.push(Contestant { threads, batch, ..apart });
            let gathered = Contestant::new(kind, "one caller that gathers a batch");
            contestants.push(Contestant { batch: self.outstanding, ..gathered });
        }
        contestants
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, dir: &Path) -> Result<Vec<f64>> {
        let pace = Pace {
            together: true,
            stop_after: Some(self.time),
            ..Pace::new(contestant.window, Durability::Synced)
        };
        let before = Written::now(dir)?;
        let writers = if contestant.threads == 1 { &self.alone } else { &self.apart };
        let batch = contestant.batch;
        let feeds = writers
            .iter()
            .map(|own| Box::new(own.chunks_exact(batch).cycle().map(Work::Appends)) as Feed<'_>)
            .collect();
        let outcome = drive::run(peer, feeds, pace)?;
        let [calls, device] =
            written_per_work(peer, dir, before, &outcome)?.map(|bytes| bytes / batch as f64);
        let rate = outcome.timeline_writes_per_second();
        Ok(vec![rate, outcome.latency_us(0.5), outcome.latency_us(0.99), calls, device])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contestant_of_w2_keeps_as_many_outstanding() {
        let bodies = Bodies::new(1);
        let dir = std::path::PathBuf::new();
        let settings = Settings { peers: Kind::built(), rounds: 1, scale: 1.0, dir, charts: None };
        for outstanding in [1, 16, 256] {
            let workload = DurableAppends::new(&settings, &bodies, outstanding);
            for contestant in workload.contestants() {
                let kept = contestant.threads * contestant.window * contestant.batch;
                assert_eq!(kept, outstanding, "{contestant:?}");
            }
        }
    }
}
