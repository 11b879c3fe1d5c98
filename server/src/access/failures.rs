//! Failed logins slow down the next ones from the same address: each failure after the first few
//! doubles the wait before the next attempt is looked at. A password is then guessed a few times a
//! second at most, however many connections are used.
//!
//! The table is bounded. An address is forgotten after some minutes without a failure, and the
//! oldest is forgotten first when the table is full.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
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

/// The most addresses that are known.
const MOST_ADDRESSES: usize = 4096;

/// The failures of an address.
#[derive(Clone, Copy)]
struct Failed {
    count: u32,
    last: Duration,
    /// When the next attempt may be looked at: attempts at the same time wait one after the other.
    next: Duration,
}

/// The addresses from which logins failed, at times of a monotonic clock.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Failed>>);

impl Failures {
    /// How long an attempt from this address must wait. It is given a turn of its own.
    pub fn wait(&self, address: IpAddr, now: Duration) -> Duration {
        let mut known = self.0.lock();
        let Some(failed) = known.get_mut(&network(address)) else { return Duration::ZERO };
        if now.saturating_sub(failed.last) >= FORGOTTEN_AFTER || failed.count <= FREE {
            return Duration::ZERO;
        }
        // 2^16 times the first wait is far above the longest.
        let pause = FIRST_WAIT.saturating_mul(1 << (failed.count - FREE - 1).min(16));
        failed.next = failed.next.max(now) + pause.min(LONGEST_WAIT);
        failed.next.saturating_sub(now)
    }

    /// Notes a failed attempt.
    pub fn note(&self, address: IpAddr, now: Duration) {
        let mut known = self.0.lock();
        let address = network(address);
        if !known.contains_key(&address) && known.len() >= MOST_ADDRESSES {
            known.retain(|_, failed| now.saturating_sub(failed.last) < FORGOTTEN_AFTER);
            let oldest = known.iter().min_by_key(|(_, failed)| failed.last).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| known.len() >= MOST_ADDRESSES) {
                known.remove(&oldest);
            }
        }
        let failed =
            known.entry(address).or_insert(Failed { count: 0, last: now, next: Duration::ZERO });
        if now.saturating_sub(failed.last) >= FORGOTTEN_AFTER {
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

    #[test]
    fn the_wait_grows_with_each_failure_of_the_same_address_and_has_a_limit() {
        let failures = Failures::default();
        let mut waits = Vec::new();
        for attempt in 0..12 {
            let now = at(10 * attempt);
            waits.push(failures.wait(host(1), now).as_millis());
            failures.note(host(1), now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3000, 3000, 3000]);
        assert_eq!(failures.wait(host(2), at(1)), Duration::ZERO);
    }

    #[test]
    fn attempts_at_the_same_time_wait_one_after_the_other() {
        let failures = Failures::default();
        (0..9).for_each(|_| failures.note(host(1), at(1)));
        let waits: Vec<u64> = (0..3).map(|_| failures.wait(host(1), at(1)).as_secs()).collect();
        assert_eq!(waits, [3, 6, 9]);
    }

    #[test]
    fn an_address_is_forgotten_after_some_minutes() {
        let failures = Failures::default();
        (0..9).for_each(|_| failures.note(host(1), at(10)));
        assert_eq!(failures.wait(host(1), at(309)), LONGEST_WAIT);
        assert_eq!(failures.wait(host(1), at(310)), Duration::ZERO);
        failures.note(host(1), at(400));
        assert_eq!(failures.wait(host(1), at(400)), Duration::ZERO, "it begins anew");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest_first() {
        let failures = Failures::default();
        let most = MOST_ADDRESSES as u32;
        for number in 0..=most {
            (0..5).for_each(|_| failures.note(host(number), at(u64::from(number / 100))));
        }
        assert_eq!(failures.0.lock().len(), MOST_ADDRESSES);
        assert!(failures.wait(host(most), at(41)) > Duration::ZERO);
    }

    #[test]
    fn the_addresses_of_one_host_count_together() {
        let failures = Failures::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        (0..5).for_each(|_| failures.note(address("2001:db8::1"), at(1)));
        assert!(failures.wait(address("2001:db8::2"), at(1)) > Duration::ZERO);
        assert_eq!(failures.wait(address("2001:db8:0:1::1"), at(1)), Duration::ZERO);
        (0..5).for_each(|_| failures.note(address("::ffff:10.0.0.1"), at(1)));
        assert!(failures.wait(address("10.0.0.1"), at(1)) > Duration::ZERO);
    }
}
