//! Writing: TL.APPEND and TL.FANOUT. Both become a batch; the session submits it together with its neighbours in the pipeline.

use bytes::Bytes;
use strandline::{Batch, Durability};

use super::arguments::{counted, durability, options};
use super::row::{Class, Command, Context, Run, Write};
use crate::key::Key;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.APPEND", -3, Class::Write, Run::Write(append))
        .one_key()
        .told("key body [DURABILITY disk|os]", "Appends a body; integer: its sequence."),
    Command::new("TL.FANOUT", -4, Class::Write, Run::Write(fan_out)).counted_keys(2).told(
        "body numkeys key [key ...] [DURABILITY disk|os]",
        "Appends one body to every key, all or none; array: the sequences in key order.",
    ),
];

fn append(context: &Context<'_>, arguments: &[Bytes]) -> Result<Write, Refusal> {
    let (name, body) = (&arguments[0], &arguments[1]);
    let durability = write_options(&arguments[2..])?;
    check_body(context, body)?;
    let key = Key::find(&context.shared.engine, name)?;
    Ok(Write {
        batch: Batch::new().append(&key.store, key.name(), body).durability(durability),
        reply: |receipt, out| out.integer(receipt.sequences[0]),
    })
}

fn fan_out(context: &Context<'_>, arguments: &[Bytes]) -> Result<Write, Refusal> {
    let body = &arguments[0];
    let (names, rest) = counted(&arguments[1], &arguments[2..])?;
    let durability = write_options(rest)?;
    check_body(context, body)?;
    let keys: Vec<Key> =
        names.iter().map(|name| Key::find(&context.shared.engine, name)).collect::<Result<_, _>>()?;
    let targets = keys.iter().map(|key| (&key.store, key.name()));
    Ok(Write {
        batch: Batch::new().fan_out(body, targets).durability(durability),
        reply: |receipt, out| {
            out.array(receipt.sequences.len());
            for sequence in &receipt.sequences {
                out.integer(*sequence);
            }
        },
    })
}

fn write_options(words: &[Bytes]) -> Result<Durability, Refusal> {
    let mut chosen = Durability::Disk;
    options(words, |word, value| {
        if word != b"DURABILITY" {
            return Ok(false);
        }
        chosen = durability(value)?;
        Ok(true)
    })?;
    Ok(chosen)
}

/// Asked for here, before the keys are looked up, so that the contract's order of errors holds.
fn check_body(context: &Context<'_>, body: &[u8]) -> Result<(), Refusal> {
    let limit = context.shared.limits.max_body_bytes;
    if body.len() > limit { Err(Refusal::too_big("a body", limit)) } else { Ok(()) }
}
