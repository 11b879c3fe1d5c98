//! Maintenance, most of it on threads of its own: flushes memtables to segments, merges segments,
//! removes expired and dropped data from the disk, and creates and drops stores.

pub mod compact;
pub mod expire;
pub mod flush;
pub mod garbage;
mod install;
pub mod stores;
