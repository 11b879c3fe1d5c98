//! The keys that are written to most: timelines, conversations and users, as commands name them.
//!
//! About one write of `SAMPLED` is counted, among at most `KEPT` keys, so that neither memory nor
//! time depends on the number of keys. A key that is not among them takes the place of the rarest
//! one, with its count plus one; what it took over is subtracted from what is shown. So a count is
//! never too high, and a key with more than a `KEPT`th of all writes is always among them. All
//! counts are halved now and then: what is shown is the share of the last writes, about 30,000.
//!
//! A write never waits: if another one is being counted, it is not.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One write of this many is counted; a power of two.
const SAMPLED: u64 = 16;

/// Keys that are kept.
const KEPT: usize = 64;

/// Counted writes after which all counts are halved.
const HALVED_AT: u64 = 2_048;

/// Consecutive multiples of it, the golden ratio of 2^64, are spread evenly, whatever pattern the
/// writes have.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug)]
struct BusyKey {
    key: Vec<u8>,
    count: u64,
    /// The part of the count that was another key's.
    inherited: u64,
}

#[derive(Debug, Default)]
struct BusyKeys {
    keys: Vec<BusyKey>,
    total: u64,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Busiest {
    writes: AtomicU64,
    kept: Mutex<BusyKeys>,
}

impl Busiest {
    /// Notes a write.
    pub fn write(&self, key: &[u8]) {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        if number.wrapping_mul(SPREAD) <= u64::MAX / SAMPLED
            && let Some(mut kept) = self.kept.try_lock()
        {
            kept.count(key);
        }
    }

    /// The keys with the largest shares of the last writes, in thousandths, largest first.
    pub fn shares(&self, most: usize) -> Vec<(Vec<u8>, u64)> {
        let kept = self.kept.lock();
        let total = kept.total.max(1);
        let own = |busy: &BusyKey| (busy.count - busy.inherited) * 1000 / total;
        let known = kept.keys.iter().map(|busy| (busy.key.clone(), own(busy)));
        let mut shares: Vec<(Vec<u8>, u64)> = known.filter(|(_, share)| *share > 0).collect();
        shares.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        shares.truncate(most);
        shares
    }
}

impl BusyKeys {
    fn count(&mut self, key: &[u8]) {
        self.total += 1;
        if let Some(known) = self.keys.iter_mut().find(|busy| busy.key == key) {
            known.count += 1;
        } else if self.keys.len() < KEPT {
            self.keys.push(BusyKey { key: key.to_vec(), count: 1, inherited: 0 });
        } else if let Some(rarest) = self.keys.iter_mut().min_by_key(|busy| busy.count) {
            rarest.key.clear();
            rarest.key.extend_from_slice(key);
            rarest.inherited = rarest.count;
            rarest.count += 1;
        }
        if self.total >= HALVED_AT {
            self.total /= 2;
            for busy in &mut self.keys {
                busy.count = busy.count.div_ceil(2);
                busy.inherited = busy.inherited.div_ceil(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_key_is_found_among_many_and_its_share_is_about_right() {
        let busiest = Busiest::default();
        for number in 0..100_000_u32 {
            let key = format!("rare-{number}");
            busiest.write(if number.is_multiple_of(4) { b"busy" } else { key.as_bytes() });
        }
        let shares = busiest.shares(10);
        assert_eq!(shares[0].0, b"busy");
        assert!((200..=300).contains(&shares[0].1), "{shares:?}");
        assert!(shares.iter().skip(1).all(|(_, share)| *share < 20), "{shares:?}");
        assert!(busiest.kept.lock().keys.len() <= KEPT);
    }

    #[test]
    fn a_key_that_is_busy_no_more_disappears() {
        let busiest = Busiest::default();
        (0..100_000).for_each(|_| busiest.write(b"before"));
        (0..300_000).for_each(|_| busiest.write(b"now"));
        let shares = busiest.shares(10);
        assert!(shares[0].0 == b"now" && shares[0].1 > 950, "{shares:?}");
    }

    #[test]
    fn a_pattern_of_the_writes_is_not_taken_for_the_whole() {
        let busiest = Busiest::default();
        for number in 0..64_000 {
            busiest.write(if number % 16 == 0 { b"first" } else { b"other" });
        }
        let shares = busiest.shares(2);
        assert_eq!(shares[0].0, b"other");
        assert!((40..90).contains(&shares[1].1), "{shares:?}");
    }
}
