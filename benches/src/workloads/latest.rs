//! W4: the newest 50 entries of a timeline, after W1, flushed and compacted, warm.
//!
//! Only timelines that have 50 entries are read, each equally often, so that every read returns 50.
//! The loaded data fits into memory in every scale up to 1; reads of larger data are another
//! workload.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::append::APPENDS;
use crate::drive::{self, Feed, Pace, latency_histogram};
use crate::peers::{Copies, Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, alternate};
use crate::workload::{Append, Bodies, Random, TIMELINES, appends};

const COUNT: usize = 50;

/// Timed reads at scale 1.
const READS: usize = 200_000;

/// W4's first table.
pub fn w4(settings: &Settings) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, settings.count(APPENDS, 20_000), 0, 1);
    let long = timelines_with(&all, COUNT);
    ensure!(!long.is_empty(), "no timeline has {COUNT} entries at this scale");
    let mut random = Random::new(4);
    let picks: Vec<u32> = (0..settings.count(READS, 2_000))
        .map(|_| long[random.below(long.len() as u32) as usize])
        .collect();
    let contestants: Vec<Contestant<'_>> = [Kind::Strandline, Kind::RaftEngine, Kind::Fjall]
        .into_iter()
        .map(|kind| {
            let (all, picks) = (&all, &picks);
            let measure =
                Box::new(move |peer: &dyn Peer, _: &Path| measure(peer, kind, all, picks));
            Contestant { kind, how: "warm".to_owned(), copies: Copies::Inline, measure }
        })
        .collect();
    let columns =
        vec![Column::compared("p50 µs"), Column::plain("p99 µs"), Column::plain("reads/s")];
    let title = format!("W4 latest {COUNT}, {} timelines of {} appends", long.len(), all.len());
    Ok(vec![alternate(settings, &title, columns, &contestants)?])
}

fn timelines_with(all: &[Append<'_>], least: usize) -> Vec<u32> {
    let mut counts = vec![0_usize; TIMELINES as usize];
    for append in all {
        counts[append.timeline as usize] += 1;
    }
    (0..TIMELINES).filter(|&timeline| counts[timeline as usize] >= least).collect()
}

fn measure(peer: &dyn Peer, kind: Kind, all: &[Append<'_>], picks: &[u32]) -> Result<Vec<f64>> {
    let pace = Pace {
        window: if kind == Kind::Strandline { 1_024 } else { 1 },
        together: false,
        durability: Durability::Logged,
        stop_after: None,
        latencies: false,
    };
    let feed: Feed<'_> = Box::new(all.chunks(1).map(Work::Appends));
    drive::run(peer, vec![feed], pace)?;
    peer.flush()?;
    peer.compact()?;
    for &timeline in picks {
        let found = peer.latest(timeline, COUNT)?;
        ensure!(found.entries == COUNT, "{} of {COUNT} entries of {timeline}", found.entries);
    }
    let mut latency = latency_histogram();
    let start = Instant::now();
    for &timeline in picks {
        let since = Instant::now();
        black_box(peer.latest(timeline, COUNT)?);
        latency.saturating_record(since.elapsed().as_nanos() as u64);
    }
    let rate = picks.len() as f64 / start.elapsed().as_secs_f64();
    let microseconds = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(vec![microseconds(0.5), microseconds(0.99), rate])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_timelines_are_asked() {
        let append = |timeline| Append { timeline, body: b"" };
        let all: Vec<_> = [7, 9, 7, 8, 7, 9].into_iter().map(append).collect();
        assert_eq!(timelines_with(&all, 2), [7, 9]);
    }
}
