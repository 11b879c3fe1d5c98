//! Any bytes as a block of a segment. The body is `decoders::block` in
//! `engine/tests/proof/fuzz_bodies/decoders.rs`.
#![no_main]

#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../engine/tests/proof/fuzz_bodies/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::block(bytes);
});
