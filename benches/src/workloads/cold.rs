//! Cold reads: the newest 50 entries of timelines that neither the engine nor the operating system
//! has in memory.
//!
//! The bodies are ten times the memory budget. After the load the engine is flushed, compacted and
//! closed, and the operating system drops its cache of each file (`posix_fadvise`), which it would
//! not do with mapped pages. Then the engine is opened again, and the cache is dropped once more,
//! since some engines read all of their data on opening. Timelines are read in random order, each
//! once. Only one timeline in 32 is read: the neighbours of what was read may be in memory. That is
//! also why LMDB must not read ahead here: with its default, the operating system may read
//! megabytes around each page, and after a hundred reads everything is in memory.

use anyhow::{Result, ensure};

use super::load;
use crate::disk::{drop_file_caches, read_bytes, settle};
use crate::drive;
use crate::peers::{Kind, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, in_turns};
use crate::workload::{Append, BODY_BYTES, Bodies, Random, distinct};

/// The entries of a timeline, all of which a read returns.
const COUNT: usize = 50;

/// Timelines at scale 1: 320 MB of bodies.
const TIMELINES_READ: usize = 32_000;

/// One in so many timelines is read.
const SAMPLE: usize = 32;

/// The bodies are so many times the memory budget.
const BUDGETS: usize = 10;

/// The cold reads.
pub fn cold(settings: &Settings) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let timelines = settings.count(TIMELINES_READ, 3_200);
    let reads = ColdReads::new(&bodies, timelines);
    let contestants: Vec<Contestant> = settings.peers.iter().map(|&kind| reads.by(kind)).collect();
    let labels = contestants.iter().map(Contestant::label).collect();
    let head = (reads.title(), ColdReads::columns());
    let measure = |place: usize| reads.measure(settings, &contestants[place]);
    Ok(vec![in_turns(settings, head, labels, measure)?])
}

/// The load, and the timelines that are read.
struct ColdReads<'d> {
    timelines: usize,
    all: Vec<Append<'d>>,
    picks: Vec<u32>,
}

impl<'d> ColdReads<'d> {
    /// So many timelines, written round by round in no order of their names.
    fn new(bodies: &'d Bodies, timelines: usize) -> ColdReads<'d> {
        let mut random = Random::new(0xC01D);
        let order = distinct(&mut random, timelines as u32, timelines);
        let append = |&timeline| Append { timeline, body: bodies.pick(&mut random) };
        let all = (0..COUNT).flat_map(|_| &order).map(append).collect();
        let picks = distinct(&mut random, timelines as u32, timelines / SAMPLE);
        ColdReads { timelines, all, picks }
    }

    fn budget_bytes(&self) -> usize {
        self.all.len() * BODY_BYTES / BUDGETS
    }

    fn by(&self, kind: Kind) -> Contestant {
        Contestant { budget_bytes: self.budget_bytes(), ..Contestant::new(kind, "cold") }
    }

    fn title(&self) -> String {
        format!(
            "Cold latest {COUNT}, {} of {} timelines, {} MB of bodies, budget {:.1} MB",
            self.picks.len(),
            self.timelines,
            self.all.len() * BODY_BYTES / 1_000_000,
            self.budget_bytes() as f64 / 1e6
        )
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::compared("p50 µs"),
            Column::plain("p99 µs"),
            Column::compared("kB from the disk per read"),
        ]
    }

    fn measure(&self, settings: &Settings, contestant: &Contestant) -> Result<Vec<f64>> {
        let dir = settings.fresh_dir()?;
        let peer = contestant.open(dir.path())?;
        load(contestant.kind, peer.as_ref(), Box::new(self.all.chunks(1).map(Work::Appends)))?;
        peer.flush()?;
        peer.compact()?;
        drop(peer);
        settle()?;
        drop_file_caches(dir.path())?;
        let peer = contestant.open(dir.path())?;
        drop_file_caches(dir.path())?;
        (0..self.timelines as u32).for_each(|timeline| peer.resume(timeline, COUNT as u64));
        let before = read_bytes()?;
        let reads = drive::read_each(&self.picks, true, |&timeline| {
            let found = peer.latest(timeline, COUNT)?;
            ensure!(found.entries == COUNT, "{} of {COUNT} entries", found.entries);
            Ok(found)
        })?;
        let each = (read_bytes()? - before) as f64 / reads.works as f64;
        Ok(vec![reads.latency_us(0.5), reads.latency_us(0.99), each / 1e3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_reads_cold_timelines() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bodies = Bodies::new(1);
        let reads = ColdReads::new(&bodies, 64);
        let dir = dir.path().to_owned();
        let settings = Settings { peers: Kind::built(), rounds: 1, scale: 1.0, dir, charts: None };
        for kind in Kind::built() {
            let figures = reads.measure(&settings, &reads.by(kind)).expect("figures");
            assert_eq!(figures.len(), ColdReads::columns().len(), "{}", kind.name());
        }
    }
}
