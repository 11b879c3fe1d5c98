//! What may happen very often is in the log at most once a minute: one line, with how often it
//! happened since the last one.
//!
//! [`OnceAMinute`] is that counter; the server uses it too. [`Refusals`] are refused commits, of
//! which clients that try again and again can cause very many.
//!
//! It does not know: what is counted.

use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// How often a line is written.
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
pub struct OnceAMinute(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    count: u64,
    /// The time of the last line.
    told: Option<Duration>,
}

impl OnceAMinute {
    /// It happened, at a time of a monotonic clock. Returns how often since the last line, if it is
    /// time for a line.
    pub fn add(&self, now: Duration) -> Option<u64> {
        let mut untold = self.0.lock();
        untold.count += 1;
        let is_time = untold.told.is_none_or(|told| now.saturating_sub(told) >= EVERY);
        is_time.then(|| {
            untold.told = Some(now);
            std::mem::take(&mut untold.count)
        })
    }
}

/// What was refused and not told yet, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    full: OnceAMinute,
    poisoned: OnceAMinute,
}

impl Refusals {
    /// A commit was refused, at a time of the monotonic clock.
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
    fn the_first_is_told_at_once_and_the_others_once_a_minute_together() {
        let untold = OnceAMinute::default();
        assert_eq!(untold.add(Duration::from_secs(5)), Some(1));
        assert!((6..65).all(|second| untold.add(Duration::from_secs(second)).is_none()));
        assert_eq!(untold.add(Duration::from_secs(65)), Some(60));
        assert_eq!(untold.add(Duration::from_secs(66)), None);
    }
}
