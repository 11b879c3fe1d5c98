//! W3: one message to a conversation and its N members, atomically.
//!
//! Strandline always stores the body once. A peer has two lines: the body in every timeline, which
//! is best for readers, and the body once with references to it, which is best for writers. With
//! several messages in flight a peer gets a thread for each, whose groups share no member with
//! another thread's.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::disk::{Written, occupied_bytes};
use crate::drive::{self, Feed, Pace};
use crate::peers::{Copies, Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Bodies, FanOut, fan_outs, groups};

/// Timeline-writes of a table without fsync at scale 1; a fifth of it with.
const LOGGED_TIMELINE_WRITES: usize = 5_000_000;

#[derive(Clone, Copy)]
struct Case {
    durability: Durability,
    in_flight: usize,
    name: &'static str,
}

const CASES: [Case; 3] = [
    Case { durability: Durability::Logged, in_flight: 1, name: "logged" },
    Case {
        durability: Durability::Synced,
        in_flight: 1,
        name: "fdatasync per message, 1 in flight",
    },
    Case { durability: Durability::Synced, in_flight: 16, name: "fdatasync, 16 in flight" },
];

/// W3, three tables for each number of members.
pub fn w3(settings: &Settings, members: &[usize]) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let mut tables = Vec::new();
    for &count in members {
        let groups = groups(count);
        for case in CASES {
            let workload = GroupMessages::new(settings, &bodies, &groups, count, case);
            tables.push(alternate(settings, &workload)?);
        }
    }
    Ok(tables)
}

/// W3 with one number of members and one case.
struct GroupMessages<'d> {
    members: usize,
    case: Case,
    /// Those of a single caller.
    alone: Vec<Vec<FanOut<'d>>>,
    /// Those of the threads of a peer, whose groups share no member.
    apart: Vec<Vec<FanOut<'d>>>,
}

impl<'d> GroupMessages<'d> {
    fn new(
        settings: &Settings,
        bodies: &'d Bodies,
        groups: &'d [Vec<u32>],
        members: usize,
        case: Case,
    ) -> GroupMessages<'d> {
        let full = match case.durability {
            Durability::Logged => LOGGED_TIMELINE_WRITES,
            Durability::Synced => LOGGED_TIMELINE_WRITES / 5,
        };
        let messages = settings.count(full / (members + 1), 320);
        let of = |writers: usize| {
            (0..writers as u32)
                .map(|writer| fan_outs(bodies, groups, messages / writers, writer, writers as u32))
                .collect()
        };
        GroupMessages { members, case, alone: of(1), apart: of(case.in_flight) }
    }
}

impl Workload for GroupMessages<'_> {
    fn title(&self) -> String {
        format!("W3 fan-out, N = {}, {}", self.members, self.case.name)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::compared("messages/s"),
            Column::plain("timeline-writes/s"),
            Column::plain("p50 µs"),
            Column::compared("call bytes per message"),
            Column::compared("device bytes per message"),
            Column::plain("bytes occupied per message"),
        ]
    }

    fn contestants(&self) -> Vec<Contestant> {
        let logged = self.case.durability == Durability::Logged;
        let threads = self.case.in_flight;
        let window = if logged { 64 } else { threads };
        let tickets = Contestant::new(Kind::Strandline, format!("one thread, {window} in flight"));
        let mut contestants = vec![Contestant { window, ..tickets }];
        if logged {
            contestants.push(Contestant::new(Kind::Strandline, "waits for each"));
        }
        for kind in Kind::peers() {
            for (copies, name) in [(Copies::Inline, "copies"), (Copies::References, "references")] {
                let how = match threads {
                    1 => name.to_owned(),
                    threads => format!("{name}, {threads} threads"),
                };
                contestants.push(Contestant { copies, threads, ..Contestant::new(kind, how) });
            }
        }
        contestants
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, dir: &Path) -> Result<Vec<f64>> {
        let pace = Pace {
            stop_after: Some(Duration::from_mins(1)),
            ..Pace::new(contestant.window, self.case.durability)
        };
        let before = Written::now(dir)?;
        let writers = if contestant.threads == 1 { &self.alone } else { &self.apart };
        let feeds = writers
            .iter()
            .map(|own| Box::new(own.iter().map(|&message| Work::FanOut(message))) as Feed<'_>)
            .collect();
        let outcome = drive::run(peer, feeds, pace)?;
        let [calls, device] = super::written_per_work(peer, dir, before, &outcome)?;
        Ok(vec![
            outcome.works_per_second(),
            outcome.timeline_writes_per_second(),
            outcome.latency_us(0.5),
            calls,
            device,
            occupied_bytes(dir)? as f64 / outcome.works as f64,
        ])
    }
}
