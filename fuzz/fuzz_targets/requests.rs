//! Any bytes as the input of a client. The body is `requests::requests` in
//! `server/tests/bodies/requests.rs`.
#![no_main]

#[allow(dead_code, unused_imports, reason = "the encoder is not asked here")]
#[path = "../../server/src/protocol/mod.rs"]
mod protocol;
#[path = "../../server/tests/bodies/requests.rs"]
mod requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| requests::requests(bytes));
