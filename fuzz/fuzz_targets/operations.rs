//! Any bytes as calls to an engine. The body is `operations::operations` in
//! `engine/tests/proof/fuzz_bodies/operations.rs`.
#![no_main]

#[path = "../../engine/tests/proof/fuzz_bodies/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::operations(bytes));
