//! A timeline with its hash, computed once for all look-ups of a batch or a read.

use std::hash::BuildHasher;

use crate::ids::TimelineRef;

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
