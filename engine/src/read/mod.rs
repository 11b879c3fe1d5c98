//! The read path: from a view to pages, and to the list of names.
//!
//! ```text
//!  reading   a timeline in a view            page    entries after a cursor, ranges
//!  places    where a timeline is stored      facts   its end, one entry, counts, ids
//!  walk      from the newest place down      list    names of timelines
//! ```

mod facts;
pub mod list;
pub mod page;
mod places;
pub mod reading;
mod walk;

pub use reading::Reading;
