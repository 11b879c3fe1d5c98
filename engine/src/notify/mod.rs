//! Notification: watches of timelines, and the thread that runs wakers.

pub mod wake;
pub mod watch;
