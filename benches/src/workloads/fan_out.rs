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
use crate::rounds::{Contestant, Settings, alternate};
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
            tables.push(w3_with(settings, &bodies, &groups, count, case)?);
        }
    }
    Ok(tables)
}

fn w3_with(
    settings: &Settings,
    bodies: &Bodies,
    groups: &[Vec<u32>],
    members: usize,
    case: Case,
) -> Result<Table> {
    let full = match case.durability {
        Durability::Logged => LOGGED_TIMELINE_WRITES,
        Durability::Synced => LOGGED_TIMELINE_WRITES / 5,
    };
    let messages = settings.count(full / (members + 1), 320);
    let of = |writers: usize| -> Vec<Vec<FanOut<'_>>> {
        (0..writers as u32)
            .map(|writer| fan_outs(bodies, groups, messages / writers, writer, writers as u32))
            .collect()
    };
    let (alone, apart) = (of(1), of(case.in_flight));
    let window = if case.durability == Durability::Logged { 64 } else { case.in_flight };
    let mut contestants = vec![contestant(
        Kind::Strandline,
        format!("one thread, {window} in flight"),
        Copies::Inline,
        &alone,
        pace(case, window),
    )];
    if case.durability == Durability::Logged {
        let how = "waits for each".to_owned();
        contestants.push(contestant(Kind::Strandline, how, Copies::Inline, &alone, pace(case, 1)));
    }
    for kind in [Kind::RaftEngine, Kind::Fjall] {
        for (copies, name) in [(Copies::Inline, "copies"), (Copies::References, "references")] {
            let how = match case.in_flight {
                1 => name.to_owned(),
                threads => format!("{name}, {threads} threads"),
            };
            contestants.push(contestant(kind, how, copies, &apart, pace(case, 1)));
        }
    }
    let columns = vec![
        Column::compared("messages/s"),
        Column::plain("timeline-writes/s"),
        Column::plain("p50 µs"),
        Column::compared("call bytes per message"),
        Column::compared("device bytes per message"),
        Column::plain("bytes occupied per message"),
    ];
    alternate(settings, &format!("W3 fan-out, N = {members}, {}", case.name), columns, &contestants)
}

fn pace(case: Case, window: usize) -> Pace {
    let stop_after = Some(Duration::from_mins(1));
    Pace { window, together: false, durability: case.durability, stop_after, latencies: true }
}

fn contestant<'w>(
    kind: Kind,
    how: String,
    copies: Copies,
    writers: &'w [Vec<FanOut<'w>>],
    pace: Pace,
) -> Contestant<'w> {
    let measure = Box::new(move |peer: &dyn Peer, dir: &Path| {
        let before = Written::now(dir)?;
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
    });
    Contestant { kind, how, copies, measure }
}
