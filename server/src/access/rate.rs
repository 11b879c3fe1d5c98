//! Limits on commands per second, of a connection and of a user. A client over its limit is not
//! refused: its next command waits, so that the connection reads more slowly and nothing is lost.
//!
//! A limit is one number: the time at which the commands that were taken so far would have ended if
//! each took its share of a second (GCRA). A burst is how far this may be ahead of now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::identity::Identity;

const SECOND_NS: u64 = 1_000_000_000;

/// The users above which limits that allow a whole burst are forgotten.
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

    /// Whether it allows a whole burst, as a new one does.
    fn is_whole(&self, now: Duration) -> bool {
        u128::from(self.taken_until_ns.load(Ordering::Relaxed)) <= now.as_nanos()
    }
}

/// The limits of users. One that a user has used up stays when its last connection ends: to connect
/// again gives no new burst.
#[derive(Default)]
pub struct UserRates(Mutex<HashMap<RatedUser, Arc<Rate>>>);

/// A user with rules and a terminal's user have limits of their own if they have one name.
#[derive(PartialEq, Eq, Hash)]
struct RatedUser {
    is_terminal: bool,
    name: Vec<u8>,
}

impl UserRates {
    /// The limit of a user; `make` is called if it has none yet.
    pub fn of(
        &self,
        user: &Identity,
        now: Duration,
        make: impl FnOnce() -> Option<Rate>,
    ) -> Option<Arc<Rate>> {
        let is_terminal = user.terminal().is_some();
        let user = RatedUser { is_terminal, name: user.name().to_vec() };
        let mut known = self.0.lock();
        if let Some(rate) = known.get(&user) {
            return Some(Arc::clone(rate));
        }
        let rate = Arc::new(make()?);
        if known.len() >= MANY && known.len() == known.capacity() {
            known.retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.is_whole(now));
        }
        known.insert(user, Arc::clone(&rate));
        Some(rate)
    }

    /// Forgets all limits.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::account::Account;
    use super::super::rules::Rules;
    use super::super::token::TerminalToken;
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

    fn user(name: &str) -> Identity {
        Identity::User(Arc::new(Account::new(1, name, Rules::default(), None)))
    }

    fn terminal(name: &str) -> Identity {
        let mut token = TerminalToken::default();
        token.user = Bytes::copy_from_slice(name.as_bytes());
        Identity::Terminal(Arc::new(token))
    }

    #[test]
    fn the_connections_of_a_user_share_a_limit() {
        let rates = UserRates::default();
        let of = |user: &Identity| rates.of(user, ms(1), || Rate::new(1, 1)).expect("a limit");
        let ann = of(&user("ann"));
        assert!(Arc::ptr_eq(&ann, &of(&user("ann"))));
        assert!(!Arc::ptr_eq(&ann, &of(&user("bob"))));
        assert!(!Arc::ptr_eq(&ann, &of(&terminal("ann"))), "a token does not name a user of rules");
    }

    #[test]
    fn a_limit_is_forgotten_when_nobody_has_it_and_it_is_whole_again() {
        let rates = UserRates::default();
        let of = |name: &str, now| rates.of(&user(name), now, || Rate::new(1, 1)).expect("a limit");
        let ann = of("ann", ms(0));
        assert_eq!(of("spent", ms(0)).take(ms(0)), Ok(()));
        for number in 0..10 * MANY {
            of(&number.to_string(), ms(999));
        }
        assert!(rates.0.lock().len() < 4 * MANY, "{}", rates.0.lock().len());
        assert!(Arc::ptr_eq(&ann, &of("ann", ms(999))));
        assert_eq!(of("spent", ms(999)).take(ms(999)), Err(ms(1)), "to come again gives no burst");
    }
}
