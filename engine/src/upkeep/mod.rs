//! Maintenance, on threads of its own: memtables to segments, segments to larger segments, and
//! what has expired or was dropped off the disk.

pub mod compact;
pub mod expire;
pub mod flush;
pub mod garbage;
mod install;
pub mod stores;
