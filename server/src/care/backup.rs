//! `strandline backup`: a consistent copy of a directory that no server runs on.

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::{Outcome, Use, open};

/// What to copy where to.
#[derive(Args)]
pub struct Arguments {
    /// Directory of the data.
    dir: PathBuf,
    /// Directory of the backup: new, or empty.
    target: PathBuf,
}

/// Opens the directory as a server does, which takes in what a crash left in the log, and copies
/// it.
pub fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Write, "ask a server for TL.BACKUP")?;
    let made = engine.backup(&arguments.target)?;
    engine.close()?;
    out.line(format_args!("{} files, {} bytes, {} entries", made.files, made.bytes, made.entries));
    Ok(Outcome::Fine)
}
