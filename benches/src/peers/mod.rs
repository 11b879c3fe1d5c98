//! A common interface to engines: the operations that a workload needs, and how to open each
//! engine.
//!
//! A peer takes work and answers according to its own acknowledgement. `Durability` maps to the
//! levels that the engine offers; each file's heading describes them. A peer whose calls block
//! answers `Pending::Done`; Strandline answers with its ticket, and the driver decides how many may
//! be in flight.

#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod lmdb;
#[cfg(feature = "peers")]
mod raft_engine;
#[cfg(feature = "peers")]
mod raft_entry;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "peers")]
mod sequences;
mod strandline;

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use anyhow::Result;
use clap::ValueEnum;

use crate::workload::{Append, FanOut, TIMELINES};

/// Strandline's default memory budget.
pub const BUDGET_BYTES: usize = 512 << 20;

/// The meaning of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The operating system has the bytes: they survive a crash of the process.
    Logged,
    /// fdatasync returned: they survive a power cut.
    Synced,
}

/// How a peer without shared bodies stores a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// The body in every timeline.
    Inline,
    /// The body in the conversation's timeline; in each member's, 12 bytes with its position. A
    /// reader of a member's timeline needs one more look-up per entry.
    References,
}

impl Copies {
    /// Whether the entries of this timeline are references, which a reader must follow.
    #[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only peers copy"))]
    fn refers(self, timeline: u32) -> bool {
        self == Copies::References && timeline >= TIMELINES
    }
}

/// One atomic piece of work.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// These appends.
    Appends(&'a [Append<'a>]),
    /// This message, to its conversation and its members.
    FanOut(FanOut<'a>),
}

impl Work<'_> {
    /// How many entries it adds to timelines.
    pub fn timeline_writes(&self) -> u64 {
        match self {
            Work::Appends(appends) => appends.len() as u64,
            Work::FanOut(fan_out) => fan_out.members.len() as u64 + 1,
        }
    }
}

/// Work that was taken.
pub enum Pending {
    /// It is acknowledged already.
    Done,
    /// It will be acknowledged later.
    Ticket(::strandline::Ticket),
}

impl Pending {
    /// Waits for the acknowledgement.
    pub fn wait(self) -> Result<()> {
        match self {
            Pending::Done => Ok(()),
            Pending::Ticket(ticket) => Ok(ticket.wait().map(drop)?),
        }
    }

    /// Checks whether it is acknowledged, without waiting.
    pub fn is_done(&mut self) -> Result<bool> {
        if let Pending::Ticket(ticket) = self {
            match Pin::new(ticket).poll_once() {
                Poll::Pending => return Ok(false),
                Poll::Ready(receipt) => drop(receipt?),
            }
            *self = Pending::Done;
        }
        Ok(true)
    }
}

/// Polls a future once, without a task to wake.
trait PollOnce: Future {
    fn poll_once(self: Pin<&mut Self>) -> Poll<Self::Output> {
        self.poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl<F: Future> PollOnce for F {}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries.
    pub entries: usize,
    /// The sum of their bodies' first bytes, so that a reader accesses the data.
    pub checksum: u64,
}

impl Found {
    /// One more entry.
    pub fn add(&mut self, body: &[u8]) {
        self.entries += 1;
        self.checksum += body.first().map_or(0, |&byte| u64::from(byte)) + body.len() as u64;
    }
}

/// An engine, open. Readers name a timeline by a number: a conversation by its own, the sync
/// timeline of a user by `workload::sync_timeline`.
pub trait Peer: Send + Sync {
    /// Takes a piece of work.
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending>;

    /// Takes a piece of work and waits for it.
    fn commit(&self, work: Work<'_>, durability: Durability) -> Result<()> {
        self.submit(work, durability)?.wait()
    }

    /// Gives every timeline this last sequence, before the first work, if the engine can.
    fn begin_after(&self, last_sequence: u64) -> Result<()> {
        let _ = last_sequence;
        Ok(())
    }

