//! Encodes replies and push frames directly into the connection's output buffer.
//!
//! A map is a RESP3 map, or in RESP2 a flat array of pairs; a push is a RESP3 push frame, or in
//! RESP2 an array; null is `_` or `$-1`. The buffer is kept between replies, but its memory is
//! released after a large reply was sent.

use std::fmt::Display;
use std::io::Write as _;

/// The most that an idle connection keeps: 10,000 connections then hold at most 160 MiB.
const KEPT_BYTES: usize = 16 * 1024;

/// The protocol version of a connection. Chosen by HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, the version of every new connection.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

impl Protocol {
    /// 2 or 3.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// The output of one connection: bytes that were written and not taken by the socket yet.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The protocol version of the values that are written from now on.
    pub protocol: Protocol,
    bytes: Vec<u8>,
    taken: usize,
}

impl Encoder {
    /// An empty encoder with this protocol version.
    pub fn speaking(protocol: Protocol) -> Encoder {
        Encoder { protocol, ..Encoder::default() }
    }

    /// The bytes that wait for the socket.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// The number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether the socket has taken all bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes `count` bytes that the socket took.
    pub fn take(&mut self, count: usize) {
        self.taken += count;
        assert!(self.taken <= self.bytes.len(), "the socket takes no more than what waits");
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        } else if self.taken > self.bytes.len() / 2 && self.taken > KEPT_BYTES {
            // With a constant flow of pushes the buffer never becomes empty: the half that was
            // taken is dropped, at amortized cost 1.
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// The position of the next value, for [`Encoder::forget`].
    pub fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Removes the values that were written since a mark. The socket must not have taken any of
    /// them.
    pub fn forget(&mut self, mark: usize) {
        self.bytes.truncate(mark.max(self.taken));
    }

    /// Reserves exactly this many bytes: growing by doubling would hold up to twice as much.
    pub fn expect(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Appends values that another encoder wrote.
    pub fn append(&mut self, other: &Encoder) {
        self.bytes.extend_from_slice(other.waiting());
    }

    /// `+text`
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// `+OK`
    pub fn ok(&mut self) {
        self.simple("OK");
    }

    /// Writes an error line. Characters that would end the line are replaced by spaces.
    pub fn error(&mut self, text: impl Display) {
        let start = self.bytes.len();
        self.line(b'-', text);
        let end = self.bytes.len() - 2;
        for byte in self.bytes.get_mut(start..end).into_iter().flatten() {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }

    /// Writes an integer. Clients expect a signed 64-bit one: a value above 2^63 - 1, such as the
    /// sequence after the highest one, is sent as 2^63 - 1.
    pub fn integer(&mut self, value: u64) {
        self.number(b':', value.min(i64::MAX.unsigned_abs()));
    }

    /// Writes an integer that may be negative.
    pub fn signed(&mut self, value: i64) {
        self.line(b':', value);
    }

    /// Writes a bulk string.
    pub fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        self.bulk_of(&[bytes.as_ref()]);
    }

    /// Writes one bulk string from several parts, so that callers need not join them first.
    pub fn bulk_of(&mut self, parts: &[&[u8]]) {
        self.count(b'$', parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Writes the null value.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Writes the head of an array; `count` values must follow.
    pub fn array(&mut self, count: usize) {
        self.count(b'*', count);
    }

    /// Writes the head of a map; `pairs` pairs of key and value must follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.count(b'*', pairs * 2),
            Protocol::Resp3 => self.count(b'%', pairs),
        }
    }

    /// Writes the head of an out-of-band frame; `count` values must follow.
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.count(b'*', count),
            Protocol::Resp3 => self.count(b'>', count),
        }
    }

    /// Writes a key of a map and its integer value.
    pub fn field(&mut self, name: &str, value: u64) {
        self.bulk(name);
        self.integer(value);
    }

    fn count(&mut self, sign: u8, count: usize) {
        self.number(sign, count as u64);
    }

    /// Writes a line with a number, by hand: replies are full of them, and formatting was a sixth
    /// of the time of a read.
    fn number(&mut self, sign: u8, mut value: u64) {
        let mut line = *b"____________________\r\n";
        let mut start = line.len() - 2;
        for digit in line.iter_mut().rev().skip(2) {
            *digit = b'0' + (value % 10) as u8;
            (start, value) = (start - 1, value / 10);
            if value == 0 {
                break;
            }
        }
        self.bytes.push(sign);
        self.bytes.extend_from_slice(line.get(start..).unwrap_or_default());
    }

    fn line(&mut self, sign: u8, text: impl Display) {
        self.bytes.push(sign);
        write!(self.bytes, "{text}\r\n").expect("a vector takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_lengths_are_written_in_full() {
        let powers = (0..19).map(|power| 10_u64.pow(power)).flat_map(|power| [power - 1, power]);
        for value in powers.chain([i64::MAX.unsigned_abs()]) {
            let expected = format!(":{value}\r\n");
            assert_eq!(written(Protocol::Resp3, |out| out.integer(value)), expected);
        }
        let mut all = Encoder::default();
        all.number(b'$', u64::MAX);
        assert_eq!(all.waiting(), b"$18446744073709551615\r\n");
    }

    fn written(protocol: Protocol, write: impl FnOnce(&mut Encoder)) -> String {
        let mut encoder = Encoder { protocol, ..Encoder::default() };
        write(&mut encoder);
        String::from_utf8(encoder.waiting().to_vec()).expect("the examples are text")
    }

    #[test]
    fn each_value_has_its_form_in_both_dialects() {
        let all = |out: &mut Encoder| {
            out.map(1);
            out.field("last", 7);
            out.push(2);
            out.null();
            out.bulk_of(&[b"1 2\n", b"x"]);
        };
        assert_eq!(
            written(Protocol::Resp2, all),
            "*2\r\n$4\r\nlast\r\n:7\r\n*2\r\n$-1\r\n$5\r\n1 2\nx\r\n"
        );
        assert_eq!(
            written(Protocol::Resp3, all),
            "%1\r\n$4\r\nlast\r\n:7\r\n>2\r\n_\r\n$5\r\n1 2\nx\r\n"
        );
    }

    #[test]
    fn no_integer_is_above_what_a_signed_one_holds() {
        for value in [1 << 63, u64::MAX, (1 << 63) - 1] {
            assert_eq!(
                written(Protocol::Resp3, |out| out.integer(value)),
                ":9223372036854775807\r\n"
            );
            assert!(
                written(Protocol::Resp2, |out| out.field("first", value))
                    .ends_with(":9223372036854775807\r\n")
            );
        }
    }

    #[test]
    fn an_error_cannot_smuggle_a_second_line() {
        assert_eq!(written(Protocol::Resp2, |out| out.error("ERR a\r\n+OK")), "-ERR a  +OK\r\n");
    }

    #[test]
    fn written_bytes_are_forgotten_and_large_buffers_are_freed() {
        let mut encoder = Encoder::default();
        encoder.bulk(vec![b'x'; 1_000_000]);
        encoder.take(600_000);
        assert_eq!(encoder.waiting().len(), encoder.len());
        assert!(encoder.bytes.len() < 500_000, "the taken half is gone");
        encoder.take(encoder.len());
        assert!(encoder.is_empty() && encoder.bytes.capacity() <= KEPT_BYTES);
    }
}
