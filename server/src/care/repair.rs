//! `strandline repair`: what is damaged in one of two copies is mended from the other; all else is
//! checked.

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::verify::print;
use super::{Outcome, Use, open, progress};

/// What to repair.
#[derive(Args)]
pub struct Arguments {
    /// Directory of the data.
    dir: PathBuf,
}

/// Opens the directory as a server does, which takes in what a crash left in the log, checks it,
/// and mends what can be.
pub fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Write, "TL.VERIFY mends it there")?;
    let bar = progress::bytes("repair");
    let mut found = engine.verify(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    // Copies that a store was to get, and that there was no space for.
    found.mended.extend(engine.repair()?.mended);
    engine.close()?;
    let outcome = print(&found, out);
    for name in &found.mended {
        out.line(format_args!("mended {}", arguments.dir.join(name).display()));
    }
    out.line(format_args!("{} files mended from their other copies", found.mended.len()));
    if !found.findings.is_empty() {
        out.line(format_args!(
            "next: run strandline verify {}; for damage that is still there restore a backup, or \
             use strandline salvage",
            arguments.dir.display()
        ));
    }
    Ok(outcome)
}
