//! The write-ahead log (P1, P3, P5): where a batch becomes durable.
//!
//! ```text
//!  wal-…07.log   [header | group | group | group 000000000]      full or superseded: readable up to where the next one starts
//!  wal-…08.log   [header | group | group 0000000000000000]      active: groups are written at `end`
//!  wal-next.tmp  [0000000000000000000000000000000000000000]      prepared: zeros, written and synced ahead of need
//! ```
//!
//! The log is one row of bytes, numbered by lsn, cut into files. A file says in its header at which
//! lsn it starts. What it holds beyond the start of the file after it is dead.
//!
//! Writing: a group is written at `end` and then synced; only then does `end` count as durable, and
//! the next group starts at the next sector. Files change in this order: (1) sync the old file, (2)
//! write the new one under another name and sync it, (3) rename it, (4) sync the directory. So a
//! file that has its name is whole, and everything before its start is durable.
//!
//! Reading: the files in order, each from its start to the start of the next. In the last file the
//! log ends at the first place where no valid group stands. That is a torn tail unless a valid
//! group further on carries a durable watermark above it, or the file is shorter than its header
//! says, or it is not the last file: then it is damage.
//!
//! The last group has none after it that carries a watermark above it, so its damage would pass for
//! a torn tail. When a second has passed without a group, one without records is written behind it
//! and synced, once; a new file vouches by its start as well.
//!
//! What was valid but above the watermark may sit in the page cache only (and after a failed sync
//! it stays there, clean, and is lost later). So recovery copies it into a new file before anything
//! is served; the new file starts at the watermark, which makes the old copy dead.
//!
//! Files are not recycled: old records with good checksums are how recycled logs go wrong. Zeros
//! are written ahead instead, because on common disks a sync into blocks that were written before
//! costs half of one that also moves the end of the file.
//!
//! It does not know: what a record means.

mod prepare;
mod reader;
mod writer;

use prepare::PREPARED_NAME;
pub use prepare::Preparer;
pub use reader::{
    Files, Tail, TornTail, WalFile, check_last, files, is_end_missing, is_file, replay,
};
pub use writer::{Wal, create};

use crate::ids::FileNumber;

/// The name of a log file.
pub fn file_name(number: FileNumber) -> String {
    format!("wal-{number:012}.log")
}

/// The name of a log file until all of it is durable.
fn temporary_name(number: FileNumber) -> String {
    format!("{}.tmp", file_name(number))
}

/// Whether a name is that of a log file that is not finished.
pub fn is_temporary(name: &str) -> bool {
    name == PREPARED_NAME || name.strip_suffix(".tmp").is_some_and(|stem| is_file(stem).is_some())
}
