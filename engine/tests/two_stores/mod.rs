//! The two stores that most tests use: `messages`, whose entries live for ever, and `sync`, whose
//! entries live for a week. Their ids are 1 and 2.

/// Their names, in the order of their ids.
pub const NAMES: [&str; 2] = ["messages", "sync"];
