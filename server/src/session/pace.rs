//! Measures whether a client makes progress: it must move a number of bytes in each window of time,
//! or it is stalled. A single byte now and then is not progress.
//!
//! Progress is seen in steps. A receiver's TCP reports what its program has read only when it can
//! take a whole segment again, which is 64 KiB on a loopback interface. So a program that reads
//! steadily seems to do nothing for several windows. Therefore bytes beyond those that a window
//! needs count for later windows, up to one step.

use std::time::Duration;

use tokio::time::Instant;

/// The bytes that must move in each window.
pub(super) const LEAST_BYTES: usize = 16 * 1024;

/// The most bytes that count for this window and later ones: a step of 64 KiB, and one window in
/// which the step was just missed.
const MOST_BYTES: usize = 5 * LEAST_BYTES;

/// The current window of one direction.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    /// Starts a window.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { since: now, bytes: 0 }
    }

    /// Counts bytes that moved.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes).min(MOST_BYTES);
    }

    /// When the window ends and must be checked.
    pub(super) fn end(&self, window: Duration) -> Instant {
        self.since + window
    }

    /// Whether a window has ended in which too little moved. `waits`: whether the client is waited
    /// for; otherwise the time does not count.
    pub(super) fn is_stalled(&mut self, waits: bool, now: Instant, window: Duration) -> bool {
        if waits && now < self.end(window) {
            return false;
        }
        let stalled = waits && self.bytes < LEAST_BYTES;
        if waits {
            self.bytes = self.bytes.saturating_sub(LEAST_BYTES);
        }
        self.since = now;
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn a_byte_now_and_then_is_a_stall_and_more_is_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.add(1);
        assert!(!pace.is_stalled(true, start + WINDOW / 2, WINDOW), "the window is not over");
        assert!(pace.is_stalled(true, start + WINDOW, WINDOW));
        pace.add(LEAST_BYTES);
        assert!(!pace.is_stalled(true, start + 2 * WINDOW, WINDOW));
        assert!(!pace.is_stalled(false, start + 9 * WINDOW, WINDOW), "nobody waited");
        assert!(
            !pace.is_stalled(true, start + 9 * WINDOW, WINDOW),
            "the window starts when somebody waits"
        );
        assert!(pace.is_stalled(true, start + 10 * WINDOW, WINDOW));
    }

    #[test]
    fn a_steady_reader_whose_bytes_are_acknowledged_in_large_steps_is_not_stalled() {
        /// The size of a segment on the loopback interface of Linux.
        const STEP: usize = 65_483;
        let start = Instant::now();
        let mut pace = Pace::new(start);
        // The bytes that the buffers of both sides took before the client was waited for.
        pace.add(3_000_000);
        assert!(!pace.is_stalled(false, start, WINDOW));
        let mut read = 0;
        for window in 1..=100 {
            read += LEAST_BYTES;
            if read >= STEP {
                read -= STEP;
                pace.add(STEP);
            }
            assert!(!pace.is_stalled(true, start + window * WINDOW, WINDOW), "window {window}");
        }
        let stalled =
            (101..=106).any(|window| pace.is_stalled(true, start + window * WINDOW, WINDOW));
        assert!(stalled, "it stands still");
    }
}
