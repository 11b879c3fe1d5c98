//! `strandline salvage`: saves what can be read of a damaged directory into a new one.

use std::path::{Path, PathBuf};

use clap::Args;
use strandline::Error;
use strandline_server::{FIRST_STORES, LostLedgers, MESSAGES_STORE, Messaging, MessagingOptions};

use super::{Outcome, Use, finding_line, open};
use crate::output::Output;

/// The arguments of the verb.
#[derive(Args)]
pub struct SalvageArguments {
    /// The damaged directory.
    dir: PathBuf,
    /// Directory for what is saved: new, or empty.
    target: PathBuf,
}

/// The ledgers of messaging that could not be saved completely, if messaging was used.
fn lost_ledgers(target: &Path) -> anyhow::Result<LostLedgers> {
    let engine = open(target, Use::Write, "stop it first")?;
    let is_used = match engine.store(MESSAGES_STORE) {
        // The directory is of an engine without the server.
        Err(Error::NoStore { .. }) => false,
        messages => !messages?.list(b"c/{", None, 1)?.is_empty(),
    };
    let lost = if is_used {
        Messaging::open(&engine, MessagingOptions::default())?.lost_ledgers()?
    } else {
        LostLedgers::default()
    };
    engine.close()?;
    Ok(lost)
}

/// Salvages the directory. Prints each damaged file, each timeline that lost entries, and the lost
/// ledgers of messaging.
pub fn run(arguments: &SalvageArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let saved = strandline::salvage(&arguments.dir, &arguments.target, &FIRST_STORES)?;
    for finding in &saved.findings {
        out.line(format_args!("{}", finding_line(finding)));
    }
    let lost = lost_ledgers(&arguments.target)?;
    for conv in &lost.conversations {
        out.line(format_args!(
            "ledger: the members of conversation {} are lost",
            conv.escape_ascii()
        ));
    }
    for conv in &lost.changes {
        out.line(format_args!(
            "ledger: edits and recalls of conversation {} are lost",
            conv.escape_ascii()
        ));
    }
    for user in &lost.users {
        out.line(format_args!(
            "ledger: conversations and marks of user {} are lost",
            user.escape_ascii()
        ));
    }
    if lost != LostLedgers::default() {
        out.line(format_args!(
            "strandline rebuild-members {} rebuilds the ledgers",
            arguments.target.display()
        ));
    }
    out.line(format_args!(
        "{} findings; saved {} timelines, {} entries",
        saved.findings.len(),
        saved.timelines,
        saved.entries
    ));
    Ok(if saved.findings.is_empty() { Outcome::Fine } else { Outcome::Damaged })
}
