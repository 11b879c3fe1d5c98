//! Decodes bytes into requests: arrays of bulk strings, and inline commands.
//!
//! Bytes are appended to one buffer. `position` is the end of the decoded part of the request at
//! its front; `searched` is how far a line's end was searched for without success. So each byte is
//! scanned once, not once per read. When a request is complete, its bytes are split off, and its
//! arguments are slices of them, without a copy.
//!
//! A line that starts with `*` announces arguments, each `$<length>`, the bytes, CRLF. Any other
//! line is an inline command. Lengths are decimal without sign or leading zeros. A request without
//! arguments (`*0`, `*-1`, an empty line) is skipped. Whether bytes are refused, and with which
//! error, does not depend on how they were split.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

use super::inline;

/// A command and its arguments. They are slices of the input buffer: bytes that are kept for longer
/// than the command runs must be copied.
pub type Request = Vec<Bytes>;

/// The longest line with a length: a sign, 20 digits and CRLF would be enough; a longer number
/// cannot be allowed.
const LENGTH_LINE_BYTES: usize = 32;

/// The capacity for arguments that an idle connection keeps.
const KEPT_ARGUMENTS: usize = 16;

/// The limits of a request. They differ before and after login, so they are given for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most arguments in one request, including the command's name.
    pub arguments: usize,
    /// The longest argument, in bytes.
    pub bulk_bytes: usize,
    /// The longest inline command, in bytes.
    pub inline_bytes: usize,
    /// The longest request as a whole, in bytes.
    pub request_bytes: usize,
    /// Whether the peer has not logged in yet. Errors then say so.
    pub before_login: bool,
}

/// The peer's bytes are not RESP, or exceed a limit. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line is too long or has no end.
    #[error("too big inline request")]
    InlineTooLong,
    /// A quote is not closed.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The bytes after `*` are not a number, or it is too large.
    #[error("invalid multibulk length")]
    ArgumentCount,
    /// The number of arguments is allowed only after login.
    #[error("unauthenticated multibulk length")]
    ArgumentCountBeforeLogin,
    /// An argument does not start with `$`.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// The bytes after `$` are not a length, or it is too large.
    #[error("invalid bulk length")]
    BulkLength,
    /// The length is allowed only after login.
    #[error("unauthenticated bulk length")]
    BulkLengthBeforeLogin,
    /// An argument is not followed by CRLF.
    #[error("a bulk string must end with CRLF")]
    BulkEnd,
    /// The arguments together are too long.
    #[error("too big request")]
    RequestTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecoderState {
    Start,
    Arguments { missing: usize },
    Bulk { missing: usize, bytes: usize },
}

/// The input of one connection.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    position: usize,
    searched: usize,
    arguments: Vec<Range<usize>>,
    state: DecoderState,
    was_inline: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            buffer: BytesMut::new(),
            position: 0,
            searched: 0,
            arguments: Vec::new(),
            state: DecoderState::Start,
            was_inline: false,
        }
    }
}

