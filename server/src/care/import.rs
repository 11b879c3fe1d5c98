//! `strandline import`: the entries of a dump, appended with their sequences.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use strandline::{Batch, Engine, Error, Store, Ticket};

use super::line::Line;
use super::output::Output;
use super::{Outcome, open, progress};

/// So many appends are under way at once: they share syncs.
const UNDER_WAY: usize = 4096;

/// What is told with the line that ended it.
const BEFORE_IT: &str = "the lines before it are imported";

/// Where to import to.
#[derive(Args)]
pub struct Arguments {
    /// Directory of the data, made if there is none.
    dir: PathBuf,
}

/// Imports until the end of the input or the first line that cannot be taken; lines before it are in.
pub fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, false, "stop it first, or let it end")?;
    let bar = progress::count("import");
    let mut import = Import { engine: &engine, stores: HashMap::new(), under_way: VecDeque::new() };
    let mut lines = 0;
    let taken: anyhow::Result<()> = io::stdin().lock().lines().try_for_each(|line| {
        lines += 1;
        let in_line = || format!("line {lines}: {BEFORE_IT}");
        let line = line.with_context(in_line)?;
        if !line.trim().is_empty() {
            import.line(&line, lines).with_context(in_line)?;
        }
        if import.under_way.len() >= UNDER_WAY {
            import.wait()?;
            bar.inc(1);
        }
        Ok(())
    });
    // A line further up that fails only now is the first one.
    while !import.under_way.is_empty() {
        import.wait()?;
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
    /// The line and the ticket of each append that is not known to be durable.
    under_way: VecDeque<(u64, Ticket)>,
}

impl Import<'_> {
    fn line(&mut self, line: &str, number: u64) -> anyhow::Result<()> {
        let line: Line = serde_json::from_str(line)?;
        let store = self.store(&line.store)?;
        let batch = Batch::new().append(&store, &line.timeline()?, &line.body()?).sequence(line.sequence);
        self.under_way.push_back((number, self.engine.submit(batch)?));
        Ok(())
    }

    fn store(&mut self, name: &str) -> Result<Store, Error> {
        if let Some(store) = self.stores.get(name) {
            return Ok(store.clone());
        }
        let store = match self.engine.store(name) {
            Err(Error::NoStore { .. }) => self.engine.create_store(name, 0)?,
            found => found?,
        };
        self.stores.insert(name.into(), store.clone());
        Ok(store)
    }

    /// Waits for the oldest append.
    fn wait(&mut self) -> anyhow::Result<()> {
        if let Some((line, ticket)) = self.under_way.pop_front() {
            ticket.wait().with_context(|| format!("line {line}: {BEFORE_IT}"))?;
        }
        Ok(())
    }
}
