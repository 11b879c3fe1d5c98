//! The distribution of whole numbers, such as microseconds or entries, in constant memory.
//!
//! ```text
//!  value    1   2   3   4 │ 5   6   7   8 │ 9-10  11-12  13-14  15-16 │ 17-20 …  2^26 │ more
//!  bucket   0   1   2   3 │ 4   5   6   7 │ 8     9      10     11    │ 12    …       │ last
//! ```
//!
//! Each power of two has four buckets, so a percentile is at most a quarter too high. The highest
//! value of a bucket belongs to it, as `le` of Prometheus wants, and each power of two ends one.
//! The value 0 counts as 1. Values above 2^26 (67 s in microseconds) share the last bucket.

use std::sync::atomic::{AtomicU64, Ordering};

const PRECISION_BITS: u32 = 2;
const HIGHEST_BIT: u32 = 25;

/// The buckets with a highest value: four up to 2^2, and four for each of the bits 2 to 25.
const BOUNDED: usize = ((HIGHEST_BIT - PRECISION_BITS + 2) << PRECISION_BITS) as usize;

/// A histogram to which any thread adds.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDED + 1],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BOUNDED + 1], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds a value.
    pub fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The values so far. Of values that are added meanwhile some may be missing.
    pub fn read(&self) -> Distribution {
        Distribution {
            counts: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }

    /// Forgets all values.
    pub fn reset(&self) {
        self.buckets.iter().chain([&self.sum]).for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// The values of a histogram at one moment.
#[derive(Clone, Debug)]
pub struct Distribution {
    counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl Distribution {
    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For each power of two from 2^`first` to 2^`last`: the number of values that are at most as
    /// high.
    pub fn up_to_powers(&self, first: u32, last: u32) -> impl Iterator<Item = (u64, u64)> + '_ {
        (first..=last).map(|power| {
            let most = 1 << power;
            (most, self.counts.iter().take(bucket(most) + 1).sum())
        })
    }

    /// The value that this share of the values, from 0 to 1, does not exceed: at most a quarter
    /// too high; 0 if there are no values.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return most_in(bucket);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    let below = value.saturating_sub(1);
    let bit = below.checked_ilog2().unwrap_or(0);
    if bit < PRECISION_BITS {
        return below as usize;
    }
    if bit > HIGHEST_BIT {
        return BOUNDED;
    }
    let step = bit - PRECISION_BITS;
    ((u64::from(step) << PRECISION_BITS) + (below >> step)) as usize
}

/// The highest value of a bucket; of the last one, the highest value of all others.
fn most_in(bucket: usize) -> u64 {
    let bucket = bucket.min(BOUNDED - 1) as u64;
    let step = (bucket >> PRECISION_BITS).saturating_sub(1);
    let lowest = bucket - (step << PRECISION_BITS);
    (lowest + 1) << step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_bucket_that_ends_at_most_a_quarter_above_it() {
        for power in 0..26 {
            for value in [1 << power, (1 << power) + 1, (2 << power) - 1, 2 << power] {
                let most = most_in(bucket(value));
                assert!(value <= most && most - value <= value / 4, "{value}: {most}");
                assert_eq!(bucket(most), bucket(value), "{value}");
                assert!(bucket(most + 1) > bucket(value), "{value}");
            }
        }
        assert_eq!((bucket(0), bucket(1), most_in(0)), (0, 0, 1));
        assert_eq!((bucket(1 << 26), bucket((1 << 26) + 1)), (BOUNDED - 1, BOUNDED));
        assert_eq!(bucket(u64::MAX), BOUNDED);
    }

    #[test]
    fn powers_count_what_is_at_most_as_high_and_the_sum_is_exact() {
        let histogram = Histogram::default();
        [0, 1, 2, 3, 4, 5, 1_000, u64::from(u32::MAX)].into_iter().for_each(|v| histogram.add(v));
        let read = histogram.read();
        assert_eq!(read.up_to_powers(0, 3).collect::<Vec<_>>(), [(1, 2), (2, 3), (4, 5), (8, 6)]);
        assert_eq!(read.up_to_powers(26, 26).last(), Some((1 << 26, 7)));
        assert_eq!((read.count(), read.sum), (8, 15 + 1_000 + u64::from(u32::MAX)));
        histogram.reset();
        assert_eq!((histogram.read().count(), histogram.read().sum), (0, 0));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().percentile(0.5), 0);
        (1..=100).for_each(|value| histogram.add(value));
        let read = histogram.read();
        assert!((50..=62).contains(&read.percentile(0.5)), "{}", read.percentile(0.5));
        assert!((99..=123).contains(&read.percentile(0.99)), "{}", read.percentile(0.99));
        assert_eq!(read.percentile(0.0), 1);
    }
}
