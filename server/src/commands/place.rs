//! The place where a reply is made: one rule for all commands.
//!
//! 1. A write becomes a batch, which the loop submits with those of its other connections
//!    (`submitter.rs`); the receipt is small. If the decision may read the disk, it is made
//!    elsewhere ([`Prepared::Elsewhere`]); so are look-ups of ends that are not in memory.
//! 2. A reply from memory of at most [`STEPS`] steps is made at once, on the connection's loop. A
//!    step is an entry, or a timeline that is looked up.
//! 3. Every other reply is made elsewhere, on a thread of the pool: if it may read the disk, or
//!    takes more steps. It is made in slices of at most [`STEPS`] steps if it consists of many
//!    small lookups, and in one slice if the engine returns a whole page. The bytes of the reply
//!    are reserved before the first slice.
//! 4. Work that waits for the disk anyway runs elsewhere as one piece: changes ([`Flow::Slow`]),
//!    and maintenance, one at a time ([`Flow::Long`]).
//! 5. Pages for follows and subscriptions are read by the same rule (`push/pump.rs`).
//!
//! Messaging reads ledgers besides timelines, so none of its reads counts as a reply from memory.
//!
//! A reply is made only when there is memory for it, except for small replies ([`is_small`]): a
//! connection that holds no other output always gets these.
//!
//! This module knows nothing of threads: the session, or an event loop, does what it asks for.

use bytes::Bytes;
use strandline::{Limit, Sequence};

#[cfg(doc)]
use super::row::Prepared;
use super::row::{Context, Done, Flow, Reply, Sliced};
use crate::key::Key;
use crate::limits::Limits;
use crate::memory::FLOOR_BYTES;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

/// The steps of a reply that is made at once: a few hundred microseconds.
pub const STEPS: usize = 1000;

/// The bytes of an entry in a reply besides its body: heads of arrays, two numbers, line ends.
pub const FRAME_BYTES: usize = 64;

/// Whether the reply to a request of this command is small, as far as that is known in advance.
pub fn is_small(reply: Reply, request: &[Bytes]) -> bool {
    let bytes: usize = request.iter().map(Bytes::len).sum();
    if bytes > FLOOR_BYTES {
        return false;
    }
    match reply {
        Reply::Small => true,
        Reply::Large => false,
        Reply::LargeWith(word) => {
            request.get(1).is_none_or(|given| !given.eq_ignore_ascii_case(word.as_bytes()))
        }
    }
}

/// Whether a page of a timeline is read at once: it is in memory, and short enough.
pub fn is_near(key: &Key, from: Sequence, entries: usize) -> Result<bool, Refusal> {
    Ok(entries <= STEPS && key.store.is_in_memory(key.name(), from)?)
}

/// The most that a reply with such a page takes.
pub fn page_bytes(limit: Limit) -> usize {
    usize::try_from(limit.body_bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(limit.entries * FRAME_BYTES)
}

/// The most that a reply with one entry takes.
pub fn entry_bytes(limits: &Limits) -> usize {
    limits.max_body_bytes + FRAME_BYTES
}

/// Reads a timeline from a sequence on and writes the result; at once if `is_near`, and elsewhere
/// otherwise.
pub fn answer<T: Send + 'static>(
    context: &mut Context<'_>,
    key: Key,
    (is_near, bytes): (bool, usize),
    read: impl FnOnce(&Key) -> Result<T, Refusal> + Send + 'static,
    write: impl FnOnce(&T, &Key, &mut Encoder) + Send + 'static,
) -> Result<Flow, Refusal> {
    if is_near {
        let found = read(&key)?;
        write(&found, &key, &mut context.connection.out);
        return Ok(Flow::Done);
    }
    let key = key.detached();
    Ok(elsewhere(bytes, move || {
        let found = read(&key)?;
        Ok(Done::Reply(Box::new(move |out| write(&found, &key, out))))
    }))
}

/// A reply of at most `bytes` bytes that is made elsewhere, in one slice.
pub fn elsewhere(
    bytes: usize,
    work: impl FnOnce() -> Result<Done, Refusal> + Send + 'static,
) -> Flow {
    Flow::Sliced(in_one_slice(bytes, work))
}

/// The same as slices that the caller passes on.
pub fn in_one_slice(
    bytes: usize,
    work: impl FnOnce() -> Result<Done, Refusal> + Send + 'static,
) -> Sliced {
    let mut work = Some(work);
    Sliced { bytes, slice: Box::new(move || work.take().map(|work| work()).transpose()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_elsewhere_is_done_once() {
        let Flow::Sliced(Sliced { bytes: 7, mut slice }) = elsewhere(7, || Ok(Done::Ok)) else {
            panic!("it is made in slices")
        };
        assert!(matches!(slice(), Ok(Some(Done::Ok))) && matches!(slice(), Ok(None)));
    }
}
