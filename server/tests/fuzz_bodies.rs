//! The fuzz target of the request decoder, run bounded and without a fuzzer. `fuzz/` runs the same
//! body without a bound.
//!
//! The protocol's room is private to the server, and needs nothing of it: its files are compiled
//! here unchanged.

#[allow(dead_code, unused_imports, reason = "the encoder is not asked here")]
#[path = "../src/protocol/mod.rs"]
mod protocol;
#[path = "bodies/requests.rs"]
mod requests;

use proptest::prelude::*;

/// Pieces of requests, good and bad.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..6)
            .prop_map(|arguments| {
                let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
                for argument in arguments {
                    bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                    bytes.extend_from_slice(&argument);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes
            }),
        1 => prop::sample::select(ODD.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Pieces that are not a whole request, or an unusual one.
const ODD: [&str; 11] =
    ["*", "$", "-1", "\r", "\n", "\r\n", "*0\r\n", "99999999999999999999", "PING\n", "\"", "'\\x"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_of_a_client_are_requests_or_one_error(
        split: u8,
        pieces in prop::collection::vec(piece(), 0..8),
    ) {
        let mut bytes = vec![split];
        bytes.extend(pieces.concat());
        requests::requests(&bytes);
    }
}
