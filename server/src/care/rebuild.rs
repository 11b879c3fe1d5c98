//! `strandline rebuild-members`: rebuilds lost ledgers of messaging from what is left.

use std::path::PathBuf;

use clap::Args;
use strandline_server::{Messaging, MessagingOptions};

use super::{Outcome, Use, open};
use crate::output::Output;

/// The arguments of the verb.
#[derive(Args)]
pub struct RebuildArguments {
    /// Directory of the data.
    dir: PathBuf,
}

/// Rebuilds, and prints a line for each conversation and each user.
pub fn run(arguments: &RebuildArguments, out: &mut Output) -> anyhow::Result<Outcome> {
    let engine = open(&arguments.dir, Use::Write, "stop it first")?;
    let messaging = Messaging::open(&engine, MessagingOptions::default())?;
    let lost = messaging.rebuild(|rebuilt| {
        let doubt = if rebuilt.is_uncertain { "; some of its events cannot be read" } else { "" };
        out.line(format_args!(
            "conversation {}: {} members{doubt}",
            rebuilt.conv.escape_ascii(),
            rebuilt.members
        ));
    })?;
    for conv in &lost.changes {
        out.line(format_args!("conversation {}: edits and recalls", conv.escape_ascii()));
    }
    for user in &lost.users {
        out.line(format_args!(
            "user {}: conversations; marks as far as they can be read",
            user.escape_ascii()
        ));
    }
    out.line(format_args!(
        "rebuilt {} conversations and {} users",
        lost.conversations.len(),
        lost.users.len()
    ));
    drop(messaging);
    engine.close()?;
    Ok(Outcome::Fine)
}
