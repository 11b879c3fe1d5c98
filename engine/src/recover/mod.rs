//! Opening a directory: from files to a state that can be read and written.

pub mod open;
pub mod recovery;
pub mod replay;
