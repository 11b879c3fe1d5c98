//! wip
#![allow(missing_docs)]
pub mod clock; pub mod entry; pub mod error; pub mod format; pub mod ids; pub mod options; pub mod vfs;
