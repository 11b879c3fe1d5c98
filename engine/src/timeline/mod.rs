//! The parts of a timeline that all places share: its end and floor, its changes, and the
//! collection of entries by a read from the places that hold it.
//!
//! ```text
//!  end       last sequence, floor, times            changes   removed ranges, edits, in memory
//!  sight     the entries that a read may see        overlay   changes of older places, looked up
//!  collect   entries and lost ranges of a page                around the position of a read
//!  bodies    the memory of a page's bodies          key       a timeline with its hash
//! ```
//!
//! This folder does not know memtables, segments or files.

mod bodies;
mod changes;
mod collect;
mod end;
mod key;
pub(crate) mod overlay;
mod sight;

pub(crate) use bodies::Offered;
pub use bodies::PlainEntry;
pub(crate) use changes::{Changes, Edit};
pub(crate) use collect::{Collected, Collector, Own};
pub(crate) use end::Span;
pub use end::{End, Floor, Times};
pub(crate) use key::{Key, check_name};
pub(crate) use overlay::{
    EditSides, Layer, NewBody, Overlay, RemovedSides, Sides, edit_sides, removed_sides, sides,
};
pub(crate) use sight::{Lifetimes, Sight, Wanted};
