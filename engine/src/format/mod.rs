//! The file formats: encoders, and total decoders (any bytes give a value or an error, never a
//! panic, and no length that was merely read causes an allocation).
//!
//! ```text
//!  header    the start of every file             wal     groups and records of the log
//!  block     a checksummed piece of a segment    index   the content of a segment's index file
//!  run       a timeline's entries in a block     table   finds one of any number of blocks by key
//!  slots     numbered records in a block         filter  the keys that may be below a table row
//!  manifest  everything that is live             ids     the uses of retry ids
//!  tail      the caller's part of a record       list    the targets that records share
//!  checksum  checksums and the key hash          layout  tables of fixed layouts
//!  codec     varints, names and byte strings
//! ```
//!
//! docs/format.md describes all of it; `tests/format_doc.rs` keeps the document equal to the tables
//! here. This folder does not know files (only their paths, for errors), time or threads.
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
pub mod list;
pub mod manifest;
pub mod run;
pub mod slots;
pub mod table;
pub mod tail;
pub mod wal;
