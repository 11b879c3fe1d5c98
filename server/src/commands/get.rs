//! Questions about one timeline: TL.GET, TL.LAST, TL.INFO, TL.SEQAT.

use bytes::Bytes;
use strandline::Entry;

use super::arguments::integer;
use super::row::{Class, Command, Context, Flow, Run};
use crate::key::Key;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.GET", 3, Class::Read, Run::Now(get))
        .one_key()
        .told("key seq", "One entry, or null."),
    Command::new("TL.LAST", 2, Class::Read, Run::Now(last))
        .one_key()
        .told("key", "The newest readable entry, or null."),
    Command::new("TL.INFO", 2, Class::Read, Run::Now(info)).one_key().told(
        "key",
        "Map: first, last, count and bytes of the readable entries, first_time, last_time, epoch, trimmed_to.",
    ),
    Command::new("TL.SEQAT", 3, Class::Read, Run::Now(sequence_at)).one_key().told(
        "key time",
        "Integer: the lowest readable sequence with at least that time; last + 1 when there is none.",
    ),
];

fn get(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let sequence = integer(&arguments[1])?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let found = key.store.get(key.name(), sequence)?;
    write_optional(found.as_ref(), &mut context.connection.out);
    Ok(Flow::Done)
}

fn last(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let found = key.store.last(key.name())?;
    write_optional(found.as_ref(), &mut context.connection.out);
    Ok(Flow::Done)
}

fn info(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let info = key.store.info(key.name())?;
    let out = &mut context.connection.out;
    out.map(8);
    out.field("first", info.first);
    out.field("last", info.last);
    out.field("count", info.count);
    out.field("bytes", info.body_bytes);
    out.field("first_time", info.first_time_ms);
    out.field("last_time", info.last_time_ms);
    out.bulk("epoch");
    out.bulk(key.store.epoch());
    out.field("trimmed_to", info.trimmed_to);
    Ok(Flow::Done)
}

fn sequence_at(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let time_ms = integer(&arguments[1])?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let sequence = key.store.sequence_at(key.name(), time_ms)?;
    context.connection.out.integer(sequence);
    Ok(Flow::Done)
}

/// An entry as the wire shows it.
pub(super) fn write_entry(entry: &Entry, out: &mut Encoder) {
    out.array(3);
    out.integer(entry.sequence);
    out.integer(entry.time_ms);
    out.bulk(&entry.body);
}

fn write_optional(entry: Option<&Entry>, out: &mut Encoder) {
    match entry {
        Some(entry) => write_entry(entry, out),
        None => out.null(),
    }
}
