//! Workloads in rounds: A B C A B C, each in a fresh directory.
//!
//! A workload makes its data, names its contestants, and measures one of them at a time. Nothing in
//! it depends on the engine: Strandline and its peers run the same code. docs/workloads.md shows
//! how to write one.
//!
//! The speed of a shared machine changes from minute to minute, so contestants alternate and every
//! ratio is taken inside a round. The file system is synced between contestants: the fsyncs of one
//! must not pay for the pages of the one before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tempfile::TempDir;

use crate::charts;
use crate::disk;
use crate::peers::{BUDGET_BYTES, Copies, Kind, Peer};
use crate::report::{Column, Row, Table};

/// The arguments of a comparison, as options of the command line.
#[derive(Clone, Debug, Parser)]
pub struct Settings {
    /// The engines to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::built())]
    pub peers: Vec<Kind>,
    /// The number of runs of each contestant.
    #[arg(long, default_value_t = 3, value_parser = rounds)]
    pub rounds: usize,
    /// The amount of work: 1 is the amount that the documentation describes.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub scale: f64,
    /// The parent of the temporary directories: a directory on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Also draw the compared columns of each table, as SVG files in this directory.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
}

fn rounds(text: &str) -> Result<usize> {
    let rounds = text.parse()?;
    ensure!(rounds > 0, "at least one round");
    Ok(rounds)
}

fn scale(text: &str) -> Result<f64> {
    let scale = text.parse()?;
    ensure!(scale > 0.0 && f64::is_finite(scale), "a scale above 0");
    Ok(scale)
}

impl Settings {
    /// Reads the command line of a program that takes no other options. Prints the usage and ends
    /// the process if it is invalid.
    pub fn from_command_line() -> Settings {
        Settings::parse()
    }

    /// Prints a table on standard output, and draws it if asked to.
    pub fn show(&self, table: &Table) -> Result<()> {
        println!("{table}");
        if let Some(dir) = &self.charts {
            for file in charts::draw(table, dir)? {
                eprintln!("{title}: {file}", title = table.title, file = file.display());
            }
        }
        Ok(())
    }

    /// A new directory on the disk that is measured, on which nothing is waiting to be written.
    pub(crate) fn fresh_dir(&self) -> Result<TempDir> {
        disk::settle()?;
        Ok(tempfile::Builder::new().prefix("strandline-bench-").tempdir_in(&self.dir)?)
    }

    /// `full` at this scale, and at least `least`.
    pub fn count(&self, full: usize, least: usize) -> usize {
        // A scale is above 0: the command line has checked it.
        #[allow(clippy::cast_sign_loss, reason = "neither factor is negative")]
        let scaled = (full as f64 * self.scale) as usize;
        scaled.max(least)
    }
}

/// An engine, and how the workload calls it: one line of a table.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// The engine.
    pub kind: Kind,
    /// The difference from another line of the same engine.
    pub how: String,
    /// How it stores a fan-out.
    pub copies: Copies,
    /// Its memory budget, as far as it has one (`Kind::open_within`).
    pub budget_bytes: usize,
    /// Threads that call the engine. Those of a peer must write to disjoint timelines.
    pub threads: usize,
    /// Calls in flight per thread. Only Strandline can have more than one: the calls of a peer
    /// block.
    pub window: usize,
    /// Appends per call.
    pub batch: usize,
}

impl Contestant {
    /// One thread, one append per call, one call in flight.
    pub fn new(kind: Kind, how: impl Into<String>) -> Contestant {
        Contestant {
            kind,
            how: how.into(),
            copies: Copies::Inline,
            budget_bytes: BUDGET_BYTES,
            threads: 1,
            window: 1,
            batch: 1,
        }
    }

    /// Opens its engine.
    pub(crate) fn open(&self, dir: &Path) -> Result<Box<dyn Peer>> {
        self.kind.open_within(dir, self.copies, self.budget_bytes)
    }

    pub(crate) fn label(&self) -> String {
        format!("{}, {}", self.kind.name(), self.how)
    }
}

/// Something to measure, for Strandline and its peers alike. One table shows it.
pub trait Workload {
    /// The title of the table.
    fn title(&self) -> String;

    /// The columns of the table: the figures that `measure` returns, in their order.
    fn columns(&self) -> Vec<Column>;

    /// The lines of the table. Ratios are relative to the first. Default: each engine of this
    /// build, with one caller that waits for each answer.
    fn contestants(&self) -> Vec<Contestant> {
        let waiting = |kind| Contestant::new(kind, "waits for each");
        Kind::built().into_iter().map(waiting).collect()
    }

