//! `strandline verify`: everything is read and checked; each finding is a line.

use std::path::PathBuf;

use clap::Args;
use strandline::Verification;

use super::{Outcome, finding_line, open, progress};

/// What to verify.
#[derive(Args)]
pub struct Arguments {
    /// Directory of the data.
    dir: PathBuf,
}

/// Verifies a directory that is opened read-only.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, true, "ask a server for TL.VERIFY")?;
    let bar = progress::bytes("verify");
    let found = engine.verify(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let outcome = print(&found);
    if !found.findings.is_empty() {
        println!(
            "next: strandline repair {} mends what has a good second copy; for the rest restore a backup, or use strandline salvage",
            arguments.dir.display()
        );
    }
    Ok(outcome)
}

/// Each finding, and the sums.
pub(super) fn print(found: &Verification) -> Outcome {
    for finding in &found.findings {
        println!("{}", finding_line(finding));
    }
    if found.left_off > 0 {
        println!("and {} more", found.left_off);
    }
    println!(
        "{} findings in {} files of {} bytes; {} timelines, {} entries in segments",
        found.findings.len() as u64 + found.left_off,
        found.files,
        found.bytes,
        found.timelines,
        found.entries
    );
    if found.findings.is_empty() {
        return Outcome::Fine;
    }
    Outcome::Damaged
}
