//! A timeline with its hash, computed once for all look-ups of a batch or a read; and the rule for
//! its name.

use std::hash::BuildHasher;

use crate::error::{Error, Result};
use crate::ids::{MAX_NAME_BYTES, TimelineRef};

/// A timeline and the hash by which the memtables of one open engine find it.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub timeline: TimelineRef<'a>,
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// The hash is seeded at random in each engine, so that no client can choose names that
    /// collide.
    pub fn new(hasher: &impl BuildHasher, timeline: TimelineRef<'a>) -> Key<'a> {
        Key { timeline, hash: hasher.hash_one((timeline.store.0, timeline.name)) }
    }
}

/// An error if no timeline can have this name.
pub fn check_name(name: &[u8]) -> Result<()> {
    match name.len() {
        0 => Err(Error::invalid("a timeline's name must not be empty")),
        1..=MAX_NAME_BYTES => Ok(()),
        actual => {
            let (what, limit) = ("a timeline's name", MAX_NAME_BYTES);
            Err(Error::TooLarge { what, actual, limit })
        }
    }
}
