//! Numbers and byte strings: a total reader (any bytes give a value or `None`, never a panic, and
//! no length that was read causes an allocation) and the matching writers.

use smallvec::{Array, SmallVec};

/// The longest varint of a u64: ⌈64 / 7⌉.
pub const MAX_VARINT_BYTES: usize = 10;

/// A buffer that grows at its end.
pub trait Put {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends a byte. Most numbers have one or two, and a copy of so few costs more.
    fn put_byte(&mut self, byte: u8);
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_byte(&mut self, byte: u8) {
        self.push(byte);
    }
}

impl<A: Array<Item = u8>> Put for SmallVec<A> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_byte(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// Appends a number in groups of seven bits, the lowest first (LEB128).
pub fn put_varint(out: &mut impl Put, mut value: u64) {
    while value >= 0x80 {
        out.put_byte(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_byte(value as u8);
}

/// Appends a name: its length in one byte, then its bytes. Names have at most 255 bytes.
pub fn put_name(out: &mut impl Put, name: &[u8]) {
    out.put_byte(u8::try_from(name.len()).expect("names are checked to have at most 255 bytes"));
    out.put(name);
}

/// Reads from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes that are not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        Some(*self.bytes(1)?.first()?)
    }

    /// The next four bytes as a little-endian number.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// The next eight bytes as a little-endian number.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// A varint that fits 64 bits, in its shortest form: each number has one encoding.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        // Nearly all numbers in a block have one or two bytes.
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Some(u64::from(*first))
            }
            [first, second @ 1..0x80, rest @ ..] => {
                self.rest = rest;
                Some(u64::from(*first & 0x7F) | u64::from(*second) << 7)
            }
            rest => {
                let (value, rest) = long_varint(rest)?;
                self.rest = rest;
                Some(value)
            }
        }
    }

    /// A varint that fits `usize`: the length of something in memory.
    pub fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// A varint of at most 32 bits.
    pub fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// A byte string, preceded by its length as a varint.
    pub fn piece(&mut self) -> Option<&'a [u8]> {
        let len = self.length()?;
        self.bytes(len)
    }

    /// A name as [`put_name`] writes it. It may be empty; no timeline has the empty name.
    pub fn name(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }
}

/// A varint that may have any length, at the front of bytes, and the bytes behind it: up to eight
/// bytes all at once, if as many are left.
///
/// The bytes come and go by value, so that the caller's loop can keep them in registers.
fn long_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    const ENDS: u64 = 0x8080_8080_8080_8080;
    let Some(word) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return varint_by_bytes(bytes);
    };
    let ends = !word & ENDS;
    if ends == 0 {
        return varint_by_bytes(bytes);
    }
    let len = ends.trailing_zeros() as usize / 8 + 1;
    // Each byte up to the last one has seven bits of the value.
    let bits = word & (ends ^ (ends - 1)) & !ENDS;
    let pairs = bits & 0x007F_007F_007F_007F | (bits & 0x7F00_7F00_7F00_7F00) >> 1;
    let fours = pairs & 0x0000_3FFF_0000_3FFF | (pairs & 0x3FFF_0000_3FFF_0000) >> 2;
    let value = fours & 0x0FFF_FFFF | (fours & 0x0FFF_FFFF_0000_0000) >> 4;
    // In the shortest form the last byte adds something.
    let is_shortest = len == 1 || value >> (7 * (len - 1)) != 0;
    let rest = bytes.get(len..)?;
    is_shortest.then_some((value, rest))
}

fn varint_by_bytes(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut rest) = (0u64, bytes);
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // The first byte has its top bit set, so a last byte of zero adds nothing.
            return (*byte != 0).then_some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_is_read_in_one_way(
            bytes in prop::collection::vec(prop_oneof![0_u8..3, 120_u8..=130, 253_u8..], 0..12),
        ) {
            prop_assume!(bytes.first().is_some_and(|first| *first >= 0x80));
            let mut fast = Reader::new(&bytes);
            let slow = varint_by_bytes(&bytes);
            prop_assert_eq!(fast.varint(), slow.map(|(value, _)| value));
            prop_assert!(slow.is_none_or(|(_, rest)| fast.rest() == rest));
        }

        #[test]
        fn a_varint_reads_back_as_written(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert!(bytes.len() <= MAX_VARINT_BYTES);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_a_value_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_some() {}
            let _ = Reader::new(&bytes).piece();
            let _ = Reader::new(&bytes).name();
        }
    }

    #[test]
    fn a_varint_that_is_longer_than_its_number_needs_is_refused() {
        assert_eq!(Reader::new(&[0x00]).varint(), Some(0));
        assert_eq!(Reader::new(&[0xE4, 0x01]).varint(), Some(228));
        for longer in [&[0x80, 0x00][..], &[0xE4, 0x00], &[0xE4, 0x80, 0x00]] {
            assert_eq!(Reader::new(longer).varint(), None, "{longer:?}");
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        assert_eq!(Reader::new(&[0xFF; 11]).varint(), None);
        let mut top = [0xFF; 10];
        top[9] = 0x01;
        assert_eq!(Reader::new(&top).varint(), Some(u64::MAX));
        top[9] = 0x02;
        assert_eq!(Reader::new(&top).varint(), None);
    }
}
