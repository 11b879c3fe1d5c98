//! The format on the disk: the document that describes it, and the directories that earlier builds
//! wrote; and the document that lists what can be measured.

mod compat;
mod format_doc;
mod measures_doc;
mod rendered;
#[path = "../two_stores/mod.rs"]
mod two_stores;
