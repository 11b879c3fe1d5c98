//! The write-ahead log (P1, P3, P5): a batch is durable when its group is synced here.
//!
//! ```text
//!  wal-…07.log   [header | group | group | group 000000000]   full or superseded: read up to
//!                                                             the start of the next file
//!  wal-…08.log   [header | group | group 0000000000000000]   active: groups are written at `end`
//!  wal-next.tmp  [0000000000000000000000000000000000000000]   the next file, ready ahead of need:
//!                                                             zeros, or an old file (`reuse`)
//! ```
//!
//! The log is one sequence of bytes, numbered by lsn and cut into files. A file's header contains
//! the lsn at which the file starts. The content of a file beyond the start of the next file is
//! dead.
//!
//! Writing: a group is written at `end` and then synced; only then is everything below `end`
//! durable, and the next group starts at the next sector. The change to the next file has these
//! steps, in this order:
//! 1. sync the old file;
//! 2. write the new file under another name and sync it;
//! 3. rename it;
//! 4. sync the directory.
//!
//! So a file that has its final name is complete, and everything before its start is durable.
//!
//! Reading: the files in order, each from its start to the start of the next. In the last file the
//! log ends at the first position without a valid group. The rest is a torn tail, except in these
//! cases, in which it is damage: a valid group after that position has a durable watermark above
//! the position; the file is shorter than its header says; the file is not the last.
//!
//! No group after the last one has a watermark above it, so damage of the last group would pass for
//! a torn tail. Therefore, when a second has passed without a group, one empty group is written
//! after it and synced; the start of a new file proves the same.
//!
//! Groups that are valid but above the watermark may be in the page cache only (after a failed sync
//! they stay there, clean, and are lost later). So recovery copies them into a new file before
//! anything is served; the new file starts at the watermark, which makes the old copy dead.
//!
//! On common disks a sync into blocks that were written before costs half of a sync that also moves
//! the end of the file. So zeros are written ahead for the first files, and later ones are files
//! that are not needed any more. Old groups with valid checksums are the usual failure of reused
//! logs: `reuse` says why none passes for a new one here.
//!
//! This folder does not know the meaning of a record.

mod prepare;
mod reader;
mod reuse;
mod writer;

pub use prepare::Preparer;
pub use reader::{
    Files, ReadGroup, RecordTaker, Tail, TornTail, WalFile, check_last, damaged_record, files,
    is_end_missing, is_file, read, replay,
};
pub use writer::{Unnamed, Wal};

use crate::ids::FileNumber;

/// The name of a log file.
pub fn file_name(number: FileNumber) -> String {
    format!("wal-{number:012}.log")
}

/// The name of the next log file until it is used. An open removes a leftover.
const NEXT_NAME: &str = "wal-next.tmp";

/// The name of a log file until all of it is durable.
fn temporary_name(number: FileNumber) -> String {
    format!("{}.tmp", file_name(number))
}

/// Whether a name is that of an unfinished log file.
pub fn is_temporary(name: &str) -> bool {
    name == NEXT_NAME || name.strip_suffix(".tmp").is_some_and(|stem| is_file(stem).is_some())
}
