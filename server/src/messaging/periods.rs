//! When somebody was a member, as sequences of the conversation's timeline, both ends included.

use strandline::{MAX_SEQUENCE, Sequence};

use super::event::{Parts, put_number};

/// One user's memberships of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// Where the current one starts; 0 when there is none.
    from: Sequence,
    /// Those that are over, in order.
    past: Vec<(Sequence, Sequence)>,
}

impl Periods {
    /// One that starts.
    pub fn begin(&mut self, from: Sequence) {
        self.from = from.max(1);
    }

    /// The current one is over with this sequence.
    pub fn end(&mut self, last: Sequence) {
        if self.from > 0 {
            self.past.push((self.from, last));
            self.from = 0;
        }
    }

    /// Whether there is a current one.
    pub fn is_member(&self) -> bool {
        self.from > 0
    }

    /// Whether there ever was one.
    pub fn is_known(&self) -> bool {
        self.from > 0 || !self.past.is_empty()
    }

    /// How many are over.
    pub fn past_count(&self) -> usize {
        self.past.len()
    }

    /// Where the current one starts.
    pub fn start(&self) -> Option<Sequence> {
        (self.from > 0).then_some(self.from)
    }

    /// Where the last one ends: at the highest sequence while it goes on.
    pub fn last(&self) -> Sequence {
        if self.from > 0 { MAX_SEQUENCE } else { self.past.last().map_or(0, |(_, last)| *last) }
    }

    /// Whether a sequence is inside one.
    pub fn contains(&self, sequence: Sequence) -> bool {
        self.all().any(|(first, last)| (first..=last).contains(&sequence))
    }

    /// The lowest sequence that is inside one and not below this one.
    pub fn next(&self, sequence: Sequence) -> Option<Sequence> {
        self.all().find(|(_, last)| *last >= sequence).map(|(first, _)| first.max(sequence))
    }

    /// All of them, in order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (Sequence, Sequence)> {
        self.past.iter().copied().chain(self.start().map(|from| (from, MAX_SEQUENCE)))
    }

    /// Appends them to a ledger's list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.from);
        put_number(out, self.past.len() as u64);
        for (first, last) in &self.past {
            put_number(out, *first);
            put_number(out, *last);
        }
    }

    /// Reads them from a ledger's list.
    pub fn decode(parts: &mut Parts) -> Option<Periods> {
        let from = parts.number()?;
        let mut past = Vec::new();
        for _ in 0..parts.number()? {
            past.push((parts.number()?, parts.number()?));
        }
        Some(Periods { from, past })
    }
}
