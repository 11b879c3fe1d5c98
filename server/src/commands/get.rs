//! Queries of one timeline: TL.GET, TL.LAST, TL.INFO, TL.SEQAT.

use bytes::Bytes;
use strandline::{Epoch, Info, MAX_SEQUENCE};

use super::arguments::integer;
use super::place::{answer, entry_bytes, is_near};
use super::reply::write_optional;
use super::row::{Class, Command, Context, Flow, Run};
use super::scope::{Scope, Touch};
use crate::key::Key;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.GET", 3, Class::Read, Run::Now(get))
.touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told("key seq", "One entry, or null."),
    Command::new("TL.LAST", 2, Class::Read, Run::Now(last))
.touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told("key", "The newest readable entry, or null."),
    Command::new("TL.INFO", 2, Class::Read, Run::Now(info))
.touches(Scope::Of(&[Touch::Key(1)])).one_key().told(
        "key",
        "Map: first, last, count and bytes of the readable entries, first_time, last_time, epoch, \
         trimmed_to.",
    ),
    Command::new("TL.SEQAT", 3, Class::Read, Run::Now(sequence_at))
.touches(Scope::Of(&[Touch::Key(1)])).one_key().told(
        "key time",
        "Integer: the lowest readable sequence with at least that time; last + 1 when there is \
         none.",
    ),
];

fn get(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let sequence = integer(&arguments[1])?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let place = (is_near(&key, sequence, 1)?, entry_bytes(context.limits()));
    let read = move |key: &Key| Ok(key.store.get(key.name(), sequence)?);
    answer(context, key, place, read, |found, _, out| write_optional(found.as_ref(), out))
}

fn last(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    // The newest entry is in memory if the end is, unless it was removed.
    let place = (is_near(&key, MAX_SEQUENCE, 1)?, entry_bytes(context.limits()));
    let read = move |key: &Key| Ok(key.store.last(key.name())?);
    answer(context, key, place, read, |found, _, out| write_optional(found.as_ref(), out))
}

fn info(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    // It counts all entries, and the number of steps is not known in advance.
    let read = |key: &Key| Ok(key.store.info(key.name())?);
    answer(context, key, (false, 0), read, |info, key, out| {
        write_info(info, key.store.epoch(), out);
    })
}

fn write_info(info: &Info, epoch: Epoch, out: &mut Encoder) {
    out.map(8);
    out.field("first", info.first);
    out.field("last", info.last);
    out.field("count", info.count);
    out.field("bytes", info.body_bytes);
    out.field("first_time", info.first_time_ms);
    out.field("last_time", info.last_time_ms);
    out.bulk("epoch");
    out.bulk(epoch.to_string());
    out.field("trimmed_to", info.trimmed_to);
}

fn sequence_at(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let time_ms = integer(&arguments[1])?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let place = (is_near(&key, 1, 1)?, 0);
    let read = move |key: &Key| Ok(key.store.sequence_at(key.name(), time_ms)?);
    answer(context, key, place, read, |sequence, _, out| out.integer(*sequence))
}
