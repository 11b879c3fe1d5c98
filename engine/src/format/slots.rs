//! Numbered records in one byte string: each is found by its number without reading the others.
//!
//! ```text
//!  slots := count: u32, (end: u32) × count, record × count   ; ends count from the first record
//! ```

use std::ops::Range;

/// Collects records.
#[derive(Clone, Debug, Default)]
pub struct SlotsWriter {
    ends: Vec<u32>,
    records: Vec<u8>,
}

impl SlotsWriter {
    /// Adds the record that `write` appends to the buffer.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.records);
        self.ends.push(self.records.len() as u32);
    }

    /// The number of records.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The number of bytes so far.
    pub fn raw_bytes(&self) -> usize {
        4 + 4 * self.ends.len() + self.records.len()
    }

    /// The bytes. The writer is empty afterwards.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.raw_bytes());
        raw.extend_from_slice(&(self.ends.len() as u32).to_le_bytes());
        self.ends.iter().for_each(|end| raw.extend_from_slice(&end.to_le_bytes()));
        raw.append(&mut self.records);
        self.ends.clear();
        raw
    }
}

/// Finds records.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a> {
    count: usize,
    ends: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Slots<'a> {
    /// The slots that fill `raw`; `None` if the bytes cannot be slots.
    pub fn new(raw: &'a [u8]) -> Option<Slots<'a>> {
        let (count, rest) = raw.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let ends = rest.get(..count.checked_mul(4)?)?;
        Some(Slots { count, ends, raw })
    }

    /// The number of records.
    pub fn count(&self) -> usize {
        self.count
    }

    fn end(&self, number: usize) -> Option<usize> {
        let bytes = self.ends.get(4 * number..4 * number + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    }

    /// The byte range of a record in the raw bytes.
    pub fn range(&self, number: usize) -> Option<Range<usize>> {
        let base = 4 + self.ends.len();
        let start = if number == 0 { 0 } else { self.end(number - 1)? };
        let range = base + start..base + self.end(number)?;
        self.raw.get(range.clone()).map(|_| range)
    }

    /// A record.
    pub fn get(&self, number: usize) -> Option<&'a [u8]> {
        self.raw.get(self.range(number)?)
    }

    /// The number of the first record for which `is_after` is true, given that it is true for all
    /// records after that; `None` if a record is broken.
    pub fn partition(&self, mut is_after: impl FnMut(&'a [u8]) -> Option<bool>) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_after(self.get(middle)?)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_found_by_number() {
        let mut writer = SlotsWriter::default();
        for record in [b"one".as_slice(), b"", b"three"] {
            writer.add(|out| out.extend_from_slice(record));
        }
        let raw = writer.finish();
        let slots = Slots::new(&raw).expect("slots");
        assert_eq!(
            (0..4).map(|n| slots.get(n)).collect::<Vec<_>>(),
            [Some(b"one".as_slice()), Some(b""), Some(b"three"), None]
        );
        assert_eq!(slots.partition(|record| Some(record > b"three".as_slice())), Some(3));
    }

    proptest! {
        #[test]
        fn any_bytes_are_slots_or_refused(raw: Vec<u8>, number in 0usize..300) {
            if let Some(slots) = Slots::new(&raw) {
                let _ = slots.get(number);
                let _ = slots.partition(|record| Some(!record.is_empty()));
            }
        }
    }
}
