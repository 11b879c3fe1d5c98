//! W4i: the newest 50 entries of a user's sync timeline after a fan-out load, flushed and
//! compacted, warm.
//!
//! The groups have 50 to 500 members, and a user is in ten of them on average: the newest entries
//! of an inbox come from several conversations. Strandline stores each body once; a peer has two
//! lines, as in W3. With references, a reader gets each body by a look-up of its own, in the same
//! transaction where the engine has one.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{load, read_warm};
use crate::peers::{Copies, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Bodies, FanOut, Random, fan_outs, mixed_groups, sync_timeline};

const COUNT: usize = 50;

/// Timed reads at scale 1.
const READS: usize = 200_000;

/// Timeline-writes at scale 1, to so many users.
const TIMELINE_WRITES: usize = 2_000_000;
const USERS: usize = 20_000;

/// The groups that a user is in, and the members of a group, on average.
const GROUPS_EACH: usize = 10;
const MEMBERS: usize = 275;

/// W4i.
pub fn w4i(settings: &Settings) -> Result<Vec<Table>> {
    let (bodies, groups) = (Bodies::new(1), inbox_groups(settings));
    let inboxes = Inboxes::new(settings, &bodies, &groups);
    let long = inboxes.with(COUNT);
    ensure!(!long.is_empty(), "no user has {COUNT} entries at this scale");
    let mut random = Random::new(4);
    let picks = (0..settings.count(READS, 2_000))
        .map(|_| sync_timeline(long[random.below(long.len() as u32) as usize]))
        .collect();
    let workload = NewestOfInboxes { inboxes, users: long.len(), picks };
    Ok(vec![alternate(settings, &workload)?])
}

fn users(settings: &Settings) -> usize {
    settings.count(USERS, 1_000)
}

/// The groups of the load.
pub(super) fn inbox_groups(settings: &Settings) -> Vec<Vec<u32>> {
    let users = users(settings);
    mixed_groups((users * GROUPS_EACH / MEMBERS) as u32, users as u32)
}

/// One line for Strandline, two for each peer.
pub(super) fn inbox_contestants() -> Vec<Contestant> {
    let mut contestants = vec![Contestant::new(Kind::Strandline, "body once")];
    for kind in Kind::peers() {
        for (copies, name) in [(Copies::Inline, "copies"), (Copies::References, "references")] {
            contestants.push(Contestant { copies, ..Contestant::new(kind, name) });
        }
    }
    contestants
}

/// A fan-out load, and the sync timelines that it makes.
pub(super) struct Inboxes<'d> {
    pub messages: Vec<FanOut<'d>>,
    /// The last sequence of each user.
    pub lasts: Vec<u64>,
}

impl<'d> Inboxes<'d> {
    pub fn new(settings: &Settings, bodies: &'d Bodies, groups: &'d [Vec<u32>]) -> Inboxes<'d> {
        let users = users(settings);
        // As many for each user at every scale.
        let messages = TIMELINE_WRITES / USERS * users / MEMBERS;
        let messages = fan_outs(bodies, groups, messages, 0, 1);
        let mut lasts = vec![0; users];
        for user in messages.iter().flat_map(|message| message.members) {
            lasts[*user as usize] += 1;
        }
        Inboxes { messages, lasts }
    }

    /// The users that have at least so many entries.
    pub fn with(&self, least: usize) -> Vec<u32> {
        let users = 0..self.lasts.len() as u32;
        users.filter(|&user| self.lasts[user as usize] >= least as u64).collect()
    }

    pub fn load(&self, kind: Kind, peer: &dyn Peer) -> Result<()> {
        load(kind, peer, Box::new(self.messages.iter().map(|&message| Work::FanOut(message))))
    }
}

/// W4i for one load.
struct NewestOfInboxes<'d> {
    inboxes: Inboxes<'d>,
    /// The number of users that have enough entries.
    users: usize,
    picks: Vec<u32>,
}

impl Workload for NewestOfInboxes<'_> {
    fn title(&self) -> String {
        let messages = self.inboxes.messages.len();
        format!("W4i inbox, latest {COUNT} of {} users, {messages} messages", self.users)
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::compared("p50 µs"), Column::plain("p99 µs"), Column::plain("reads/s")]
    }

    fn contestants(&self) -> Vec<Contestant> {
        inbox_contestants()
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, _: &Path) -> Result<Vec<f64>> {
        self.inboxes.load(contestant.kind, peer)?;
        peer.flush()?;
        peer.compact()?;
        let reads = read_warm(&self.picks, |_| COUNT, |&timeline| peer.latest(timeline, COUNT))?;
        Ok(vec![reads.latency_us(0.5), reads.latency_us(0.99), reads.works_per_second()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_are_as_long_at_every_scale() {
        let dir = std::path::PathBuf::new();
        let mut settings =
            Settings { peers: Kind::built(), rounds: 1, scale: 1.0, dir, charts: None };
        let bodies = Bodies::new(1);
        for scale in [0.05, 0.2] {
            settings.scale = scale;
            let groups = inbox_groups(&settings);
            let inboxes = Inboxes::new(&settings, &bodies, &groups);
            let mean = inboxes.lasts.iter().sum::<u64>() as f64 / inboxes.lasts.len() as f64;
            assert!((75.0..125.0).contains(&mean), "{mean} entries a user at {scale}");
            assert!(inboxes.with(COUNT).len() * 10 > inboxes.lasts.len() * 7);
        }
    }
}
