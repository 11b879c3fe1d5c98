//! `strandline import`: appends the entries of a dump with their sequences.
//!
//! Many appends are in flight at once. A sequence is checked before it is submitted, also against
//! the appends in flight, so that after a line that is refused none is imported. If an append fails
//! later, as on a full disk, appends after it may have succeeded.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use strandline::{Batch, Engine, Error, Store, Ticket};
use strandline_server::{forget_lines, is_mark};

use super::line::Line;
use super::{Outcome, Use, open};
use crate::output::Output;
use crate::progress;

/// The most appends in flight: they share fsyncs.
const UNDER_WAY: usize = 4096;

/// Added to the error of the line that ended the import.
const BEFORE_IT: &str = "the lines before it are imported";

/// The arguments of the verb.
#[derive(Args)]
pub struct ImportArguments {
    /// Directory of the data, created if it does not exist.
    dir: PathBuf,
}

/// Imports until the end of the input or the first line that is refused; the lines before it are
/// imported.
pub fn run(arguments: &ImportArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Fill, "stop it first, or let it finish")?;
    let bar = progress::count("import");
    forget_lines(&engine)?;
    let mut import = Import::new(&engine);
    let mut lines = 0;
    let taken: anyhow::Result<()> = io::stdin().lock().lines().try_for_each(|line| {
        lines += 1;
        let in_line = || format!("line {lines}: {BEFORE_IT}");
        let line = line.with_context(in_line)?;
        if !line.trim().is_empty() {
            import.line(&line, lines).with_context(in_line)?;
        }
        if import.under_way.len() >= UNDER_WAY {
            import.wait();
            bar.inc(1);
        }
        anyhow::ensure!(import.failed.is_none(), "{BEFORE_IT}");
        Ok(())
    });
    while !import.under_way.is_empty() {
        import.wait();
    }
    // If an earlier line failed later, it is the first one.
    if let Some(failed) = import.failed {
        return Err(failed);
    }
    taken?;
    bar.finish_and_clear();
    engine.close()?;
    out.line(format_args!("{lines} lines"));
    Ok(Outcome::Fine)
}

struct Import<'a> {
    engine: &'a Engine,
    stores: HashMap<String, Store>,
    /// The appends that are not known to be durable.
    under_way: VecDeque<UnderWay>,
    /// The number of a timeline's appends in flight, and the sequence of the last one.
    ends: HashMap<Place, (usize, u64)>,
    /// The error of the first append that failed.
    failed: Option<anyhow::Error>,
}

/// The names of a store and of a timeline.
type Place = (String, Vec<u8>);

struct UnderWay {
    line: u64,
    place: Place,
    ticket: Ticket,
}

impl<'a> Import<'a> {
    fn new(engine: &'a Engine) -> Import<'a> {
        Import {
            engine,
            stores: HashMap::new(),
            under_way: VecDeque::new(),
            ends: HashMap::new(),
            failed: None,
        }
    }

    fn line(&mut self, line: &str, number: u64) -> anyhow::Result<()> {
        let line: Line = serde_json::from_str(line)?;
        let store = self.store(&line.store)?;
        let (timeline, sequence) = (line.timeline()?, line.sequence);
        let batch = Batch::new().append(&store, &timeline, &line.body()?).sequence(sequence);
        let place = (line.store, timeline);
        if is_mark(&place.0, &place.1) {
            return Ok(());
        }
        let (under_way, last) = match self.ends.get(&place) {
            Some(known) => *known,
            None => (0, store.end(&place.1)?.0),
        };
        if sequence <= last {
            return Err(Error::SequenceOrder { last }.into());
        }
        let ticket = self.engine.submit(batch)?;
        self.ends.insert(place.clone(), (under_way + 1, sequence));
        self.under_way.push_back(UnderWay { line: number, place, ticket });
        Ok(())
    }

    fn store(&mut self, name: &str) -> Result<Store, Error> {
        if let Some(store) = self.stores.get(name) {
            return Ok(store.clone());
        }
        let store = self.engine.open_or_create_store(name, None)?;
        self.stores.insert(name.into(), store.clone());
        Ok(store)
    }

    /// Waits for the oldest append.
    fn wait(&mut self) {
        let Some(UnderWay { line, place, ticket }) = self.under_way.pop_front() else { return };
        if let Err(error) = ticket.wait() {
            let in_line =
                || anyhow::Error::from(error).context(format!("line {line}: {BEFORE_IT}"));
            self.failed.get_or_insert_with(in_line);
        }
        if let Entry::Occupied(mut end) = self.ends.entry(place) {
            end.get_mut().0 -= 1;
            if end.get().0 == 0 {
                end.remove();
            }
        }
    }
}
