//! W4: the newest 50 entries of a timeline, after W1, flushed and compacted, warm.
//!
//! Only timelines that have 50 entries are read, each equally often, so that every read returns 50.
//! The loaded data fits into memory in every scale up to 1; reads of larger data are another
//! workload.

use std::path::Path;

use anyhow::{Result, ensure};

use super::append::APPENDS;
use crate::drive::{self, Feed, Pace};
use crate::peers::{Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
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
    let workload = NewestEntries { all: &all, timelines: long.len(), picks };
    Ok(vec![alternate(settings, &workload)?])
}

fn timelines_with(all: &[Append<'_>], least: usize) -> Vec<u32> {
    let mut counts = vec![0_usize; TIMELINES as usize];
    for append in all {
        counts[append.timeline as usize] += 1;
    }
    (0..TIMELINES).filter(|&timeline| counts[timeline as usize] >= least).collect()
}

/// W4 for one load.
struct NewestEntries<'d> {
    all: &'d [Append<'d>],
    /// The number of timelines that are long enough to be read.
    timelines: usize,
    /// The timeline of each read.
    picks: Vec<u32>,
}

impl Workload for NewestEntries<'_> {
    fn title(&self) -> String {
        format!("W4 latest {COUNT}, {} timelines of {} appends", self.timelines, self.all.len())
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::compared("p50 µs"), Column::plain("p99 µs"), Column::plain("reads/s")]
    }

    fn contestants(&self) -> Vec<Contestant> {
        Kind::built().into_iter().map(|kind| Contestant::new(kind, "warm")).collect()
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, _: &Path) -> Result<Vec<f64>> {
        // The load is not measured: the window only makes it shorter.
        let window = if contestant.kind == Kind::Strandline { 1_024 } else { 1 };
        let pace = Pace { latencies: false, ..Pace::new(window, Durability::Logged) };
        let feed: Feed<'_> = Box::new(self.all.chunks(1).map(Work::Appends));
        drive::run(peer, vec![feed], pace)?;
        peer.flush()?;
        peer.compact()?;
        for &timeline in &self.picks {
            let found = peer.latest(timeline, COUNT)?;
            ensure!(found.entries == COUNT, "{} of {COUNT} entries of {timeline}", found.entries);
        }
        let reads = drive::read_latest(peer, &self.picks, COUNT)?;
        Ok(vec![reads.latency_us(0.5), reads.latency_us(0.99), reads.works_per_second()])
    }
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
