//! Random numbers: the standard library seeds its hashers from the operating system's random
//! source.

use std::hash::{BuildHasher, RandomState};

use crate::ids::EngineId;

/// A random number.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The id of a new engine.
pub fn new_engine_id() -> EngineId {
    EngineId((u128::from(random()) << 64 | u128::from(random())).to_le_bytes())
}
