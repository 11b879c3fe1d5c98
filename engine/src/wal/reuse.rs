//! The reuse of a log file (P1, P3): its blocks are allocated and were written, so that a sync of
//! new groups is as fast as into zeros that were written ahead, and costs no bytes.
//!
//! The steps, in this order:
//! 1. the manifest with a checkpoint above the file is durable: whatever happens to the file,
//!    nothing is lost (the caller);
//! 2. rename it to `wal-next.tmp`, and sync the directory: no crash brings the old name back, under
//!    which an open would expect the old header;
//! 3. later, write the new header, sync, rename, sync the directory (`writer`), as for any next
//!    file.
//!
//! A crash before the last step leaves `wal-next.tmp`, which an open removes, or the old name above
//! an unchanged file below the checkpoint.
//!
//! The file still has old groups. None of them is taken for a new one: a group is valid only at its
//! own lsn, which its header has and which is the seed of all its checksums. A file is reused only
//! as a later file, and the first lsn of a later file is higher (`Wal` continues at the end of the
//! log). So at each place in the file the lsn is higher than that of any byte that was written
//! there before. That holds across crashes too: what an earlier life wrote stands at the places
//! that belong to the first lsn of its time.

use super::{NEXT_NAME, file_name};
use crate::error::Result;
use crate::ids::FileNumber;
use crate::vfs::Dir;

/// Step 2 of the heading.
pub fn take_over(dir: &Dir, number: FileNumber) -> Result<()> {
    dir.rename(&file_name(number), NEXT_NAME)?;
    dir.sync()
}
