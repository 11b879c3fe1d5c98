//! W3: one message to a conversation and its N members, atomically.
//!
//! Strandline always stores the body once. A peer has two lines: the body in every timeline, which
//! is best for readers, and the body once with references to it, which is best for writers. With
//! several messages in flight a peer gets a thread for each, whose groups share no member with
//! another thread's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, value_parser};

use crate::disk::{Written, occupied_bytes};
use crate::drive::{self, Feed, Pace};
use crate::peers::{Copies, Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, Workload, alternate};
use crate::workload::{Bodies, FanOut, GROUPS, fan_outs, many_groups};

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

/// The groups of W3.
#[derive(Clone, Debug, Parser)]
pub struct Shape {
    /// W3: the number of members of a group.
    #[arg(long, value_delimiter = ',', default_values_t = [500], value_parser = members)]
    pub members: Vec<usize>,
    /// W3: the number of groups. If there are as many as messages, each is used once.
    #[arg(long, default_value_t = GROUPS, value_parser = value_parser!(u32).range(16..=100_000))]
    pub groups: u32,
    /// W3: the sequence that timelines have before the first message. Only Strandline begins there;
    /// the entries with that sequence are part of the bytes occupied.
    #[arg(long, default_value_t = 0)]
    pub last_sequence: u64,
}

fn members(text: &str) -> Result<usize> {
    let members = text.parse()?;
    ensure!((1..=6_250).contains(&members), "1 to 6250 members");
    Ok(members)
}

/// W3, three tables for each number of members.
pub fn w3(settings: &Settings, shape: &Shape) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let mut tables = Vec::new();
    for &count in &shape.members {
        let groups = many_groups(shape.groups, count);
        for case in CASES {
            let counts = (count, shape.last_sequence);
            let workload = GroupMessages::new(settings, &bodies, &groups, counts, case);
            tables.push(alternate(settings, &workload)?);
        }
    }
    Ok(tables)
}

/// W3 with one number of members and one case.
struct GroupMessages<'d> {
    members: usize,
    case: Case,
    last_sequence: u64,
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
        (members, last_sequence): (usize, u64),
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
        GroupMessages { members, case, last_sequence, alone: of(1), apart: of(case.in_flight) }
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
        if self.last_sequence > 0 {
            peer.begin_after(self.last_sequence)?;
        }
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
