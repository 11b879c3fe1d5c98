//! The cost of millions of timelines in memory, files, open time and block reads. For the binary
//! `timelines`.
//!
//! Each step runs in a process of its own, so that its memory does not include the leftovers of an
//! earlier step.

pub mod load;
pub mod process;
pub mod reads;

use clap::Args;
use strandline::{NewStore, Options};

/// The content of the directory.
#[derive(Args, Clone, Debug)]
pub struct Data {
    /// The number of timelines.
    #[arg(long, default_value_t = 1_000_000)]
    pub timelines: u64,
    /// The number of entries of each; they are appended round by round, in no order of names.
    #[arg(long, default_value_t = 5)]
    pub entries: u64,
    /// Bytes of a body.
    #[arg(long, default_value_t = 200)]
    pub body: usize,
    /// Give each append an id, and measure retries.
    #[arg(long)]
    pub ids: bool,
    /// The engine's memory budget, in MiB.
    #[arg(long, default_value_t = 512)]
    pub budget_mib: usize,
}

impl Data {
    /// The engine's options.
    pub fn options(&self) -> Options {
        Options::default()
            .memory_budget_bytes(self.budget_mib << 20)
            .stores([NewStore::new("messages", None)])
    }

    /// The timeline at a position in a round: all of them, each once, in an order unrelated to that
    /// of names.
    pub fn scattered(&self, place: u64) -> u64 {
        // A prime above any number of timelines that is loaded here, so that no two positions
        // collide.
        place * 2_654_435_761 % self.timelines
    }

    /// The name of a timeline.
    pub fn name(timeline: u64) -> Vec<u8> {
        format!("c/{timeline:08}").into_bytes()
    }

    /// The id of an entry.
    pub fn id(timeline: u64, entry: u64) -> Vec<u8> {
        format!("{timeline:08x}-{entry:07x}").into_bytes()
    }
}
