//! The shared bodies of a merge's input that are still referred to, and their numbers in the
//! output.
//!
//! The memory is a bit per body and a count for every 64 of them: a million bodies take 190 kB.

/// The shared bodies of one input.
#[derive(Debug, Default)]
pub struct Bodies {
    used: Vec<u64>,
    /// The number of used bodies before each word.
    before: Vec<u32>,
    /// The number of the first used body in the output.
    first: u32,
}

impl Bodies {
    /// `count` bodies, none of them used.
    pub fn new(count: u64) -> Bodies {
        Bodies { used: vec![0; (count as usize).div_ceil(64)], before: Vec::new(), first: 0 }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Marks a body that a surviving entry refers to. A body that does not exist is reported when
    /// its number is requested.
    pub fn mark(&mut self, number: u32) {
        if let Some(word) = self.used.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether a body is used.
    pub fn is_used(&self, number: u32) -> bool {
        self.used.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Assigns numbers from `first` on, after all bodies were marked. Returns the first free
    /// number.
    pub fn number_from(&mut self, first: u32) -> u32 {
        self.first = first;
        let mut sum = 0;
        self.before = Vec::with_capacity(self.used.len());
        for word in &self.used {
            self.before.push(sum);
            sum += word.count_ones();
        }
        first + sum
    }

    /// The number of a used body in the output; `None` if there is no such body.
    pub fn number(&self, number: u32) -> Option<u32> {
        let (word, bit) = (number as usize / 64, number % 64);
        let below = self.used.get(word)? & !(u64::MAX << bit);
        Some(self.first + self.before.get(word)? + below.count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_bodies_are_numbered_in_order_and_the_others_left_out() {
        let mut bodies = Bodies::new(200);
        let used = [0, 3, 63, 64, 127, 130, 199];
        used.iter().rev().for_each(|number| bodies.mark(*number));
        assert_eq!(bodies.number_from(10), 17);
        let numbers: Vec<u32> = used.iter().filter_map(|number| bodies.number(*number)).collect();
        assert_eq!(numbers, (10..17).collect::<Vec<_>>());
        assert!(bodies.is_used(64) && !bodies.is_used(65) && !bodies.is_used(1000));
        bodies.mark(1000);
        assert_eq!(bodies.number(1000), None);
    }
}
