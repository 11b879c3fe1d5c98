//! Periods of membership, as sequences of the conversation's timeline, both ends included.

use strandline::{MAX_SEQUENCE, Sequence};

use super::event::{Parts, put_number};

/// One user's memberships of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// The start of the current period; 0 if there is none.
    from: Sequence,
    /// The periods that are over, in order.
    past: Vec<(Sequence, Sequence)>,
}

impl Periods {
    /// Begins a period.
    pub fn begin(&mut self, from: Sequence) {
        self.from = from.max(1);
    }

    /// Ends the current period with this sequence.
    pub fn end(&mut self, last: Sequence) {
        if self.from > 0 {
            self.past.push((self.from, last));
            self.from = 0;
        }
    }

    /// Whether there is a current period.
    pub fn is_member(&self) -> bool {
        self.from > 0
    }

    /// Whether there ever was a period.
    pub fn is_known(&self) -> bool {
        self.from > 0 || !self.past.is_empty()
    }

    /// The number of periods that are over.
    pub fn past_count(&self) -> usize {
        self.past.len()
    }

    /// The start of the current period.
    pub fn start(&self) -> Option<Sequence> {
        (self.from > 0).then_some(self.from)
    }

    /// The end of the last period; the highest sequence if it is current.
    pub fn last(&self) -> Sequence {
        if self.from > 0 { MAX_SEQUENCE } else { self.past.last().map_or(0, |(_, last)| *last) }
    }

    /// Whether a sequence is within a period.
    pub fn contains(&self, sequence: Sequence) -> bool {
        self.all().any(|(first, last)| (first..=last).contains(&sequence))
    }

    /// The lowest sequence that is within a period and not below this one.
    pub fn next(&self, sequence: Sequence) -> Option<Sequence> {
        self.all().find(|(_, last)| *last >= sequence).map(|(first, _)| first.max(sequence))
    }

    /// All periods, in order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (Sequence, Sequence)> {
        self.past.iter().copied().chain(self.start().map(|from| (from, MAX_SEQUENCE)))
    }

    /// Appends the periods to a list in a ledger.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.from);
        put_number(out, self.past.len() as u64);
        for (first, last) in &self.past {
            put_number(out, *first);
            put_number(out, *last);
        }
    }

    /// Reads the periods from a list in a ledger.
    pub fn decode(parts: &mut Parts) -> Option<Periods> {
        let from = parts.number()?;
        let mut past = Vec::new();
        for _ in 0..parts.number()? {
            past.push((parts.number()?, parts.number()?));
        }
        Some(Periods { from, past })
    }
}
