//! W1 and W2: appends by Zipf over 100 k timelines, logged and synced.
//!
//! W1 compares calls that return when the entry is logged (the peers) with a queue that answers
//! later (Strandline): hence two lines for Strandline, one with a window in flight and one that
//! waits for each answer. W2 keeps the number of outstanding appends equal. A peer whose calls
//! block gets one thread per writer up to 64; above that each thread's call carries several
//! appends, since more threads only slow the peer down. Because a caller could gather what is
//! outstanding into one batch, each engine also has a line in which one caller does that, with one
//! answer for all.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::written_per_work;
use crate::disk::Written;
use crate::drive::{self, Feed, Pace};
use crate::peers::{Copies, Durability, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, alternate};
use crate::workload::{Append, Bodies, appends};

const ENGINES: [Kind; 3] = [Kind::Strandline, Kind::RaftEngine, Kind::Fjall];

/// More threads than this make every peer slower.
const MOST_THREADS: usize = 64;

/// Appends of W1 at scale 1.
pub const APPENDS: usize = 2_000_000;

/// W1.
pub fn w1(settings: &Settings) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, settings.count(APPENDS, 1_000), 0, 1);
    [(1, 1_024, "one per call"), (100, 16, "batches of 100")]
        .into_iter()
        .map(|(batch, window, name)| {
            let mut contestants = vec![logged(
                settings,
                Kind::Strandline,
                &all,
                batch,
                window,
                format!("{window} in flight"),
            )];
            for kind in ENGINES {
                contestants.push(logged(
                    settings,
                    kind,
                    &all,
                    batch,
                    1,
                    "waits for each".to_owned(),
                ));
            }
            let columns = vec![
                Column::compared("appends/s"),
                Column::compared("call bytes per append"),
                Column::compared("device bytes per append"),
            ];
            alternate(settings, &format!("W1 append, {name}, logged"), columns, &contestants)
        })
        .collect()
}

fn logged<'w>(
    settings: &Settings,
    kind: Kind,
    all: &'w [Append<'w>],
    batch: usize,
    window: usize,
    how: String,
) -> Contestant<'w> {
    // A caller that waits for a cross-thread answer each time may be slow: after this time its rate
    // is known.
    let stop_after =
        (window == 1).then(|| Duration::from_secs_f64((20.0 * settings.scale).max(1.0)));
    let pace = Pace {
        window,
        together: false,
        durability: Durability::Logged,
        stop_after,
        latencies: false,
    };
    let measure = Box::new(move |peer: &dyn Peer, dir: &Path| {
        let before = Written::now(dir)?;
        let feed: Feed<'_> = Box::new(all.chunks(batch).map(Work::Appends));
        let outcome = drive::run(peer, vec![feed], pace)?;
        let [calls, device] =
            written_per_work(peer, dir, before, &outcome)?.map(|bytes| bytes / batch as f64);
        Ok(vec![outcome.timeline_writes_per_second(), calls, device])
    });
    Contestant { kind, how, copies: Copies::Inline, measure }
}

/// How a line of W2 keeps its appends outstanding.
#[derive(Clone, Copy)]
struct Style {
    threads: usize,
    window: usize,
    batch: usize,
}

/// W2, one table for each number of outstanding appends.
pub fn w2(settings: &Settings, outstanding: &[usize]) -> Result<Vec<Table>> {
    let bodies = Bodies::new(1);
    outstanding.iter().map(|&count| w2_with(settings, &bodies, count)).collect()
}

fn w2_with(settings: &Settings, bodies: &Bodies, outstanding: usize) -> Result<Table> {
    let threads = outstanding.min(MOST_THREADS);
    let event_loop = Style { threads: 1, window: outstanding, batch: 1 };
    let by_threads = Style { threads, window: 1, batch: outstanding.div_ceil(threads) };
    let gathered = Style { threads: 1, window: 1, batch: outstanding };
    let threads_name = match by_threads.batch {
        1 => format!("{threads} threads"),
        batch => format!("{threads} threads × {batch} a call"),
    };
    // Long enough that no contestant reaches the end and starts again within a second.
    let per_writer = |writers: u32| {
        (0..writers).map(move |writer| appends(bodies, 400_000 / writers as usize, writer, writers))
    };
    let (alone, apart): (Vec<_>, Vec<_>) =
        (per_writer(1).collect(), per_writer(threads as u32).collect());
    let mut contestants = Vec::new();
    let mut add = |kind, how: &str, style: Style| {
        let feeds = if style.threads == 1 { &alone } else { &apart };
        contestants.push(durable(settings, kind, how, feeds, style));
    };
    if outstanding == 1 {
        for kind in ENGINES {
            add(kind, "one writer", event_loop);
        }
    } else {
        add(Kind::Strandline, "one thread, tickets", event_loop);
        for kind in ENGINES {
            add(kind, &threads_name, by_threads);
            add(kind, "one caller who gathers a batch", gathered);
        }
    }
    let columns = vec![
        Column::compared("appends/s"),
        Column::plain("p50 µs"),
        Column::plain("p99 µs"),
        Column::plain("call bytes per append"),
        Column::plain("device bytes per append"),
    ];
    alternate(
        settings,
        &format!("W2 durable append, {outstanding} outstanding, fdatasync"),
        columns,
        &contestants,
    )
}

fn durable<'w>(
    settings: &Settings,
    kind: Kind,
    how: &str,
    writers: &'w [Vec<Append<'w>>],
    style: Style,
) -> Contestant<'w> {
    let pace = Pace {
        window: style.window,
        together: true,
        durability: Durability::Synced,
        stop_after: Some(Duration::from_secs_f64((5.0 * settings.scale).max(0.5))),
        latencies: true,
    };
    let measure = Box::new(move |peer: &dyn Peer, dir: &Path| {
        let before = Written::now(dir)?;
        let feeds = writers
            .iter()
            .map(|own| {
                Box::new(own.chunks_exact(style.batch).cycle().map(Work::Appends)) as Feed<'_>
            })
            .collect();
        let outcome = drive::run(peer, feeds, pace)?;
        let [calls, device] =
            written_per_work(peer, dir, before, &outcome)?.map(|bytes| bytes / style.batch as f64);
        let rate = outcome.timeline_writes_per_second();
        Ok(vec![rate, outcome.latency_us(0.5), outcome.latency_us(0.99), calls, device])
    });
    Contestant { kind, how: how.to_owned(), copies: Copies::Inline, measure }
}
