//! `strandline verify`: reads and checks everything, and prints a line for each finding.

use std::path::PathBuf;

use clap::Args;
use strandline::Verification;

use super::{Outcome, Use, finding_line, open};
use crate::output::Output;
use crate::progress;

/// The arguments of the verb.
#[derive(Args)]
pub struct VerifyArguments {
    /// Directory of the data.
    dir: PathBuf,
}

/// Opens the directory read-only and verifies it.
pub fn run(arguments: &VerifyArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Read, "ask a server for TL.VERIFY")?;
    let bar = progress::bytes("verify");
    let found = engine.verify(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let outcome = print(&found, out);
    if !found.findings.is_empty() {
        if found.findings.iter().any(|finding| finding.is_mendable) {
            out.line(format_args!(
                "next: strandline repair {} repairs what has a good second copy; for the rest, \
                 restore a backup, or use strandline salvage",
                arguments.dir.display()
            ));
        } else {
            out.line(format_args!("{}", crate::AFTER_DAMAGE));
        }
    }
    Ok(outcome)
}

/// Prints each finding, and the totals.
pub(super) fn print(found: &Verification, out: &mut Output) -> Outcome {
    for finding in &found.findings {
        out.line(format_args!("{}", finding_line(finding)));
    }
    if found.left_off > 0 {
        out.line(format_args!("and {} more", found.left_off));
    }
    out.line(format_args!(
        "{} findings in {} files of {} bytes; {} timelines, {} entries in segments",
        found.findings.len() as u64 + found.left_off,
        found.files,
        found.bytes,
        found.timelines,
        found.entries
    ));
    if found.findings.is_empty() { Outcome::Fine } else { Outcome::Damaged }
}
