//! `strandline backup`: makes a consistent copy of a directory on which no server runs.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, Use, open};
use crate::output::Output;

/// The arguments of the verb.
#[derive(Args)]
pub struct BackupArguments {
    /// Directory of the data.
    dir: PathBuf,
    /// Directory of the backup: new, or empty.
    target: PathBuf,
}

/// Opens the directory as a server does, which replays the log after a crash, and copies it.
pub fn run(arguments: &BackupArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Write, "ask a server for TL.BACKUP")?;
    let made = engine.backup(&arguments.target)?;
    engine.close()?;
    out.line(format_args!("{} files, {} bytes, {} entries", made.files, made.bytes, made.entries));
    Ok(Outcome::Fine)
}
