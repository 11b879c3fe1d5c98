//! Failed logins slow down the next ones from the same address.
//!
//! Attempts from an address are looked at one after the other. After the first few failures each
//! waits before it is looked at, twice as long as the one before. A password is then guessed a few
//! times a second at most, however many connections are used. Nothing is owed for attempts that
//! gave up while they waited.
//!
//! The table is bounded. An address is forgotten after some minutes without a failure, and the
//! oldest is forgotten first when the table is full. An address that is trying now stays.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Failures without a wait: a typing error costs nothing.
const FREE: u32 = 3;

/// The wait after the first failure that is not free; it doubles with each one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait. It leaves time to log in within `limits.auth_seconds`.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The time after which an address is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// The addresses that are known, but for those that are trying now.
const MOST_ADDRESSES: usize = 4096;

/// The lock that an attempt to log in holds until its password was checked.
pub type LoginTurn = Arc<tokio::sync::Mutex<()>>;

/// The failures of an address.
struct Failed {
    count: u32,
    last: Duration,
    turn: LoginTurn,
}

impl Failed {
    fn is_forgotten(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= FORGOTTEN_AFTER
    }

    fn is_trying(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }
}

/// The addresses from which logins failed, at times of a monotonic clock.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Failed>>);

impl Failures {
    /// The turn of an address.
    pub fn turn(&self, address: IpAddr, now: Duration) -> LoginTurn {
        let mut known = self.0.lock();
        let address = network(address);
        if !known.contains_key(&address) && known.len() >= MOST_ADDRESSES {
            known.retain(|_, failed| failed.is_trying() || !failed.is_forgotten(now));
            let others = known.iter().filter(|(_, failed)| !failed.is_trying());
            let oldest = others.min_by_key(|(_, failed)| failed.last).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| known.len() >= MOST_ADDRESSES) {
                known.remove(&oldest);
            }
        }
        let new = || Failed { count: 0, last: now, turn: LoginTurn::default() };
        Arc::clone(&known.entry(address).or_insert_with(new).turn)
    }

    /// How long an attempt must wait in its turn.
    pub fn wait(&self, address: IpAddr, now: Duration) -> Duration {
        let known = self.0.lock();
        let failed = known.get(&network(address)).filter(|failed| !failed.is_forgotten(now));
        let Some(over) = failed.and_then(|failed| failed.count.checked_sub(FREE + 1)) else {
            return Duration::ZERO;
        };
        // 2^16 times the first wait is far above the longest.
        FIRST_WAIT.saturating_mul(1 << over.min(16)).min(LONGEST_WAIT)
    }

    /// Notes a failed attempt, in its turn.
    pub fn note(&self, address: IpAddr, now: Duration) {
        let mut known = self.0.lock();
        // It is there as long as someone has its turn.
        let Some(failed) = known.get_mut(&network(address)) else { return };
        if failed.is_forgotten(now) {
            failed.count = 0;
        }
        failed.count = failed.count.saturating_add(1);
        failed.last = now;
    }
}

/// An IPv6 host has a whole network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn host(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    /// An attempt that fails.
    fn fail(failures: &Failures, address: IpAddr, now: Duration) {
        let _turn = failures.turn(address, now);
        failures.note(address, now);
    }

    #[test]
    fn the_wait_grows_with_each_failure_of_the_same_address_and_has_a_limit() {
        let failures = Failures::default();
        let mut waits = Vec::new();
        for attempt in 0..12 {
            let now = at(10 * attempt);
            waits.push(failures.wait(host(1), now).as_millis());
            fail(&failures, host(1), now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3000, 3000, 3000]);
        assert_eq!(failures.wait(host(2), at(1)), Duration::ZERO);
    }

    #[test]
    fn attempts_of_an_address_have_one_turn() {
        let failures = Failures::default();
        let turn = |number| failures.turn(host(number), at(1));
        assert!(Arc::ptr_eq(&turn(1), &turn(1)) && !Arc::ptr_eq(&turn(1), &turn(2)));
    }

    #[test]
    fn an_address_is_forgotten_after_some_minutes() {
        let failures = Failures::default();
        (0..9).for_each(|_| fail(&failures, host(1), at(10)));
        assert_eq!(failures.wait(host(1), at(309)), LONGEST_WAIT);
        assert_eq!(failures.wait(host(1), at(310)), Duration::ZERO);
        (0..4).for_each(|_| fail(&failures, host(1), at(400)));
        assert_eq!(failures.wait(host(1), at(400)), FIRST_WAIT, "it begins anew");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest_first_but_nobody_who_is_trying() {
        let failures = Failures::default();
        let most = MOST_ADDRESSES as u32;
        let first = failures.turn(host(0), at(0));
        for number in 1..=most {
            (0..5).for_each(|_| fail(&failures, host(number), at(u64::from(number / 100))));
        }
        assert_eq!(failures.0.lock().len(), MOST_ADDRESSES);
        assert!(failures.wait(host(most), at(41)) > Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &failures.turn(host(0), at(41))));
    }

    #[test]
    fn the_addresses_of_one_host_count_together() {
        let failures = Failures::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        (0..5).for_each(|_| fail(&failures, address("2001:db8::1"), at(1)));
        assert!(failures.wait(address("2001:db8::2"), at(1)) > Duration::ZERO);
        assert_eq!(failures.wait(address("2001:db8:0:1::1"), at(1)), Duration::ZERO);
        (0..5).for_each(|_| fail(&failures, address("::ffff:10.0.0.1"), at(1)));
        assert!(failures.wait(address("10.0.0.1"), at(1)) > Duration::ZERO);
    }
}