impl Decoder {
    /// The buffer to which the socket's bytes are appended. It must not be used for anything else.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The number of bytes that arrived and were not returned as requests yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.arguments.capacity() * size_of::<Range<usize>>()
    }

    /// Releases the memory of an empty buffer while no input is expected, so that an idle
    /// connection holds none.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.arguments.shrink_to(KEPT_ARGUMENTS);
        }
    }

    /// Whether the last request was an inline command, and not an array.
    pub fn was_inline(&self) -> bool {
        self.was_inline
    }

    /// The next request; `None` until more bytes have arrived.
    pub fn next(&mut self, bounds: &Bounds) -> Result<Option<Request>, ProtocolError> {
        loop {
            match self.state {
                DecoderState::Start => match self.buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        if !self.head(bounds)? {
                            return Ok(None);
                        }
                    }
                    Some(_) => match self.inline(bounds)? {
                        Some(words) if words.is_empty() => {}
                        words => return Ok(words),
                    },
                },
                DecoderState::Arguments { missing: 0 } => return Ok(Some(self.finish())),
                DecoderState::Arguments { missing } => {
                    if !self.bulk_head(missing, bounds)? {
                        return Ok(None);
                    }
                }
                DecoderState::Bulk { missing, bytes } => {
                    if !self.bulk(missing, bytes)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn inline(&mut self, bounds: &Bounds) -> Result<Option<Request>, ProtocolError> {
        let Some(line) = self.line(bounds.inline_bytes, ProtocolError::InlineTooLong)? else {
            return Ok(None);
        };
        let words = inline::split(self.buffer.get(line.clone()).unwrap_or_default())
            .ok_or(ProtocolError::UnbalancedQuotes)?;
        self.skip_to(line.end + 1);
        self.was_inline = true;
        Ok(Some(words))
    }

    /// Decodes `*<count>`. False until the line is complete.
    fn head(&mut self, bounds: &Bounds) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(LENGTH_LINE_BYTES, ProtocolError::ArgumentCount)? else {
            return Ok(false);
        };
        let digits = self.length_digits(line.clone());
        if digits == Some(b"-1") {
            self.skip_to(line.end + 1);
            return Ok(true);
        }
        let count = digits.and_then(length).ok_or(ProtocolError::ArgumentCount)?;
        if count > bounds.arguments {
            return Err(if bounds.before_login {
                ProtocolError::ArgumentCountBeforeLogin
            } else {
                ProtocolError::ArgumentCount
            });
        }
        if count == 0 {
            self.skip_to(line.end + 1);
        } else {
            self.advance_to(line.end + 1);
            self.state = DecoderState::Arguments { missing: count };
        }
        Ok(true)
    }

    /// Decodes `$<length>`. False until the line is complete.
    fn bulk_head(&mut self, missing: usize, bounds: &Bounds) -> Result<bool, ProtocolError> {
        match self.buffer.get(self.position) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        }
        let Some(line) = self.line(LENGTH_LINE_BYTES, ProtocolError::BulkLength)? else {
            return Ok(false);
        };
        let bytes =
            self.length_digits(line.clone()).and_then(length).ok_or(ProtocolError::BulkLength)?;
        if bytes > bounds.bulk_bytes {
            return Err(if bounds.before_login {
                ProtocolError::BulkLengthBeforeLogin
            } else {
                ProtocolError::BulkLength
            });
        }
        self.advance_to(line.end + 1);
        if self.position + bytes > bounds.request_bytes {
            return Err(ProtocolError::RequestTooLong);
        }
        self.state = DecoderState::Bulk { missing, bytes };
        Ok(true)
    }

    /// Decodes the bytes of an argument. False until they have all arrived.
    fn bulk(&mut self, missing: usize, bytes: usize) -> Result<bool, ProtocolError> {
        let end = self.position + bytes;
        match self.buffer.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            None | Some([] | [b'\r']) => return Ok(false),
            Some(_) => return Err(ProtocolError::BulkEnd),
        }
        self.arguments.push(self.position..end);
        self.advance_to(end + 2);
        self.state = DecoderState::Arguments { missing: missing - 1 };
        Ok(true)
    }

    fn finish(&mut self) -> Request {
        let frame = self.buffer.split_to(self.position).freeze();
        self.state = DecoderState::Start;
        self.was_inline = false;
        self.position = 0;
        self.searched = 0;
        self.arguments.drain(..).map(|argument| frame.slice(argument)).collect()
    }

    /// The line at `position`, without its LF. Only its first `limit` bytes are searched, so that
    /// the error for a line that is too long does not depend on whether its end has arrived.
    fn line(
        &mut self,
        limit: usize,
        too_long: ProtocolError,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let from = self.searched.max(self.position);
        let to = self.buffer.len().min(self.position + limit);
        let found =
            self.buffer.get(from..to).and_then(|part| part.iter().position(|byte| *byte == b'\n'));
        match found {
            Some(at) => Ok(Some(self.position..from + at)),
            None if to == self.position + limit => Err(too_long),
            None => {
                self.searched = to;
                Ok(None)
            }
        }
    }

    /// A line with a length, without its sign and CR; `None` if the CR is missing.
    fn length_digits(&self, line: Range<usize>) -> Option<&[u8]> {
        self.buffer.get(line)?.strip_suffix(b"\r")?.get(1..)
    }

    fn advance_to(&mut self, position: usize) {
        self.position = position;
        self.searched = position;
    }

    fn skip_to(&mut self, position: usize) {
        self.buffer.advance(position);
        self.advance_to(0);
    }
}

