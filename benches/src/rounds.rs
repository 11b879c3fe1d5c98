//! Rounds: A B C A B C, each in a fresh directory.
//!
//! The speed of a shared machine changes from minute to minute, so contestants alternate and every
//! ratio is taken inside a round. The file system is synced between contestants: the fsyncs of one
//! must not pay for the pages of the one before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::disk;
use crate::peers::{Copies, Kind, Peer};
use crate::report::{Column, Row, Table};

/// The arguments of a comparison.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engines.
    pub peers: Vec<Kind>,
    /// The number of rounds.
    pub rounds: usize,
    /// The amount of work, 1 being that of docs/benchmarks.md.
    pub scale: f64,
    /// The parent of the temporary directories: on the disk that is to be measured.
    pub dir: PathBuf,
}

impl Settings {
    /// `full` at this scale, and at least `least`.
    pub fn count(&self, full: usize, least: usize) -> usize {
        // A scale is above 0: main has checked it.
        #[allow(clippy::cast_sign_loss, reason = "neither factor is negative")]
        let scaled = (full as f64 * self.scale) as usize;
        scaled.max(least)
    }
}

/// Measures an open engine in its directory: one figure per column.
pub type Measure<'w> = Box<dyn Fn(&dyn Peer, &Path) -> Result<Vec<f64>> + 'w>;

/// One line of a table, to be measured in each round.
pub struct Contestant<'w> {
    /// The engine.
    pub kind: Kind,
    /// The difference from another line of the same engine.
    pub how: String,
    /// How it stores a fan-out.
    pub copies: Copies,
    /// The measurement.
    pub measure: Measure<'w>,
}

/// Runs the contestants whose engines take part, in turns.
pub fn alternate(
    settings: &Settings,
    title: &str,
    columns: Vec<Column>,
    contestants: &[Contestant<'_>],
) -> Result<Table> {
    let taking_part: Vec<&Contestant<'_>> =
        contestants.iter().filter(|contestant| settings.peers.contains(&contestant.kind)).collect();
    let mut rows: Vec<Row> = taking_part
        .iter()
        .map(|contestant| Row {
            label: format!("{}, {}", contestant.kind.name(), contestant.how),
            rounds: Vec::new(),
        })
        .collect();
    for round in 1..=settings.rounds {
        for (contestant, row) in taking_part.iter().zip(&mut rows) {
            eprintln!("{title}: round {round} of {}: {}", settings.rounds, row.label);
            let figures = measure_once(settings, contestant)
                .with_context(|| format!("{title}: {}", row.label))?;
            ensure!(figures.len() == columns.len(), "{title}: a figure a column");
            row.rounds.push(figures);
        }
    }
    Ok(Table { title: title.to_owned(), columns, rows })
}

fn measure_once(settings: &Settings, contestant: &Contestant<'_>) -> Result<Vec<f64>> {
    disk::settle()?;
    let dir = tempfile::Builder::new().prefix("strandline-bench-").tempdir_in(&settings.dir)?;
    let peer = contestant.kind.open(dir.path(), contestant.copies)?;
    let figures = (contestant.measure)(peer.as_ref(), dir.path())?;
    drop(peer);
    Ok(figures)
}
