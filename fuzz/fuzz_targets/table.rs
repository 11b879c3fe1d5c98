//! Any bytes as a page of a table. The body is `decoders::table` in
//! `engine/tests/proof/fuzz_bodies/decoders.rs`.
#![no_main]

#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../engine/tests/proof/fuzz_bodies/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::table(bytes);
});
