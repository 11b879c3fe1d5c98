//! W5: everything after a cursor of a user's sync timeline, up to 100 entries. Half of the pulls
//! find nothing new, the others 1 to 20 entries.
//!
//! The load is that of W4i. It is read as written, before any flush but those that the engine makes
//! by itself, and then at rest: flushed and compacted. Every engine looks up the end of the
//! timeline itself. Pulls are counted in a pass of their own, without a clock around each.

use std::path::Path;

use anyhow::{Result, ensure};

use super::inbox::{Inboxes, inbox_contestants, inbox_groups};
use super::{Look, read_warm};
use crate::drive;
use crate::peers::Peer;
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Bodies, Random, sync_timeline};

const LIMIT: usize = 100;

/// A pull that finds something finds up to so many.
const MOST_NEW: u32 = 20;

/// Timed pulls at scale 1.
const PULLS: usize = 500_000;

/// W5, one table as written and one at rest.
pub fn w5(settings: &Settings) -> Result<Vec<Table>> {
    let (bodies, groups) = (Bodies::new(1), inbox_groups(settings));
    let inboxes = Inboxes::new(settings, &bodies, &groups);
    let pulls = pulls(&inboxes, settings.count(PULLS, 5_000))?;
    let workload = Pulls { inboxes, pulls };
    let titles = ["as written", "flushed and compacted, warm"];
    let titles = titles.map(|state| format!("{}, {state}", workload.title())).into();
    Ok(alternate(settings, &workload)?.split(titles))
}

fn pulls(inboxes: &Inboxes<'_>, count: usize) -> Result<Vec<Look>> {
    let users = inboxes.with(MOST_NEW as usize);
    ensure!(!users.is_empty(), "no user has {MOST_NEW} entries at this scale");
    let mut random = Random::new(5);
    let mut pull = |number| {
        let user = users[random.below(users.len() as u32) as usize];
        let new = if number % 2 == 0 { 0 } else { 1 + random.below(MOST_NEW) };
        let sequence = inboxes.lasts[user as usize] - u64::from(new);
        Look { timeline: sync_timeline(user), sequence, finds: new as usize }
    };
    Ok((0..count).map(&mut pull).collect())
}

/// W5 for one load.
struct Pulls<'d> {
    inboxes: Inboxes<'d>,
    pulls: Vec<Look>,
}

impl Pulls<'_> {
    /// Pulls per second, p50 and p99 in microseconds.
    fn figures(&self, peer: &dyn Peer) -> Result<[f64; 3]> {
        let pull = |look: &Look| peer.after(look.timeline, look.sequence, LIMIT);
        let timed = read_warm(&self.pulls, |look| look.finds, pull)?;
        let counted = drive::read_each(&self.pulls, false, pull)?;
        Ok([counted.works_per_second(), timed.latency_us(0.5), timed.latency_us(0.99)])
    }
}

impl Workload for Pulls<'_> {
    fn title(&self) -> String {
        format!("W5 pull, half with nothing new, {} messages", self.inboxes.messages.len())
    }

    fn columns(&self) -> Vec<Column> {
        let of_a_pull =
            [Column::compared("pulls/s"), Column::plain("p50 µs"), Column::plain("p99 µs")];
        of_a_pull.repeat(2)
    }

    fn contestants(&self) -> Vec<Contestant> {
        inbox_contestants()
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, _: &Path) -> Result<Vec<f64>> {
        self.inboxes.load(contestant.kind, peer)?;
        let as_written = self.figures(peer)?;
        peer.flush()?;
        peer.compact()?;
        Ok([as_written, self.figures(peer)?].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_pulls_find_nothing() {
        let inboxes = Inboxes { messages: Vec::new(), lasts: vec![3, 20, 90] };
        let pulls = pulls(&inboxes, 1_000).expect("users");
        assert_eq!(pulls.iter().filter(|pull| pull.finds == 0).count(), 500);
        for pull in pulls {
            assert_ne!(pull.timeline, sync_timeline(0));
            let last = if pull.timeline == sync_timeline(1) { 20 } else { 90 };
            assert_eq!(pull.sequence + pull.finds as u64, last);
            assert!(pull.finds <= 20);
        }
    }
}
