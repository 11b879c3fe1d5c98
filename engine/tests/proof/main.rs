//! Proofs by many runs: power cuts and failing calls everywhere, damage everywhere, random calls
//! against a plain map, and any bytes into the decoders.
//!
//! By default each takes a sample, minutes in all. `STRANDLINE_PROOF=long` goes through every place
//! and many more seeds; `engine/tests/README.md` has the sizes.

mod crash;
mod damage;
#[path = "../disks/mod.rs"]
mod disks;
mod fault;
mod fuzz_bodies;
mod model;
mod simulation;
#[path = "../two_stores/mod.rs"]
mod two_stores;