fn length(digits: &[u8]) -> Option<usize> {
    match digits {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 18 => digits.iter().try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0'))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        arguments: 1024 * 1024,
        bulk_bytes: 1 << 20,
        inline_bytes: 64 * 1024,
        request_bytes: 2 << 20,
        before_login: false,
    };

    /// All requests and the error that result from bytes in pieces.
    fn outcome<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        bounds: Bounds,
    ) -> (Vec<Request>, Option<ProtocolError>) {
        let mut decoder = Decoder::default();
        let mut requests = Vec::new();
        for piece in pieces {
            decoder.buffer().extend_from_slice(piece);
            loop {
                match decoder.next(&bounds) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn error_of(bytes: &[u8]) -> Option<ProtocolError> {
        let whole = outcome([bytes], BOUNDS);
        assert_eq!(whole, outcome(bytes.chunks(1), BOUNDS), "{}", bytes.escape_ascii());
        whole.1
    }

    fn encoded(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
            for argument in request {
                bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                bytes.extend_from_slice(argument);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }

    #[test]
    fn arrays_and_inline_commands_come_out_in_order_and_empty_requests_are_skipped() {
        let bytes = b"\r\n*0\r\n*-1\r\nPING 'a b'\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n   \r\n";
        let (requests, error) = outcome([&bytes[..]], BOUNDS);
        assert_eq!(error, None);
        assert_eq!(
            requests,
            [
                vec![Bytes::from("PING"), Bytes::from("a b")],
                vec![Bytes::from("ECHO"), Bytes::new()]
            ]
        );
    }

    #[test]
    fn malformed_lengths_are_named() {
        for bytes in
            ["*-2\r\n", "*+1\r\n", "*01\r\n", "*x\r\n", "*\r\n", "*1048577\r\n", "*1\n", "*1\rX\n"]
        {
            assert_eq!(error_of(bytes.as_bytes()), Some(ProtocolError::ArgumentCount), "{bytes:?}");
        }
        for bytes in [
            "$-2\r\n",
            "$-1\r\n",
            "$+1\r\n",
            "$01\r\n",
            "$\r\n",
            "$1048577\r\n",
            "$99999999999999999999\r\n",
        ] {
            let request = format!("*1\r\n{bytes}");
            assert_eq!(error_of(request.as_bytes()), Some(ProtocolError::BulkLength), "{bytes:?}");
        }
        assert_eq!(error_of(b"*1\r\n:1\r\n"), Some(ProtocolError::ExpectedBulk(b':')));
        assert_eq!(error_of(b"*1\r\n$1\r\naXY"), Some(ProtocolError::BulkEnd));
        assert_eq!(error_of(b"*1\r\n$1\r\na\rY"), Some(ProtocolError::BulkEnd));
        assert_eq!(error_of(b"say \"x\r\n"), Some(ProtocolError::UnbalancedQuotes));
    }

    #[test]
    fn lines_without_an_end_are_refused_at_the_limit() {
        assert_eq!(error_of(&vec![b'a'; 64 * 1024]), Some(ProtocolError::InlineTooLong));
        assert_eq!(error_of(&vec![b'a'; 64 * 1024 - 1]), None);
        assert_eq!(
            error_of(&[b"*".as_slice(), &[b'1'; 40]].concat()),
            Some(ProtocolError::ArgumentCount)
        );
        let bulk = format!("*1\r\n${}\r\n", "0".repeat(40));
        assert_eq!(error_of(bulk.as_bytes()), Some(ProtocolError::BulkLength));
    }

    #[test]
    fn a_request_is_bounded_as_a_whole() {
        let half = vec![b'x'; 1 << 20];
        let (requests, error) = outcome([encoded(&[vec![half.clone(), half]]).as_slice()], BOUNDS);
        assert_eq!((requests.len(), error), (0, Some(ProtocolError::RequestTooLong)));
    }

    #[test]
    fn a_header_alone_allocates_nothing() {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(b"*1048576\r\n$1048576\r\n");
        assert_eq!(decoder.next(&BOUNDS), Ok(None));
        assert!(decoder.buffer.capacity() < 1024 && decoder.arguments.capacity() == 0);
    }

    #[test]
    fn before_login_only_small_requests_are_allowed() {
        let bounds = Bounds { arguments: 10, bulk_bytes: 16 * 1024, before_login: true, ..BOUNDS };
        let error = |bytes: &[u8]| outcome([bytes], bounds).1;
        assert_eq!(error(b"*1000000\r\n"), Some(ProtocolError::ArgumentCountBeforeLogin));
        assert_eq!(error(b"*1\r\n$536870912\r\n"), Some(ProtocolError::BulkLengthBeforeLogin));
        assert_eq!(error(b"*10\r\n$16384\r\n"), None);
    }

    #[test]
    fn a_large_request_in_single_bytes_costs_time_in_proportion() {
        // 60 KiB of line and 200,000 arguments byte by byte: rescanning from the start would be
        // 10^12 steps.
        let line = [vec![b'a'; 60 * 1024], b"\r\n".to_vec()].concat();
        let many = encoded(&[vec![Vec::new(); 200_000]]);
        let bytes = [line, many].concat();
        let (requests, error) = outcome(bytes.chunks(1), BOUNDS);
        assert_eq!((requests.len(), error), (2, None));
    }

    proptest! {
        #[test]
        fn encoded_requests_are_decoded_however_they_are_split(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5), 0..6),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let bytes = encoded(&requests);
            let (found, error) = outcome(pieces(&bytes, &cuts), BOUNDS);
            let found: Vec<Vec<Vec<u8>>> = found
                .into_iter()
                .map(|request| request.iter().map(|part| part.to_vec()).collect())
                .collect();
            prop_assert_eq!(error, None);
            prop_assert_eq!(found, requests);
        }

        #[test]
        fn any_bytes_give_the_same_however_they_are_split(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "*", "$", "1", "2", "0", "-", "\r\n", "\n", "\r", "a", "\"", "'", "\\", " ",
                    "*1\r\n$1\r\na\r\n",
                ]),
                0..40),
            cuts in prop::collection::vec(1_usize..5, 1..20),
        ) {
            let bytes = tokens.concat().into_bytes();
            let whole = outcome([bytes.as_slice()], BOUNDS);
            prop_assert_eq!(outcome(pieces(&bytes, &cuts), BOUNDS), whole);
        }
    }

    fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        cuts.iter().cycle().map_while(move |cut| {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    }
}
