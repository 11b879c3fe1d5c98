//! Whether a client makes progress: so many bytes in each window of time, or it stalls. One byte now and then is no progress.

use std::time::Duration;

use tokio::time::Instant;

/// What must move in a window.
pub(super) const LEAST_BYTES: usize = 16 * 1024;

/// The current window of one direction.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    /// A window that starts now.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { since: now, bytes: 0 }
    }

    /// Bytes moved.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// When it must be looked at.
    pub(super) fn end(&self, window: Duration) -> Instant {
        self.since + window
    }

    /// Whether a window is over in which too little moved. While the client is not waited for, `waits` is false and time does not
    /// count.
    pub(super) fn is_stalled(&mut self, waits: bool, now: Instant, window: Duration) -> bool {
        if waits && now < self.end(window) {
            return false;
        }
        let stalled = waits && self.bytes < LEAST_BYTES;
        *self = Pace::new(now);
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn a_byte_now_and_then_is_a_stall_and_more_is_none() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.add(1);
        assert!(!pace.is_stalled(true, start + WINDOW / 2, WINDOW), "the window is not over");
        assert!(pace.is_stalled(true, start + WINDOW, WINDOW));
        pace.add(LEAST_BYTES);
        assert!(!pace.is_stalled(true, start + 2 * WINDOW, WINDOW));
        assert!(!pace.is_stalled(false, start + 9 * WINDOW, WINDOW), "nobody waited");
        assert!(!pace.is_stalled(true, start + 9 * WINDOW, WINDOW), "the window starts when somebody waits");
    }
}
