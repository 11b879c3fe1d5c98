//! The durations of an operation, and the statistics that a caller gets.

use std::time::Duration;

use parking_lot::Mutex;

/// The buckets: values below 2^3 have a bucket each; each power of two above has 2^3 buckets, up to
/// 2^32 µs, which is 71 minutes.
const PRECISION_BITS: u32 = 3;
const HIGHEST_BIT: u32 = 31;
const BUCKETS: usize = ((HIGHEST_BIT - PRECISION_BITS + 2) << PRECISION_BITS) as usize;

/// The durations of an operation: the sum and the maximum since the open, and a percentile of the
/// last one to two minutes, which is at most an eighth too high. Takes four kilobytes, however
/// often the operation happens.
#[derive(Debug, Default)]
pub struct RecentTimes(Mutex<Recent>);

#[derive(Debug)]
struct Recent {
    minute: u64,
    current: [u32; BUCKETS],
    previous: [u32; BUCKETS],
    sum_us: u64,
    most_us: u64,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { minute: 0, current: [0; BUCKETS], previous: [0; BUCKETS], sum_us: 0, most_us: 0 }
    }
}

impl Recent {
    /// Forgets values older than the minute before this one.
    fn turn_to(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        if minute == self.minute {
            return;
        }
        let current = std::mem::replace(&mut self.current, [0; BUCKETS]);
        self.previous = if minute == self.minute + 1 { current } else { [0; BUCKETS] };
        self.minute = minute;
    }
}

impl RecentTimes {
    /// Adds a duration that ended at `now` of the monotonic clock.
    pub fn add(&self, now: Duration, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut recent = self.0.lock();
        recent.turn_to(now);
        recent.current[bucket(micros)] += 1;
        recent.sum_us = recent.sum_us.saturating_add(micros);
        recent.most_us = recent.most_us.max(micros);
    }

    /// The sum, the maximum, and the 99th percentile of recent values, in microseconds.
    pub fn sum_most_and_p99_us(&self, now: Duration) -> (u64, u64, u64) {
        let mut recent = self.0.lock();
        recent.turn_to(now);
        let counts = || {
            recent.current.iter().zip(&recent.previous).map(|(one, other)| u64::from(one + other))
        };
        let mut above = counts().sum::<u64>() / 100;
        let mut p99_us = 0;
        for (bucket, count) in counts().enumerate().rev().filter(|(_, count)| *count > 0) {
            p99_us = most_in(bucket);
            if count > above {
                break;
            }
            above -= count;
        }
        (recent.sum_us, recent.most_us, p99_us.min(recent.most_us))
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.min((2 << HIGHEST_BIT) - 1);
    let bit = micros.checked_ilog2().unwrap_or(0);
    if bit < PRECISION_BITS {
        return micros as usize;
    }
    let step = bit - PRECISION_BITS;
    ((u64::from(step) << PRECISION_BITS) + (micros >> step)) as usize
}

/// The highest value of a bucket.
fn most_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let step = (bucket >> PRECISION_BITS).saturating_sub(1);
    let lowest = bucket - (step << PRECISION_BITS);
    ((lowest + 1) << step) - 1
}

/// Statistics of an engine: totals since it was opened, and current values. Later versions may add
/// fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Names and values; the names contain the units.
    pub fields: Vec<(&'static str, u64)>,
}

impl Stats {
    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_a_bucket_that_ends_at_most_an_eighth_above_it() {
        for power in 0..32 {
            for micros in [1 << power, (1 << power) + 1, (2 << power) - 1] {
                let most = most_in(bucket(micros));
                assert!(micros <= most && most - micros <= micros / 8, "{micros}: {most}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn the_percentile_covers_the_last_minutes_and_the_maximum_everything() {
        let times = RecentTimes::default();
        let at = Duration::from_secs;
        for micros in std::iter::repeat_n(100, 98).chain([5_000, 9_000]) {
            times.add(at(59), Duration::from_micros(micros));
        }
        let (sum, most, p99) = times.sum_most_and_p99_us(at(61));
        assert_eq!((sum, most), (98 * 100 + 14_000, 9_000));
        assert!((5_000..5_632).contains(&p99), "{p99}");
        times.add(at(119), Duration::from_micros(200));
        let (_, most, p99) = times.sum_most_and_p99_us(at(125));
        assert_eq!(most, 9_000);
        assert!((200..=225).contains(&p99), "{p99}: what is two minutes old is forgotten");
        assert_eq!(times.sum_most_and_p99_us(at(600)).2, 0);
    }
}
