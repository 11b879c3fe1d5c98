//! `strandline salvage`: what can be read of a damaged directory becomes a new one.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, finding_line};

/// What to salvage where to.
#[derive(Args)]
pub struct Arguments {
    /// The damaged directory.
    dir: PathBuf,
    /// Directory of what is saved: new, or empty.
    target: PathBuf,
}

/// Salvages, and tells each damaged file and each timeline that lost something.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let saved = strandline::salvage(&arguments.dir, &arguments.target)?;
    for finding in &saved.findings {
        println!("{}", finding_line(finding));
    }
    println!(
        "{} findings; saved {} timelines, {} entries",
        saved.findings.len(),
        saved.timelines,
        saved.entries
    );
    Ok(if saved.findings.is_empty() { Outcome::Fine } else { Outcome::Damaged })
}
