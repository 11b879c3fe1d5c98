//! The format on the disk: the document that describes it, and the directories that earlier builds
//! wrote.

mod compat;
mod format_doc;
#[path = "../two_stores/mod.rs"]
mod two_stores;
