//! Refused commits in the log: one line a minute and reason, with how many there were, however many clients try again and again.
//!
//! It does not know: what was refused.

use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// How often a reason is told.
const EVERY: Duration = Duration::from_mins(1);

/// What was refused and not told yet, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    full: Mutex<Untold>,
    poisoned: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    count: u64,
    /// The time of the last line.
    told: Option<Duration>,
}

impl Untold {
    /// The count, if it is time for a line.
    fn add(&mut self, now: Duration) -> Option<u64> {
        self.count += 1;
        let is_time = self.told.is_none_or(|told| now.saturating_sub(told) >= EVERY);
        is_time.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.count)
        })
    }
}

impl Refusals {
    /// A commit was refused, at a time of the monotonic clock.
    pub fn note(&self, error: &Error, now: Duration) {
        match error {
            Error::DiskFull { .. } => {
                if let Some(refused) = self.full.lock().add(now) {
                    tracing::warn!(refused, %error, "commits are refused until there is space");
                }
            }
            Error::Poisoned { .. } => {
                if let Some(refused) = self.poisoned.lock().add(now) {
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
        let mut untold = Untold::default();
        assert_eq!(untold.add(Duration::from_secs(5)), Some(1));
        assert!((6..65).all(|second| untold.add(Duration::from_secs(second)).is_none()));
        assert_eq!(untold.add(Duration::from_secs(65)), Some(60));
        assert_eq!(untold.add(Duration::from_secs(66)), None);
    }
}
