//! The environment of an engine in a test.
//!
//! This file does not know what is simulated.

use std::fmt;
use std::sync::Arc;

use crate::clock::Clock;
use crate::vfs::Dir;

/// The environment of an engine: its files and its clock. Tests simulate it.
#[derive(Clone)]
pub struct World {
    /// Its files.
    pub dir: Dir,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for World {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("World").field("dir", &self.dir.path_of("")).finish_non_exhaustive()
    }
}
