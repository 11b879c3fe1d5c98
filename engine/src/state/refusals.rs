//! Limits frequent events to one line a minute in the diagnostic log. The line contains the number
//! of events since the last line.
//!
//! [`OnceAMinute`] is the counter; the server uses it too. [`Refusals`] counts refused commits, of
//! which clients that retry again and again can cause a great number.
//!
//! This file does not know the events that [`OnceAMinute`] counts.

use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// The least time between two lines.
const EVERY: Duration = Duration::from_mins(1);

/// A counter of one kind of event, for a log that must not be flooded.
///
/// ```
/// # use std::time::Duration;
/// let kind = strandline::OnceAMinute::default();
/// assert_eq!(kind.add(Duration::from_secs(5)), Some(1));
/// assert_eq!(kind.add(Duration::from_secs(6)), None);
/// assert_eq!(kind.add(Duration::from_secs(65)), Some(2));
/// ```
#[derive(Debug, Default)]
pub struct OnceAMinute(Mutex<Unlogged>);

#[derive(Debug, Default)]
struct Unlogged {
    count: u64,
    /// The time of the last line.
    logged_at: Option<Duration>,
}

impl OnceAMinute {
    /// Counts an event at `now`, a time of a monotonic clock. If a line is due, returns the number
    /// of events since the last line.
    pub fn add(&self, now: Duration) -> Option<u64> {
        let mut unlogged = self.0.lock();
        unlogged.count += 1;
        let is_time =
            unlogged.logged_at.is_none_or(|logged_at| now.saturating_sub(logged_at) >= EVERY);
        is_time.then(|| {
            unlogged.logged_at = Some(now);
            std::mem::take(&mut unlogged.count)
        })
    }
}

/// The refusals that were not logged yet, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    full: OnceAMinute,
    poisoned: OnceAMinute,
}

impl Refusals {
    /// Counts a refused commit, at a time of the monotonic clock.
    pub fn note(&self, error: &Error, now: Duration) {
        match error {
            Error::DiskFull { .. } => {
                if let Some(refused) = self.full.add(now) {
                    tracing::warn!(refused, %error, "commits are refused until there is space");
                }
            }
            Error::Poisoned { .. } => {
                if let Some(refused) = self.poisoned.add(now) {
                    tracing::warn!(refused, %error, "commits are refused until a restart");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_once_a_minute_together() {
        let unlogged = OnceAMinute::default();
        assert_eq!(unlogged.add(Duration::from_secs(5)), Some(1));
        assert!((6..65).all(|second| unlogged.add(Duration::from_secs(second)).is_none()));
        assert_eq!(unlogged.add(Duration::from_secs(65)), Some(60));
        assert_eq!(unlogged.add(Duration::from_secs(66)), None);
    }
}
