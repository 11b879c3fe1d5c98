//! The load of a call.

use std::time::Duration;

/// What all measurements of a call have in common.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections.
    pub connections: u32,
    /// Commands that a connection sends at once.
    pub pipeline: u32,
    /// Bytes of a body.
    pub body: usize,
    /// Receivers of a fan-out.
    pub members: u32,
    /// Whether replies may come before an entry is on the disk.
    pub relaxed: bool,
    /// Time that is not counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
}
