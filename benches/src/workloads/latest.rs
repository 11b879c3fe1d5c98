//! W4: reads after W1, flushed and compacted, warm: the newest 50 entries, 100 entries after a
//! cursor, and one entry by its sequence.
//!
//! Only timelines that have enough entries are read, each equally often, so that every read finds
//! what it asks for. The loaded data fits into memory in every scale up to 1; `cold` reads larger
//! data.

use std::path::Path;

use anyhow::{Result, ensure};

use super::append::APPENDS;
use super::{Look, load, read_warm};
use crate::peers::{Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Append, Bodies, Random, TIMELINES, appends};

const COUNT: usize = 50;
const FORWARD: usize = 100;

/// Timed reads of each kind at scale 1.
const READS: usize = 200_000;

/// W4, one table for each kind of read.
pub fn w4(settings: &Settings) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, settings.count(APPENDS, 20_000), 0, 1);
    let workload = ReadsAfterAppends::new(&all, settings.count(READS, 2_000))?;
    let of = |what: &str, timelines: usize| {
        format!("W4 {what}, {timelines} timelines of {} appends", all.len())
    };
    let [enough, many] = workload.timelines;
    let titles = vec![
        of(&format!("latest {COUNT}"), enough),
        of(&format!("{FORWARD} forward"), many),
        of("point get", enough),
    ];
    Ok(alternate(settings, &workload)?.split(titles))
}

/// The number of entries of each timeline, which is its last sequence.
fn last_sequences(all: &[Append<'_>]) -> Vec<u64> {
    let mut lasts = vec![0; TIMELINES as usize];
    for append in all {
        lasts[append.timeline as usize] += 1;
    }
    lasts
}

/// The timelines that have at least so many entries.
fn timelines_with(lasts: &[u64], least: usize) -> Result<Vec<u32>> {
    let long = (0..TIMELINES).filter(|&timeline| lasts[timeline as usize] >= least as u64);
    let long: Vec<u32> = long.collect();
    ensure!(!long.is_empty(), "no timeline has {least} entries at this scale");
    Ok(long)
}

fn pick(random: &mut Random, from: &[u32]) -> u32 {
    from[random.below(from.len() as u32) as usize]
}

/// W4 for one load.
struct ReadsAfterAppends<'d> {
    all: &'d [Append<'d>],
    /// The number of timelines with enough entries for the newest ones, and for reading forward.
    timelines: [usize; 2],
    newest: Vec<u32>,
    forward: Vec<Look>,
    points: Vec<Look>,
}

impl<'d> ReadsAfterAppends<'d> {
    fn new(all: &'d [Append<'d>], reads: usize) -> Result<ReadsAfterAppends<'d>> {
        let lasts = last_sequences(all);
        let (enough, many) = (timelines_with(&lasts, COUNT)?, timelines_with(&lasts, FORWARD)?);
        let mut random = Random::new(4);
        let newest = (0..reads).map(|_| pick(&mut random, &enough)).collect();
        // A sequence that has at least `after` entries after it, or 0.
        let mut look = |from: &[u32], after: usize, finds: usize| {
            let timeline = pick(&mut random, from);
            let choices = lasts[timeline as usize] - after as u64 + 1;
            Look { timeline, sequence: u64::from(random.below(choices as u32)), finds }
        };
        let forward = (0..reads).map(|_| look(&many, FORWARD, FORWARD)).collect();
        let points = (0..reads).map(|_| look(&enough, 1, 1));
        let points = points.map(|look| Look { sequence: look.sequence + 1, ..look }).collect();
        let timelines = [enough.len(), many.len()];
        Ok(ReadsAfterAppends { all, timelines, newest, forward, points })
    }
}

impl Workload for ReadsAfterAppends<'_> {
    fn title(&self) -> String {
        format!("W4 reads after {} appends", self.all.len())
    }

    fn columns(&self) -> Vec<Column> {
        let of_a_read =
            [Column::compared("p50 µs"), Column::plain("p99 µs"), Column::plain("reads/s")];
        of_a_read.repeat(3)
    }

    fn contestants(&self) -> Vec<Contestant> {
        Kind::built().into_iter().map(|kind| Contestant::new(kind, "warm")).collect()
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, _: &Path) -> Result<Vec<f64>> {
        load(contestant.kind, peer, Box::new(self.all.chunks(1).map(Work::Appends)))?;
        peer.flush()?;
        peer.compact()?;
        let finds = |look: &Look| look.finds;
        let outcomes = [
            read_warm(&self.newest, |_| COUNT, |&timeline| peer.latest(timeline, COUNT))?,
            read_warm(&self.forward, finds, |look| {
                peer.after(look.timeline, look.sequence, FORWARD)
            })?,
            read_warm(&self.points, finds, |look| peer.get(look.timeline, look.sequence))?,
        ];
        let figures = outcomes.iter().flat_map(|reads| {
            [reads.latency_us(0.5), reads.latency_us(0.99), reads.works_per_second()]
        });
        Ok(figures.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_timelines_are_asked() {
        let append = |timeline| Append { timeline, body: b"" };
        let all: Vec<_> = [7, 9, 7, 8, 7, 9].into_iter().map(append).collect();
        assert_eq!(timelines_with(&last_sequences(&all), 2).expect("some"), [7, 9]);
        assert!(timelines_with(&last_sequences(&all), 4).is_err());
    }

    #[test]
    fn each_read_is_inside_its_timeline() {
        let append = |timeline| Append { timeline, body: b"" };
        let all: Vec<_> = (0..300).map(|number| append(number % 2)).collect();
        let workload = ReadsAfterAppends::new(&all, 1_000).expect("long timelines");
        let cursors = workload.forward.iter().map(|look| look.sequence);
        assert_eq!((cursors.clone().min(), cursors.max()), (Some(0), Some(50)));
        let points = workload.points.iter().map(|look| look.sequence);
        assert_eq!((points.clone().min(), points.max()), (Some(1), Some(150)));
    }
}
