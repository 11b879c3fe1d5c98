//! The IM commands: translates arguments into calls of `messaging`, and results into replies. The
//! semantics are in `messaging`.

pub(super) mod history;
pub(super) mod mark;
pub(super) mod members;
pub(super) mod send;
pub(super) mod sync;

use std::sync::Arc;

use bytes::Bytes;

use super::place::elsewhere;
use super::row::{Context, Done, Flow};
use crate::messaging::{Messaging, Trouble};
use crate::protocol::Encoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// The messaging of this server.
fn messaging(shared: &Shared) -> Result<&Arc<Messaging>, Refusal> {
    shared.messaging.as_ref().ok_or_else(|| {
        Refusal::usage(
            "this directory was opened read-only before messaging was used: it has no \
             conversations",
        )
    })
}

/// Runs work that waits for the disk, on a thread that may block; its result is a number.
fn slowly(
    context: &Context<'_>,
    work: impl FnOnce(&Messaging) -> Result<u64, Trouble> + Send + 'static,
) -> Result<Flow, Refusal> {
    let messaging = Arc::clone(messaging(context.shared)?);
    Ok(Flow::Slow(Box::new(move || Ok(Done::Integer(work(&messaging)?)))))
}

/// Runs a read of any length on a thread that may block, once there is memory for its reply; then
/// writes the result.
fn at_length<T: Send + 'static>(
    context: &Context<'_>,
    read: impl FnOnce(&Messaging) -> Result<T, Trouble> + Send + 'static,
    write: fn(&T, &mut Encoder),
) -> Result<Flow, Refusal> {
    // The framing is small compared to the bodies, or small in total: at most 10,000 entries.
    let bytes = usize::try_from(context.limits().reply_bytes).unwrap_or(usize::MAX);
    reading(context, bytes, read, write)
}

/// The same for a reply of at most `bytes` bytes.
fn reading<T: Send + 'static>(
    context: &Context<'_>,
    bytes: usize,
    read: impl FnOnce(&Messaging) -> Result<T, Trouble> + Send + 'static,
    write: fn(&T, &mut Encoder),
) -> Result<Flow, Refusal> {
    let messaging = Arc::clone(messaging(context.shared)?);
    Ok(elsewhere(bytes, move || {
        let found = read(&messaging)?;
        Ok(Done::Reply(Box::new(move |out| write(&found, out))))
    }))
}

/// Copies: slices of the input would keep the whole read buffer alive.
fn detached(words: &[Bytes]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word)).collect()
}
