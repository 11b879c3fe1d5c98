//! What the bytes mean: encoders, and decoders that are total (any bytes give a value or an error,
//! never a panic, and nothing is allocated from a length that was merely read).
//!
//! ```text
//!  header    every file begins with it             wal       groups and records of the log
//!  block     a checksummed, maybe compressed piece  index     what a segment's index file holds
//!  run       a timeline's entries in a block        table     finds blocks by keys, whatever their number
//!  slots     numbered records in a block            filter    which keys may be behind a row of a table
//!  manifest  everything that is live                ids       what the ids of retries were used for
//!  tail      the caller's part of a record
//! ```
//!
//! docs/format.md shows all of it; `tests/format/format_doc.rs` keeps the document equal to the
//! tables here. It does not know: files, time or threads.
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

pub mod block;
pub mod checksum;
pub mod codec;
pub mod filter;
pub mod header;
pub mod ids;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod run;
pub mod slots;
pub mod table;
pub mod tail;
pub mod wal;
