//! Changes of stored entries: TL.TRIM, TL.DEL, TL.EDIT, TL.DROP.
//!
//! The engine reads before a change, and waits for the disk after it. So each of these commands
//! runs on a thread that may block, and the commands after it on its connection wait.

use bytes::Bytes;
use strandline::{Sequence, Trim};

use super::arguments::{check_body, integer};
use super::row::{Class, Command, Context, Done, Flow, Run};
use super::scope::{Scope, Touch};
use crate::key::Key;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.TRIM", 4, Class::Write, Run::Now(trim))
.touches(Scope::Of(&[Touch::Key(1)])).one_key().told(
        "key BEFORE seq | OLDER time | KEEP n",
        "Removes the start of a timeline; integer: the number of entries. BEFORE: the sequences \
         below.",
    ),
    Command::new("TL.DEL", -3, Class::Write, Run::Now(delete))
.touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told("key seq [seq ...]", "Removes single entries; integer: their number."),
    Command::new("TL.EDIT", 4, Class::Write, Run::Now(edit))
.touches(Scope::Of(&[Touch::Key(1)])).writes_bodies().one_key().told(
        "key seq body",
        "Replaces a body, sequence and time stay; 1, or 0 when there is no such readable entry.",
    ),
    Command::new("TL.DROP", 2, Class::Write, Run::Now(drop_timeline))
.touches(Scope::Of(&[Touch::Key(1)])).one_key().told(
        "key",
        "Removes all entries; 1, or 0 when there were none. Later appends continue above the old \
         last sequence.",
    ),
];

fn trim(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let how: fn(u64) -> Trim = match arguments[1].to_ascii_uppercase().as_slice() {
        b"BEFORE" => Trim::Before,
        b"OLDER" => Trim::Older,
        b"KEEP" => Trim::Keep,
        _ => return Err(Refusal::usage("syntax error: one of BEFORE, OLDER, KEEP")),
    };
    let trim = how(integer(&arguments[2])?);
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    Ok(Flow::Slow(Box::new(move || Ok(Done::Integer(key.store.trim(key.name(), trim)?)))))
}

fn delete(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let sequences: Vec<Sequence> =
        arguments[1..].iter().map(|raw| integer(raw)).collect::<Result<_, _>>()?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    Ok(Flow::Slow(Box::new(move || Ok(Done::Integer(key.store.delete(key.name(), &sequences)?)))))
}

fn edit(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (sequence, body) = (integer(&arguments[1])?, arguments[2].clone());
    check_body(&body, context.limits())?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    Ok(Flow::Slow(Box::new(move || {
        Ok(Done::Integer(u64::from(key.store.edit(key.name(), sequence, &body)?)))
    })))
}

fn drop_timeline(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    Ok(Flow::Slow(Box::new(move || {
        Ok(Done::Integer(u64::from(key.store.drop_timeline(key.name())?)))
    })))
}
