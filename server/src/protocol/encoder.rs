//! Replies and push frames, written straight into the connection's output buffer.
//!
//! A map is a RESP3 map, or in RESP2 a flat array of pairs; a push is a RESP3 push frame, or in
//! RESP2 an array; null is `_` or `$-1`. The buffer lives between replies, but gives its memory
//! back once a large reply has been taken.

use std::fmt::Display;
use std::io::Write as _;

/// An idle connection keeps no more than this: 10,000 of them then hold 160 MiB at the very most.
const KEPT_BYTES: usize = 16 * 1024;

/// The dialect that a connection speaks. Chosen by HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, what every connection starts with.
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

/// The output of one connection: what was written and not yet taken by the socket.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The dialect of what is written from now on.
    pub protocol: Protocol,
    bytes: Vec<u8>,
    taken: usize,
}

impl Encoder {
    /// An empty one that speaks this dialect.
    pub fn speaking(protocol: Protocol) -> Encoder {
        Encoder { protocol, ..Encoder::default() }
    }

    /// What waits for the socket.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether the socket has taken all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The socket took `count` bytes.
    pub fn take(&mut self, count: usize) {
        self.taken += count;
        assert!(self.taken <= self.bytes.len(), "the socket takes no more than what waits");
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        } else if self.taken > self.bytes.len() / 2 && self.taken > KEPT_BYTES {
            // A connection that is pushed to without pause never becomes empty: drop the taken
            // half, at amortized cost 1.
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Where the next value begins, for [`Encoder::forget`].
    pub fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what was written since a mark. Nothing of it was taken meanwhile.
    pub fn forget(&mut self, mark: usize) {
        self.bytes.truncate(mark.max(self.taken));
    }

    /// Makes room for so many bytes at once, and for no more: growing by doubling would hold up to
    /// twice as much.
    pub fn expect(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Values that were written elsewhere.
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

    /// An error line; what would break the line becomes spaces.
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

    /// An integer. Clients expect a signed 64-bit one: a value above 2^63 - 1, such as the sequence
    /// after the highest one, is sent as 2^63 - 1.
    pub fn integer(&mut self, value: u64) {
        self.line(b':', value.min(i64::MAX.unsigned_abs()));
    }

    /// An integer that may be negative.
    pub fn signed(&mut self, value: i64) {
        self.line(b':', value);
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        self.bulk_of(&[bytes.as_ref()]);
    }

    /// One bulk string from several parts, so that nobody has to join them first.
    pub fn bulk_of(&mut self, parts: &[&[u8]]) {
        self.line(b'$', parts.iter().map(|part| part.len()).sum::<usize>());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// The absent value.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array of `count` values, which follow.
    pub fn array(&mut self, count: usize) {
        self.line(b'*', count);
    }

    /// The head of a map of `pairs` keys and values, which follow in turn.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.line(b'*', pairs * 2),
            Protocol::Resp3 => self.line(b'%', pairs),
        }
    }

    /// The head of an out-of-band frame of `count` values, which follow.
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.line(b'*', count),
            Protocol::Resp3 => self.line(b'>', count),
        }
    }

    /// A key of a map with an integer.
    pub fn field(&mut self, name: &str, value: u64) {
        self.bulk(name);
        self.integer(value);
    }

    fn line(&mut self, sign: u8, text: impl Display) {
        self.bytes.push(sign);
        write!(self.bytes, "{text}\r\n").expect("a vector takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_was_taken_is_forgotten_and_large_buffers_are_given_back() {
        let mut encoder = Encoder::default();
        encoder.bulk(vec![b'x'; 1_000_000]);
        encoder.take(600_000);
        assert_eq!(encoder.waiting().len(), encoder.len());
        assert!(encoder.bytes.len() < 500_000, "the taken half is gone");
        encoder.take(encoder.len());
        assert!(encoder.is_empty() && encoder.bytes.capacity() <= KEPT_BYTES);
    }
}
