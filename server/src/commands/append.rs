//! Writing: TL.APPEND and TL.FANOUT. Both become a batch; the session submits it together with the
//! other writes of the pipeline.
//!
//! The conditions of a commit (ID, IFLAST, SEQ) are checked by the engine, in this order: only the
//! engine knows which batches come before.

use std::time::Duration;

use bytes::Bytes;
use strandline::{Batch, Durability, Sequence, TargetList};

use super::arguments::{check_body, counted, durability, integer, options, positive};
use super::row::{Class, Command, Context, Prepared, Run, Write};
use super::scope::{Scope, Touch};
use crate::key::{self, Key};
use crate::messaging::limit_of;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.APPEND", -3, Class::Write, Run::Write(append))
.touches(Scope::Of(&[Touch::Key(1)])).writes_bodies().one_key().told(
        "key body [ID id] [SEQ n] [IFLAST n] [PX ms] [DURABILITY disk|os]",
        "Appends a body; integer: its sequence. A retry with the same ID and body: the original \
         sequence.",
    ),
    Command::new("TL.FANOUT", -4, Class::Write, Run::Write(fan_out))
.touches(Scope::Of(&[Touch::CountedKeys(2)])).writes_bodies().counted_keys(2).told(
        "body numkeys key [key ...] [ID id] [PX ms] [DURABILITY disk|os]",
        "Appends one body to every key, all or none; array: the sequences in key order. The ID \
         belongs to the first key.",
    ),
];

/// The options of a write.
#[derive(Default)]
struct Wishes {
    id: Option<Bytes>,
    sequence: Option<Sequence>,
    if_last: Option<Sequence>,
    /// `None`: as long as the store's TTL.
    lifetime: Option<Duration>,
    durability: Durability,
}

impl Wishes {
    /// Takes an option that all writes have. False for another word.
    fn take(&mut self, word: &[u8], value: &Bytes) -> Result<bool, Refusal> {
        match word {
            b"ID" => self.id = Some(value.clone()),
            b"PX" => self.lifetime = limit_of(positive(value)?),
            b"DURABILITY" => self.durability = durability(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An empty batch with these options.
    fn batch(&self) -> Batch {
        let mut batch = Batch::new().lifetime(self.lifetime).durability(self.durability);
        if let Some(id) = &self.id {
            batch = batch.id(id);
        }
        if let Some(last) = self.if_last {
            batch = batch.if_last(last);
        }
        if let Some(sequence) = self.sequence {
            batch = batch.sequence(sequence);
        }
        batch
    }
}

fn append(context: &Context<'_>, arguments: &[Bytes]) -> Result<Prepared, Refusal> {
    let (name, body) = (&arguments[0], &arguments[1]);
    let mut wishes = Wishes::default();
    options(&arguments[2..], |word, value| {
        match word {
            b"SEQ" => wishes.sequence = Some(integer(value)?),
            b"IFLAST" => wishes.if_last = Some(integer(value)?),
            _ => return wishes.take(word, value),
        }
        Ok(true)
    })?;
    check_body(body, context.limits())?;
    let key = Key::find(&context.shared.engine, name)?;
    let batch = wishes.batch().append(&key.store, key.name(), body);
    Ok(Prepared::Decided(Write::of(batch, |receipt, out| out.integer(receipt.sequences[0]))))
}

fn fan_out(context: &Context<'_>, arguments: &[Bytes]) -> Result<Prepared, Refusal> {
    let body = &arguments[0];
    let (names, rest) = counted(&arguments[1], &arguments[2..])?;
    let mut wishes = Wishes::default();
    options(rest, |word, value| wishes.take(word, value))?;
    check_body(body, context.limits())?;
    let targets = key::targets(&context.shared.engine, names)?;
    let batch = if targets.len() > TargetList::PAYS_FROM {
        // Made for each call, but written to the log once for all calls with the same keys.
        let (first, others) = targets.split_at(1);
        let list = context.shared.engine.target_list(others.iter().copied())?;
        wishes.batch().fan_out_to_list(body, first.iter().copied(), &list)
    } else {
        wishes.batch().fan_out(body, targets)
    };
    Ok(Prepared::Decided(Write::of(batch, |receipt, out| {
        out.array(receipt.sequences.len());
        for sequence in &receipt.sequences {
            out.integer(*sequence);
        }
    })))
}
