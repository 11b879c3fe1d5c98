//! `strandline repair`: checks everything, and restores what is damaged in one of two copies from
//! the other.

use std::path::PathBuf;

use clap::Args;

use super::verify::print;
use super::{Outcome, Use, open};
use crate::output::Output;
use crate::progress;

/// The arguments of the verb.
#[derive(Args)]
pub struct RepairArguments {
    /// Directory of the data.
    dir: PathBuf,
}

/// Opens the directory as a server does, which replays the log after a crash, checks it, and
/// repairs what has a good copy.
pub fn run(arguments: &RepairArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Write, "TL.VERIFY repairs it there")?;
    let bar = progress::bytes("repair");
    let mut found = engine.verify(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    // Also makes copies of stores for which there was no space before.
    found.mended.extend(engine.repair()?.mended);
    engine.close()?;
    let outcome = print(&found, out);
    for name in &found.mended {
        out.line(format_args!("mended {}", arguments.dir.join(name).display()));
    }
    out.line(format_args!("{} files mended from their other copies", found.mended.len()));
    if !found.findings.is_empty() {
        out.line(format_args!(
            "next: run strandline verify {}; for damage that remains, restore a backup, or use \
             strandline salvage",
            arguments.dir.display()
        ));
    }
    Ok(outcome)
}
