//! Random operations on the engine and on a plain map, which must return the same results (P1–P4,
//! P8, P11, P12).
//!
//! The map has the entries of each timeline in order; everything that the engine has in addition
//! (memtables, segments, log files, caches, threads) must not be visible in any result. The
//! operations include changes to existing entries, retries, conditions, TTLs, a clock that moves,
//! flushes, merges, clean stops, kills and power cuts of the simulated disk.
//!
//! A case draws once whether its power may be cut. If so, all its batches are durable on the disk
//! and the map simply keeps everything; if not, batches ask for either durability, and a kill must
//! lose neither. It also draws the effect of time on entries.
//!
//! About 20,000 operations; `STRANDLINE_PROOF=long` makes it a million. A failing case is shrunk to
//! the few operations that matter.

mod map;
mod operations;
mod reads;
mod twins;

use operations::{Case, kind, operation};
use proptest::collection::vec;
use proptest::prelude::*;
use twins::Twins;

const OPERATIONS_PER_CASE: usize = 250;

fn cases() -> u32 {
    let long = std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long");
    let operations = if long { 1_000_000 } else { 20_000 };
    (operations / OPERATIONS_PER_CASE) as u32
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_answers_like_a_plain_map(
        kind in kind(),
        // Short cases too, so that stops and cuts meet an engine that has just started, and so that
        // failures can shrink.
        operations in vec(operation(), 1..2 * OPERATIONS_PER_CASE).prop_map(Case),
    ) {
        let mut twins = Twins::new(kind);
        for operation in &operations.0 {
            twins.carry_out(operation)?;
        }
        twins.compare_all()?;
    }
}
