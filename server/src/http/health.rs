//! Whether the server lives, and whether clients should be sent to it. Each negative answer is a
//! sentence for the person who looks.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::shared::Shared;

/// How long an event loop may be busy with one step.
const LOOP_PATIENCE: Duration = Duration::from_secs(5);

/// Whether each event loop still runs tasks. If one does not, only a restart helps.
pub async fn liveness(loops: &[Handle]) -> Result<(), String> {
    let asked: Vec<_> = loops.iter().map(|handle| handle.spawn(async {})).collect();
    for (number, answer) in asked.into_iter().enumerate() {
        match timeout(LOOP_PATIENCE, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(format!("event loop {number} has ended")),
            Err(_) => {
                let seconds = LOOP_PATIENCE.as_secs();
                return Err(format!("event loop {number} has not answered for {seconds} s"));
            }
        }
    }
    Ok(())
}

/// Whether the server takes reads and writes.
pub fn readiness(shared: &Shared) -> Result<(), String> {
    let stats = shared.engine.stats();
    let reasons = [
        (shared.is_stopping(), "the server is stopping"),
        (stats.poisoned, "a write or fsync failed: check the disk, then restart"),
        (
            shared.read_only,
            "the server is read-only: it serves what is intact, and takes no writes",
        ),
        (
            stats.reserve_is_out,
            "the disk is full: appends wait until trims, expiry or you have made room",
        ),
    ];
    let found = reasons.into_iter().find(|(holds, _)| *holds);
    found.map_or(Ok(()), |(_, reason)| Err(reason.to_owned()))
}
