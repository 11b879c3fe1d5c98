//! The report of an open, for the caller and for the diagnostic log. Its constructor also settles
//! the stores with relaxed durability in the manifest's state (`write/relaxed.rs`).
//!
//! This file does not know how a directory is opened.

use crate::format::manifest::Live;
use crate::ids::{BootId, Lsn};
use crate::wal::{Tail, TornTail};
use crate::write::relaxed;

/// The results of an open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The number of entries that were read from the log; those of dropped stores are not counted,
    /// those that a later record removes are.
    pub entries: u64,
    /// The number of bytes at the end of the log that were not a complete group and were left out:
    /// a crash interrupted their write, or the last group is damaged. Zeros at the very end are not
    /// counted.
    pub torn_tail_bytes: u64,
    /// The stores that began another epoch, or after a read-only open would begin one, because a
    /// power cut may have lost visible entries; see [`Store::epoch`](crate::Store::epoch).
    pub new_epochs: Vec<String>,
}

impl Recovery {
    /// The report for a log that was replayed in `boot`; `live` is updated to the state after it.
    pub fn new(entries: u64, from: Lsn, tail: &Tail, live: &mut Live, boot: BootId) -> Recovery {
        if entries > 0 {
            tracing::info!(entries, %from, to = %tail.end, "the log was replayed");
        }
        if let Some(TornTail { path, offset, bytes }) = &tail.torn {
            tracing::warn!(
                file = %path.display(),
                offset,
                bytes,
                "the log ends with bytes that are not a complete group: a crash interrupted their \
                 write, or the last group is damaged"
            );
        }
        let begun = relaxed::settle(live, boot);
        let begun = live.stores.iter().filter(|store| begun.contains(&store.id));
        let new_epochs: Vec<String> = begun.map(|store| store.name.clone()).collect();
        if !new_epochs.is_empty() {
            tracing::warn!(
                ?new_epochs,
                "a power cut may have taken entries that were read: these stores begin another \
                 epoch"
            );
        }
        Recovery {
            entries,
            torn_tail_bytes: tail.torn.as_ref().map_or(0, |torn| torn.bytes),
            new_epochs,
        }
    }
}
