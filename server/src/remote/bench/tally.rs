//! What the clients of a measurement have seen.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told from longer ones, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;

/// Replies, or pushed entries, and their latencies.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Replies that were counted.
    pub replies: u64,
    /// Those that were errors.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Replies of each second.
    pub by_second: Vec<u64>,
    latency_us: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        let latency_us = Histogram::new_with_bounds(1, LONGEST_US, 3)
            .expect("these bounds and three digits are allowed");
        Tally { replies: 0, errors: 0, first_error: None, by_second: Vec::new(), latency_us }
    }

    /// Counts a reply that came `at` after the start of the measurement.
    pub fn add(&mut self, at: Duration, latency: Duration, error: Option<String>) {
        self.replies += 1;
        if let Some(error) = error {
            self.errors += 1;
            self.first_error.get_or_insert(error);
        }
        let second = at.as_secs() as usize;
        if self.by_second.len() <= second {
            self.by_second.resize(second + 1, 0);
        }
        self.by_second[second] += 1;
        self.latency_us.saturating_record(latency.as_micros() as u64);
    }

    /// Microseconds within which this part of the replies came, from 0 to 1.
    pub fn latency_us(&self, part: f64) -> u64 {
        self.latency_us.value_at_quantile(part)
    }

    /// The longest latency in microseconds.
    pub fn longest_us(&self) -> u64 {
        self.latency_us.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_second_and_latency() {
        let mut tally = Tally::new();
        for number in 1..=100_u64 {
            let error = (number == 7).then(|| "ERR x".to_owned());
            tally.add(Duration::from_millis(number * 20), Duration::from_micros(number), error);
        }
        assert_eq!(tally.by_second, [49, 50, 1]);
        assert_eq!((tally.latency_us(0.5), tally.latency_us(0.99)), (50, 99));
        assert_eq!((tally.longest_us(), tally.errors), (100, 1));
        assert_eq!(tally.first_error.as_deref(), Some("ERR x"));
    }
}
