//! Segments: sorted and immutable, each in two files (P1, P5, P6, P7).
//!
//! ```text
//!  segment-…12.data    header, bodies block × n, runs block × m
//!  segment-…12.index   header, (index page | id page | table page) × p, footer
//!
//!  look-up: root, in memory ──> table page with filters ─(maybe)─> index page
//!               ─[run table]─> runs block(s) ──> bodies block(s)
//! ```
//!
//! A segment holds, for one store and one time partition, the content of a part of the log. The
//! data file is written and synced before the index, and the index before the manifest names them.
//! There are two files because the index outlives the data: when a partition expires, the data file
//! is unlinked, and the index still has each timeline's last sequence. If a store keeps copies, a
//! file has a second copy, with `.twin` after its name.
//!
//! Every block is verified when it is read from the disk, and then kept, decoded, in a cache with
//! one budget for all segments. The only other memory is the roots of three tables, about three
//! bytes for a thousand timelines. Files are removed when the last reader has released them.
//!
//! A segment that cannot be opened is kept as damaged: look-ups of names in its range fail with the
//! file and the position, all others are served.
//!
//! This folder does not know memtables, the log, or which other segments exist.

mod blocks;
mod cache;
mod check;
mod damage;
mod expiry_histogram;
mod goes;
mod mend;
mod pages;
mod parts;
mod reader;
mod remains;
mod run_list;
mod run_offers;
mod run_times;
mod runs;
mod scan;
mod table;
mod walk;
mod writer;

pub use cache::BlockCache;
pub use mend::{CopyDamage, Twins};
pub use reader::Segment;
pub use remains::{Left, ReadablePart, Remains, SegmentFiles};
pub use scan::{FoundId, IdScan, SegmentScan};
pub use walk::BlockWalk;
pub use writer::{SegmentPlan, SegmentWriter, compression};

use crate::format::header::FileKind;
use crate::format::manifest::SegmentRecord;
use crate::ids::FileNumber;

/// The name of a segment's data file.
pub fn data_name(number: FileNumber) -> String {
    format!("segment-{number:012}.data")
}

/// The name of a segment's index file.
pub fn index_name(number: FileNumber) -> String {
    format!("segment-{number:012}.index")
}

/// The name of the second copy of a file.
pub fn twin_of(name: &str) -> String {
    format!("{name}{TWIN}")
}

/// The suffix of the name of a second copy.
const TWIN: &str = ".twin";

/// The names of a segment's files.
pub fn names(record: &SegmentRecord) -> Vec<String> {
    let data = record.has_data().then(|| (data_name(record.number), FileKind::Data));
    let mut names = Vec::with_capacity(4);
    for (name, kind) in data.into_iter().chain([(index_name(record.number), FileKind::Index)]) {
        let twin = (record.copies.of(kind) > 1).then(|| twin_of(&name));
        names.extend([Some(name), twin].into_iter().flatten());
    }
    names
}

/// All names that files of a segment can have.
pub fn all_names(number: FileNumber) -> [String; 4] {
    let (data, index) = (data_name(number), index_name(number));
    [twin_of(&data), twin_of(&index), data, index]
}

/// The segment number in the name of any of the files.
pub fn is_file(name: &str) -> Option<FileNumber> {
    let original = name.strip_suffix(TWIN).unwrap_or(name);
    let (number, _kind) = original.strip_prefix("segment-")?.split_once('.')?;
    let number = number.parse().ok()?;
    (data_name(number) == original || index_name(number) == original).then_some(number)
}
