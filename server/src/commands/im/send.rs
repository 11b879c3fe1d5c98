//! IM.SEND. It is a write as TL.APPEND is: the sends of a pipeline become one submission. If the
//! members of a conversation change between the decision and the commit, the session asks for the
//! decision again.

use std::sync::Arc;

use bytes::Bytes;
use strandline::Receipt;

use super::messaging;
use crate::commands::append::check_body;
use crate::commands::arguments::{options, positive};
use crate::commands::row::{Again, Basis, Class, Command, Context, Prepared, Ready, Run, Write};
use crate::messaging::{Message, Sending};
use crate::protocol::Encoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

pub(in crate::commands) static COMMANDS: &[Command] =
    &[Command::new("IM.SEND", -4, Class::Write, Run::Write(send)).one_key().told(
        "conv sender body [ID id] [PX ms]",
        "Map: seq, time, duplicate (0 or 1). Durable, and with every member or nobody.",
    )];

fn send(context: &Context<'_>, arguments: &[Bytes]) -> Result<Prepared, Refusal> {
    let (mut id, mut lifetime_ms) = (None, 0);
    options(&arguments[3..], |word, value| {
        match word {
            b"ID" => id = Some(value.clone()),
            b"PX" => lifetime_ms = positive(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    check_body(context, &arguments[2])?;
    let [conv, sender, body] = [0, 1, 2].map(|at| arguments[at].clone());
    let message = Message { conv, sender, body, id, lifetime_ms };
    if messaging(context.shared)?.is_near(&message.conv) {
        return decide(context.shared, message).map(Prepared::Ready);
    }
    let shared = Arc::clone(context.shared);
    Ok(Prepared::Elsewhere(Box::new(move || decide(&shared, message))))
}

fn decide(shared: &Shared, message: Message) -> Result<Ready, Refusal> {
    match messaging(shared)?.send(&message)? {
        Sending::Known(receipt) => Ok(Ready::Known(receipt, reply)),
        Sending::Commit(commit) => {
            let basis = Basis { name: message.conv.clone(), version: commit.version };
            let again =
                Again { basis, decide: Box::new(move |shared| decide(shared, message.clone())) };
            Ok(Ready::Commit(Box::new(Write { batch: commit.batch, reply, again: Some(again) })))
        }
    }
}

fn reply(receipt: &Receipt, out: &mut Encoder) {
    out.map(3);
    out.field("seq", receipt.sequences.first().copied().unwrap_or(0));
    out.field("time", receipt.time_ms);
    out.field("duplicate", u64::from(receipt.duplicate));
}
