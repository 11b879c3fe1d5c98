//! A finding: damage in a file (P5). Verify, repair and salvage report findings.

use std::path::PathBuf;

use crate::error::Error;
use crate::ids::Sequence;

/// Content of a file that differs from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The byte offset in the file.
    pub at: u64,
    /// A description of the damage.
    pub what: String,
    /// The affected store and timeline, if known.
    pub timeline: Option<(String, Vec<u8>)>,
    /// The sequences among which entries may be lost, if known.
    pub sequences: Option<(Sequence, Sequence)>,
    /// Whether another copy is valid there, so that it can be repaired.
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
