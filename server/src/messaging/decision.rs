//! What a command decided, and the one place where a decision is made again.
//!
//! A command looks at ledgers, decides, and submits one batch on the condition that they still end
//! where they did (`Batch::if_last_of`). If another command was committed in between, the engine
//! refuses the batch with [`Error::LastSequence`], and the command decides again. Each round means
//! that another command got through.
//!
//! A server may submit the batch itself, together with others ([`Messaging::decide_send`]). If the
//! basis of such a batch has moved, it calls [`Messaging::send`], which ends here.

use bytes::Bytes;
use strandline::{Batch, Error, Receipt, Sequence};

use super::Messaging;
use super::trouble::Result;

/// What a command decided.
pub enum Decision<T> {
    /// Nothing is to be written: the answer is known.
    Known(T),
    /// Commit this batch. It fails if it was decided on a basis that has moved; without a basis
    /// nothing but the batch's own conditions matters.
    Commit(Box<Batch>, Option<Basis>),
}

/// The state that something was decided on. Batches on different states of one thing must not be
/// submitted together: the second could be committed, and the first refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The conversation or user.
    pub name: Bytes,
    /// How far its ledger was read.
    pub version: Sequence,
}

impl Basis {
    /// Whether a batch was refused because its basis has moved.
    pub fn has_moved(error: &Error) -> bool {
        matches!(error, Error::LastSequence { .. })
    }
}

impl<T> Decision<T> {
    /// Commit a batch that was decided on a state of a conversation or user.
    pub(super) fn on(name: &Bytes, version: Sequence, batch: Batch) -> Decision<T> {
        Decision::Commit(Box::new(batch), Some(Basis { name: name.clone(), version }))
    }
}

impl Messaging {
    /// Decides and commits until a decision holds. The answer to a commit is made from its receipt.
    /// Waits for the disk.
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
            match self.engine.submit(*batch)?.wait() {
                Ok(receipt) => return Ok(answer(receipt)),
                Err(error) if basis.is_some() && Basis::has_moved(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
