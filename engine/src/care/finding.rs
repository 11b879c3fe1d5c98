//! A finding: something in a file that is not as it was written (P5). Verify, repair and salvage
//! report them.

use std::path::PathBuf;

use crate::error::Error;
use crate::ids::Sequence;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub at: u64,
    /// What does not hold there.
    pub what: String,
    /// The store and the timeline that it concerns, where that is known.
    pub timeline: Option<(String, Vec<u8>)>,
    /// The sequences among which entries may be lost, where that is known.
    pub sequences: Option<(Sequence, Sequence)>,
    /// Whether another copy is good there, so that it can be repaired.
    pub is_mendable: bool,
}

impl Finding {
    pub(crate) fn new(error: &Error) -> Finding {
        let (path, at, what) = match error {
            Error::Corrupt { path, offset, what } => (path.clone(), *offset, what.clone()),
            Error::Io { path, .. } => (path.clone(), 0, error.to_string()),
            _ => (PathBuf::new(), 0, error.to_string()),
        };
        Finding { path, at, what, timeline: None, sequences: None, is_mendable: false }
    }
}
