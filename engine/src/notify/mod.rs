//! News: who is told that a timeline moved, and where wakers run.

pub mod wake;
pub mod watch;
