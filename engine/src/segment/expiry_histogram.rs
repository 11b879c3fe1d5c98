//! Estimates when half of a segment has expired by expiries of its entries' own.

use crate::ids::TimeMs;

/// Weights by the time from the segment's first such entry to the expiry, in powers of two of a
/// millisecond: an estimate is at most twice the true distance, and the memory is a few hundred
/// bytes.
#[derive(Debug)]
pub(super) struct ExpiryHistogram {
    first_ms: Option<TimeMs>,
    weights: [u64; 64],
}

impl Default for ExpiryHistogram {
    fn default() -> ExpiryHistogram {
        ExpiryHistogram { first_ms: None, weights: [0; 64] }
    }
}

impl ExpiryHistogram {
    /// Adds `weight`, committed at `time_ms`, that expires at `expire_at_ms`.
    pub fn add(&mut self, time_ms: TimeMs, expire_at_ms: TimeMs, weight: u64) {
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        let power = expire_at_ms.saturating_sub(first_ms).checked_ilog2().unwrap_or(0);
        self.weights[power as usize] += weight;
    }

    /// The time at which half of the weight `whole` will have expired; 0: never.
    pub fn half_expired_ms(&self, whole: u64) -> TimeMs {
        let Some(first_ms) = self.first_ms else { return 0 };
        let mut sum = 0;
        let power = self.weights.iter().position(|weight| {
            sum += weight;
            sum > 0 && sum >= whole.div_ceil(2)
        });
        power.map_or(0, |power| first_ms.saturating_add(2u64.saturating_pow(power as u32 + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_is_reported_once_all_of_it_has_expired_and_not_much_later() {
        let mut expiries = ExpiryHistogram::default();
        assert_eq!(expiries.half_expired_ms(0), 0);
        expiries.add(1000, 1100, 10);
        expiries.add(1000, 5000, 10);
        expiries.add(2000, TimeMs::MAX, 10);
        assert_eq!(expiries.half_expired_ms(20), 1128);
        assert!((5000..=9000).contains(&expiries.half_expired_ms(40)));
        assert_eq!(expiries.half_expired_ms(60), TimeMs::MAX);
        assert_eq!(expiries.half_expired_ms(61), 0, "the rest never expires");
    }
}
