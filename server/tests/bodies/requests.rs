//! The checks of the fuzzer and the bounded tests for arbitrary bytes from a client.
//!
//! Checked: no panic; the same requests and the same error however the bytes were split; a request
//! that was an array is encoded to the bytes that it was decoded from, and an inline one, encoded
//! as an array, decodes to the same arguments; a request holds no more than the bytes that arrived,
//! and no more than the bounds allow; the memory of the decoder depends on the bytes that arrived,
//! never on announced lengths. The first byte of the input determines how the rest is split.

use crate::protocol::{Bounds, Decoder, Request};

const BOUNDS: Bounds = Bounds {
    arguments: 1024,
    bulk_bytes: 1 << 16,
    inline_bytes: 256,
    request_bytes: 1 << 17,
    before_login: false,
};

/// The result for the bytes, given in pieces, up to the first error.
fn outcome<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    bounds: Bounds,
) -> (Vec<Request>, Option<String>) {
    let mut decoder = Decoder::default();
    let mut requests = Vec::new();
    let mut arrived = 0;
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        arrived += piece.len();
        loop {
            match decoder.next(&bounds) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error.to_string())),
            }
        }
        // Buffers double; an empty argument takes six bytes to send, and its slot sixteen in
        // memory.
        let held = decoder.held_bytes();
        assert!(held <= 8 * arrived + 64 * 1024, "{held} bytes are held, and {arrived} came");
    }
    assert!(
        decoder.buffered() <= bounds.request_bytes + bounds.bulk_bytes,
        "waits for more than it would allow"
    );
    (requests, None)
}

/// A request as an array of bulk strings.
pub fn array(arguments: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Decodes bytes that arrive at once, and encodes each request.
fn check_encoded(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(bytes);
    while let Ok(Some(request)) = decoder.next(&BOUNDS) {
        let again = array(&request);
        if decoder.was_inline() {
            let (requests, _) = outcome(std::iter::once(again.as_slice()), BOUNDS);
            assert_eq!(requests, [request], "an inline command is encoded to the same arguments");
        } else {
            // Empty requests before it were skipped.
            let taken = &bytes[..bytes.len() - decoder.buffered()];
            assert!(taken.ends_with(&again), "an array is encoded to the same bytes");
        }
    }
}

/// Decodes the bytes of one connection.
pub fn requests(bytes: &[u8]) {
    let Some((split, bytes)) = bytes.split_first() else { return };
    check_encoded(bytes);
    let tight = Bounds { arguments: 10, bulk_bytes: 64, before_login: true, ..BOUNDS };
    for bounds in [BOUNDS, tight] {
        let whole = outcome(std::iter::once(bytes), bounds);
        let pieces = outcome(bytes.chunks(1 + usize::from(*split % 32)), bounds);
        assert_eq!(whole, pieces, "what comes out depends on how it was split");
        let held: usize = whole.0.iter().flatten().map(bytes::Bytes::len).sum();
        assert!(held <= bytes.len(), "arguments hold more than came");
        let is_bounded = |request: &Request| {
            let is_inline =
                request.iter().map(bytes::Bytes::len).sum::<usize>() <= bounds.inline_bytes;
            let fits = request.iter().all(|argument| argument.len() <= bounds.bulk_bytes);
            !request.is_empty() && (is_inline || fits && request.len() <= bounds.arguments)
        };
        assert!(whole.0.iter().all(is_bounded), "a request is over the bounds");
    }
}
