//! Waiting for timelines: commands with BLOCK.
//!
//! A blocked command first watches, then reads, then waits, so that no commit is missed between the
//! read and the wait.

use std::time::Duration;

use tokio::time::Instant;

use super::arguments::LONGEST_BLOCK;
#[cfg(doc)]
use super::row::Done;
use super::row::{Attempt, AttemptHere, Context, Flow, Waiting};
use crate::key::Key;
use crate::refusal::Refusal;

/// Replies at once, or when one of the keys advances.
pub fn wait(
    context: &mut Context<'_>,
    keys: Vec<Key>,
    block_ms: u64,
    mut attempt: AttemptHere,
) -> Result<Flow, Refusal> {
    watch_instead(context, keys)?;
    match attempt(context, false) {
        Ok(false) => Ok(waiting(block_ms, Attempt::Here(attempt))),
        answered => {
            context.connection.subscriptions.unblock();
            answered.map(|_| Flow::Done)
        }
    }
}

/// Waits for one of the keys. The session makes the first attempt at once.
pub fn watch(
    context: &mut Context<'_>,
    keys: Vec<Key>,
    block_ms: u64,
    attempt: Attempt,
) -> Result<Flow, Refusal> {
    watch_instead(context, keys)?;
    Ok(waiting(block_ms, attempt))
}

/// Waits for these timelines from now on. Returns whether they are not the ones watched before.
pub fn watch_instead(context: &mut Context<'_>, keys: Vec<Key>) -> Result<bool, Refusal> {
    let more = keys.len().saturating_sub(context.connection.subscriptions.blocked_on());
    if more > 0 {
        context.connection.check_room(context.shared, more)?;
    }
    context.connection.subscriptions.block(&context.shared.engine, keys)
}

/// Waits for timelines that are watched, or that the first attempt returns ([`Done::NotYetOn`]).
pub fn waiting(block_ms: u64, attempt: Attempt) -> Flow {
    let patience = Duration::from_millis(block_ms);
    let deadline = (block_ms > 0 && patience < LONGEST_BLOCK).then(|| Instant::now() + patience);
    // An attempt elsewhere has not been made yet.
    let woken = matches!(attempt, Attempt::Elsewhere(_));
    Flow::Wait(Waiting { attempt, deadline, woken })
}
