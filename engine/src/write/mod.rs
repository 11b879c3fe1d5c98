//! The write path: from a batch to a durable, visible entry.
//!
//! ```text
//!  batch ─prepare─> queue ─group─> commit: rotate, decide, log, apply ─resolve─> ticket
//!                     └── pipeline: which thread commits ──┘
//! ```
//!
//! `commit` is the path; each of the other files is a step of it, or builds its input.

pub mod active;
pub mod apply;
pub mod batch;
pub mod change;
pub mod commit;
mod decide;
mod hints;
pub mod pipeline;
pub mod queue;
pub mod relaxed;
mod removal;
mod rotate;
pub mod sequence;
pub mod ticket;
