//! `strandline restore`: makes a directory for a server from a backup.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::output::Output;

/// The arguments of the verb.
#[derive(Args)]
pub struct RestoreArguments {
    /// Directory of the backup.
    backup: PathBuf,
    /// Directory of the data: new, or empty.
    target: PathBuf,
}

/// Copies the backup and gives the copy another history.
pub fn run(arguments: &RestoreArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let made = strandline::restore(&arguments.backup, &arguments.target)?;
    out.line(format_args!("{} files, {} bytes, {} entries", made.files, made.bytes, made.entries));
    Ok(Outcome::Fine)
}