    /// Takes several, each atomic on its own, in this order.
    fn submit_all(
        &self,
        works: &[Work<'_>],
        durability: Durability,
        pending: &mut Vec<Pending>,
    ) -> Result<()> {
        for &work in works {
            pending.push(self.submit(work, durability)?);
        }
        Ok(())
    }

    /// Sets the last sequence of a timeline, after an engine was opened in a directory with
    /// entries, if the caller numbers its entries: `latest` needs it.
    fn resume(&self, timeline: u32, last_sequence: u64) {
        let _ = (timeline, last_sequence);
    }

    /// Reads the newest `count` entries of a timeline, newest first.
    fn latest(&self, timeline: u32, count: usize) -> Result<Found>;

    /// Reads up to `count` entries of a timeline after a sequence, ascending. The engine finds the
    /// end of the timeline: a caller that numbers the entries must not use its own table for that.
    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found>;

    /// Reads the entry of a timeline that has this sequence.
    fn get(&self, timeline: u32, sequence: u64) -> Result<Found>;

    /// Writes buffered data to the files that hold it until compaction.
    fn flush(&self) -> Result<()>;

    /// Merges these files, as far as the engine does that.
    fn compact(&self) -> Result<()>;
}

/// The kind of engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// This project's.
    Strandline,
    /// A log engine made for Raft groups: everything is indexed in memory, nothing is sorted.
    RaftEngine,
    /// A B-tree in a mapped file.
    Lmdb,
    /// A log-structured merge tree in Rust.
    Fjall,
    /// A B-tree in Rust.
    Redb,
    /// A log-structured merge tree in C++.
    #[value(name = "rocksdb")]
    RocksDb,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Strandline => "strandline",
            Kind::RaftEngine => "raft-engine",
            Kind::Lmdb => "lmdb",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::RocksDb => "rocksdb",
        }
    }

    /// The kinds that this build knows, Strandline first.
    pub fn built() -> Vec<Kind> {
        Kind::value_variants().iter().copied().filter(|kind| kind.is_built()).collect()
    }

    fn is_built(self) -> bool {
        self.feature().is_none_or(|(_, built)| built)
    }

    /// The feature of the build that it needs, and whether this build has it.
    fn feature(self) -> Option<(&'static str, bool)> {
        match self {
            Kind::Strandline => None,
            Kind::RocksDb => Some(("rocksdb", cfg!(feature = "rocksdb"))),
            Kind::RaftEngine | Kind::Lmdb | Kind::Fjall | Kind::Redb => {
                Some(("peers", cfg!(feature = "peers")))
            }
        }
    }

    /// Makes the data that an application has before it opens the engine.
    pub fn prepare(self) {
        if self == Kind::Strandline {
            strandline::Strandline::prepare();
        }
    }

    /// The kinds that this build compares Strandline with.
    pub fn peers() -> Vec<Kind> {
        Kind::built().into_iter().filter(|&kind| kind != Kind::Strandline).collect()
    }

    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(self, dir: &Path, copies: Copies) -> Result<Box<dyn Peer>> {
        self.open_within(dir, copies, BUDGET_BYTES)
    }

    /// Opens one with this memory budget. Half of it is for blocks, which is the only part that
    /// applies to fjall, redb and `RocksDB`. LMDB and raft-engine have no such limit; LMDB reads
    /// nothing ahead if the budget is below the default.
    #[cfg_attr(not(feature = "peers"), allow(unused_variables, reason = "only peers copy"))]
    pub fn open_within(
        self,
        dir: &Path,
        copies: Copies,
        budget_bytes: usize,
    ) -> Result<Box<dyn Peer>> {
        let cache_bytes = budget_bytes / 2;
        Ok(match self {
            Kind::Strandline => Box::new(strandline::Strandline::open(dir, budget_bytes)?),
            #[cfg(feature = "peers")]
            Kind::RaftEngine => Box::new(raft_engine::RaftEngine::open(dir, copies)?),
            #[cfg(feature = "peers")]
            Kind::Lmdb => Box::new(lmdb::Lmdb::open(dir, copies, budget_bytes >= BUDGET_BYTES)?),
            #[cfg(feature = "peers")]
            Kind::Fjall => Box::new(fjall::Fjall::open(dir, copies, cache_bytes)?),
            #[cfg(feature = "peers")]
            Kind::Redb => Box::new(redb::Redb::open(dir, copies, cache_bytes)?),
            #[cfg(feature = "rocksdb")]
            Kind::RocksDb => Box::new(rocksdb::RocksDb::open(dir, copies, cache_bytes)?),
            #[cfg(not(feature = "rocksdb"))]
            other => {
                let (feature, _) = other.feature().expect("every build has Strandline");
                anyhow::bail!("{} is not in this build: add `--features {feature}`", other.name())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::sync_timeline;

    fn writes_are_read_back(kind: Kind, copies: Copies) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let peer = kind.open(dir.path(), copies).expect("an open engine");
        let bodies: Vec<Vec<u8>> = (0..60_u8).map(|number| vec![number; 20]).collect();
        let appends: Vec<Append<'_>> =
            bodies.iter().map(|body| Append { timeline: 3, body }).collect();
        for chunk in appends.chunks(7) {
            let pending = peer.submit(Work::Appends(chunk), Durability::Logged).expect("taken");
            pending.wait().expect("acknowledged");
        }
        let message = FanOut { conversation: 3, members: &[1, 2], body: b"the last one" };
        peer.submit(Work::FanOut(message), Durability::Synced)
            .and_then(Pending::wait)
            .expect("acknowledged");
        let mut expected = Found::default();
        expected.add(b"the last one");
        bodies.iter().rev().take(49).for_each(|body| expected.add(body));
        let latest = |timeline| peer.latest(timeline, 50).expect("a read");
        assert_eq!(latest(3), expected, "{}", kind.name());
        assert_eq!(latest(4), Found::default(), "{}: a timeline without entries", kind.name());
        inner_reads_find_their_entries(peer.as_ref(), &bodies);
        peer.flush().expect("a flush");
        peer.compact().expect("a compaction");
        assert_eq!(latest(3), expected, "{}, compacted", kind.name());
        inner_reads_find_their_entries(peer.as_ref(), &bodies);
        drop(peer);
        let peer = kind.open(dir.path(), copies).expect("an engine with entries");
        peer.resume(3, 61);
        peer.resume(sync_timeline(2), 1);
        assert_eq!(peer.latest(3, 50).expect("a read"), expected, "{}, reopened", kind.name());
        inner_reads_find_their_entries(peer.as_ref(), &bodies);
    }

    fn sum(bodies: &[&[u8]]) -> Found {
        let mut found = Found::default();
        bodies.iter().for_each(|body| found.add(body));
        found
    }

    /// Reads by sequence: `bodies` have 1 to 60 in conversation 3, the last one has 61; users 1 and
    /// 2 have that one only.
    fn inner_reads_find_their_entries(peer: &dyn Peer, bodies: &[Vec<u8>]) {
        let last = b"the last one".as_slice();
        let after = |timeline, sequence| peer.after(timeline, sequence, 3).expect("a read");
        let get = |timeline, sequence| peer.get(timeline, sequence).expect("a read");
        assert_eq!(after(3, 0), sum(&[&bodies[0], &bodies[1], &bodies[2]]));
        assert_eq!(after(3, 59), sum(&[&bodies[59], last]));
        assert_eq!(after(4, 0), Found::default());
        assert_eq!((get(3, 7), get(3, 62)), (sum(&[&bodies[6]]), Found::default()));
        for user in [1, 2].map(sync_timeline) {
            assert_eq!((after(user, 0), after(user, 1)), (sum(&[last]), Found::default()));
            assert_eq!((get(user, 1), get(user, 2)), (sum(&[last]), Found::default()));
        }
        assert_eq!(peer.latest(sync_timeline(2), 50).expect("a read"), sum(&[last]));
    }

    #[test]
    fn the_default_budget_is_that_of_the_engine() {
        let options = ::strandline::Options::default();
        assert_eq!(options.clone().memory_budget_bytes(BUDGET_BYTES), options);
    }

    #[test]
    #[cfg(feature = "peers")]
    fn each_peer_reads_back_what_was_written() {
        for kind in Kind::peers() {
            writes_are_read_back(kind, Copies::Inline);
            writes_are_read_back(kind, Copies::References);
        }
    }

    #[test]
    fn a_kind_of_another_build_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for &kind in Kind::value_variants().iter().filter(|kind| !kind.is_built()) {
            let error = kind.open(dir.path(), Copies::Inline).err().expect("not in this build");
            assert!(error.to_string().contains("add `--features "), "{error}");
        }
    }

    #[test]
    fn strandline_reads_back_what_was_written() {
        writes_are_read_back(Kind::Strandline, Copies::Inline);
    }
}
