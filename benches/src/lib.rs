//! Benchmarks: the workloads of docs/benchmarks.md, run against Strandline and its peers by the
//! same code.
//!
//! * `workload` makes the data: the timelines of each writer and the bodies. Deterministic, so that
//!   every contestant of every round gets the same bytes in the same order.
//! * `peers` gives engines a common interface: one trait, one file per engine, each with the
//!   meaning of its acknowledgement.
//! * `drive` runs a feed of work against a peer: threads × work in flight, with latencies.
//! * `rounds` has the trait of a workload, and alternates its contestants; `workloads` holds W1 to
//!   W5, W7 and cold reads; `report` prints medians and ratios, and `charts` draws them.
//! * `disk` reads the operating system's counters of written bytes.
//! * `soak` runs for minutes and measures changes over time.
//! * `load` speaks RESP to a server, for the binary of that name; `servers` starts servers and
//!   compares them by it.
//! * `scale` fills a directory with millions of timelines or ids, for the binary `timelines`.
//!
//! Nothing here knows the internals of an engine: a benchmark that did would measure its own
//! assumptions about them.
// Only `peers::lmdb` allows it: the engine maps a file.
#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measuring is asking the machine for the time, and for files"
)]

pub mod charts;
pub mod disk;
pub mod drive;
pub mod load;
pub mod peers;
pub mod report;
pub mod rounds;
pub mod scale;
pub mod servers;
pub mod soak;
pub mod workload;
pub mod workloads;