    /// Measures a contestant once: `peer` was just opened in `dir`, which was empty.
    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, dir: &Path) -> Result<Vec<f64>>;
}

/// Runs a workload's contestants whose engines take part, in turns.
pub fn alternate(settings: &Settings, workload: &dyn Workload) -> Result<Table> {
    let mut contestants = workload.contestants();
    contestants.retain(|contestant| settings.peers.contains(&contestant.kind));
    let labels = contestants.iter().map(Contestant::label).collect();
    in_turns(settings, (workload.title(), workload.columns()), labels, |place| {
        measure_once(settings, workload, &contestants[place])
    })
}

/// Measures the lines of a table in turns: `measure` is called with the place of a line.
pub(crate) fn in_turns(
    settings: &Settings,
    (title, columns): (String, Vec<Column>),
    labels: Vec<String>,
    measure: impl Fn(usize) -> Result<Vec<f64>>,
) -> Result<Table> {
    let row = |label| Row { label, rounds: Vec::new() };
    let mut rows: Vec<Row> = labels.into_iter().map(row).collect();
    for round in 1..=settings.rounds {
        for (place, row) in rows.iter_mut().enumerate() {
            eprintln!("{title}: round {round} of {}: {}", settings.rounds, row.label);
            let figures = measure(place).with_context(|| format!("{title}: {}", row.label))?;
            ensure!(figures.len() == columns.len(), "{title}: a figure a column");
            row.rounds.push(figures);
        }
    }
    Ok(Table { title, columns, rows })
}

fn measure_once(
    settings: &Settings,
    workload: &dyn Workload,
    contestant: &Contestant,
) -> Result<Vec<f64>> {
    let dir = settings.fresh_dir()?;
    let peer = contestant.open(dir.path())?;
    workload.measure(contestant, peer.as_ref(), dir.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Two lines for Strandline, which record the order of their runs.
    #[derive(Default)]
    struct Recorded {
        runs: RefCell<Vec<String>>,
        missing: bool,
    }

    impl Workload for Recorded {
        fn title(&self) -> String {
            "recorded".to_owned()
        }

        fn columns(&self) -> Vec<Column> {
            vec![Column::plain("files before")]
        }

        fn contestants(&self) -> Vec<Contestant> {
            [(Kind::Strandline, "a"), (Kind::Fjall, "left out"), (Kind::Strandline, "b")]
                .map(|(kind, how)| Contestant::new(kind, how))
                .into()
        }

        fn measure(&self, contestant: &Contestant, _: &dyn Peer, dir: &Path) -> Result<Vec<f64>> {
            self.runs.borrow_mut().push(contestant.how.clone());
            let marked = dir.join("mark").exists();
            std::fs::write(dir.join("mark"), b"")?;
            Ok(if self.missing { Vec::new() } else { vec![f64::from(u8::from(marked))] })
        }
    }

    fn settings(dir: &Path) -> Settings {
        let dir = dir.to_owned();
        Settings { peers: vec![Kind::Strandline], rounds: 2, scale: 1.0, dir, charts: None }
    }

    #[test]
    fn contestants_take_turns_in_fresh_directories() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let workload = Recorded::default();
        let table = alternate(&settings(dir.path()), &workload).expect("a table");
        assert_eq!(*workload.runs.borrow(), ["a", "b", "a", "b"]);
        let labels: Vec<&str> = table.rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!(labels, ["strandline, a", "strandline, b"]);
        assert!(table.rows.iter().all(|row| row.rounds == [[0.0], [0.0]]));
    }

    #[test]
    fn a_missing_figure_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let workload = Recorded { missing: true, ..Recorded::default() };
        let error = alternate(&settings(dir.path()), &workload).expect_err("no figure");
        assert_eq!(error.to_string(), "recorded: a figure a column");
    }

    #[test]
    fn a_command_line_without_work_is_refused() {
        for refused in
            [["bench", "--scale", "0"], ["bench", "--scale", "inf"], ["bench", "--rounds", "0"]]
        {
            assert!(Settings::try_parse_from(refused).is_err(), "{refused:?}");
        }
        let settings = Settings::try_parse_from(["bench", "--scale", "0.5"]).expect("settings");
        assert_eq!((settings.count(10, 1), settings.count(10, 7)), (5, 7));
        assert_eq!(settings.peers, Kind::built());
    }
}
