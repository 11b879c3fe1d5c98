//! Limits on commands per second, of a connection and of a user. A client over its limit is not
//! refused: its next command waits, so that the connection reads more slowly and nothing is lost.
//!
//! A limit is one number: the time at which the commands that were taken so far would have ended if
//! each took its share of a second (GCRA). A burst is how far this may be ahead of now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

const SECOND_NS: u64 = 1_000_000_000;

/// The names above which unused limits are forgotten.
const MANY: usize = 1024;

/// A limit on commands per second.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "a unit is part of a name")]
pub struct Rate {
    share_ns: u64,
    burst_ns: u64,
    taken_until_ns: AtomicU64,
}

impl Rate {
    /// A limit; `None` if `per_second` is 0. At most `burst` commands run at once.
    pub fn new(per_second: u64, burst: u64) -> Option<Rate> {
        let share_ns = SECOND_NS.checked_div(per_second)?.max(1);
        let burst_ns = share_ns.saturating_mul(burst.max(1) - 1);
        Some(Rate { share_ns, burst_ns, taken_until_ns: AtomicU64::new(0) })
    }

    /// Takes the right to one command, at a time of a monotonic clock. Otherwise returns how long
    /// to wait before the next attempt.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let step = |until_ns: u64| {
            let start = until_ns.max(now_ns);
            (start - now_ns <= self.burst_ns).then(|| start.saturating_add(self.share_ns))
        };
        let taken = self.taken_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        taken.map(drop).map_err(|until_ns| {
            Duration::from_nanos(until_ns.saturating_sub(now_ns).saturating_sub(self.burst_ns))
        })
    }

    /// Gives back a right that was taken and not used.
    pub fn give_back(&self) {
        self.taken_until_ns.fetch_sub(self.share_ns, Ordering::Relaxed);
    }
}

/// The limits of users, by name, for as long as a connection acts as that user.
#[derive(Default)]
pub struct UserRates(Mutex<HashMap<Vec<u8>, Weak<Rate>>>);

impl UserRates {
    /// The limit of a user; `make` is called if no connection has it.
    pub fn of(&self, user: &[u8], make: impl FnOnce() -> Option<Rate>) -> Option<Arc<Rate>> {
        let mut known = self.0.lock();
        if let Some(rate) = known.get(user).and_then(Weak::upgrade) {
            return Some(rate);
        }
        let rate = Arc::new(make()?);
        if known.len() >= MANY && known.len() == known.capacity() {
            known.retain(|_, rate| rate.strong_count() > 0);
        }
        known.insert(user.to_vec(), Arc::downgrade(&rate));
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_burst_runs_at_once_and_the_rest_at_the_rate() {
        let rate = Rate::new(10, 3).expect("it is a limit");
        let now = ms(5000);
        assert_eq!([rate.take(now), rate.take(now), rate.take(now)], [Ok(()); 3]);
        assert_eq!(rate.take(now), Err(ms(100)));
        assert_eq!((rate.take(ms(5099)), rate.take(ms(5100))), (Err(ms(1)), Ok(())));
        assert_eq!(rate.take(ms(5100)), Err(ms(100)));
        let later = ms(60_000);
        assert_eq!([rate.take(later), rate.take(later), rate.take(later)], [Ok(()); 3]);
        assert!(rate.take(later).is_err(), "a long pause allows one burst");
        rate.give_back();
        assert_eq!(rate.take(later), Ok(()));
    }

    #[test]
    fn no_number_is_no_limit() {
        assert!(Rate::new(0, 5).is_none());
        assert_eq!(Rate::new(1, 0).expect("it is a limit").take(ms(1)), Ok(()));
    }

    #[test]
    fn the_connections_of_a_user_share_a_limit_that_is_forgotten_with_them() {
        let rates = UserRates::default();
        let of = |name: &str| rates.of(name.as_bytes(), || Rate::new(1, 1)).expect("a limit");
        let (first, second) = (of("ann"), of("ann"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &of("bob")));
        for number in 0..10 * MANY {
            of(&number.to_string());
        }
        assert!(rates.0.lock().len() < 4 * MANY, "{}", rates.0.lock().len());
        assert!(Arc::ptr_eq(&first, &of("ann")));
    }
}
