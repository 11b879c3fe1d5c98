//! The decision of a command, and the only loop in which a decision is repeated.
//!
//! A command reads ledgers, decides, and submits one batch on the condition that they still end
//! where they did (`Batch::if_last_of`). If another command was committed in between, the engine
//! refuses the batch with [`Error::LastSequence`], and the command decides again. Each repetition
//! means that another command was committed.
//!
//! A caller may submit the batch of a frequent command itself, together with others:
//! [`Messaging::decide_send`], [`Messaging::decide_read`], [`Messaging::decide_hide`]. If the basis
//! of such a batch has moved, it calls the method that uses this loop, such as [`Messaging::send`].

use bytes::Bytes;
use strandline::{Batch, Error, Receipt, Sequence};

use super::Messaging;
use super::trouble::Result;

/// The decision of a command.
pub enum Decision<T> {
    /// There is nothing to write: the answer is known.
    Known(T),
    /// Commit this batch. With a basis, the commit is refused if the basis has moved; without one,
    /// only the batch's own conditions apply.
    Commit(Box<Batch>, Option<Basis>),
}

/// The state on which a decision is based. Batches that are based on different states of the same
/// conversation or user must not be submitted together by one connection: the second could be
/// committed, and the first refused and repeated after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The conversation or user.
    pub name: Bytes,
    /// The last record of its ledger that was read.
    pub version: Sequence,
}

impl Basis {
    /// Whether a batch was refused because its basis has moved.
    pub fn has_moved(error: &Error) -> bool {
        matches!(error, Error::LastSequence { .. })
    }
}

impl<T> Decision<T> {
    /// The same decision with another form of the answer.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> Decision<U> {
        match self {
            Decision::Known(known) => Decision::Known(answer(known)),
            Decision::Commit(batch, basis) => Decision::Commit(batch, basis),
        }
    }

    /// The decision to commit a batch that is based on the state of a conversation or user.
    pub(super) fn on(name: &Bytes, version: Sequence, batch: Batch) -> Decision<T> {
        Decision::Commit(Box::new(batch), Some(Basis { name: name.clone(), version }))
    }
}

impl Messaging {
    /// Decides and commits until a commit succeeds. `answer` makes the result of a commit from its
    /// receipt. Waits for the disk.
    pub(super) fn settle<T>(
        &self,
        mut decide: impl FnMut() -> Result<Decision<T>>,
        answer: impl FnOnce(Receipt) -> T,
    ) -> Result<T> {
        loop {
            #[cfg(test)]
            self.decisions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (batch, basis) = match decide()? {
                Decision::Known(known) => return Ok(known),
                Decision::Commit(batch, basis) => (batch, basis),
            };
            match self.engine.commit(*batch) {
                Ok(receipt) => return Ok(answer(receipt)),
                Err(error) if basis.is_some() && Basis::has_moved(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
