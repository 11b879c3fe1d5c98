//! IM.SEND. It is a write like TL.APPEND: the sends of a pipeline become one submission. If the
//! members of a conversation change between the decision and the commit, the session repeats the
//! send with `Messaging::send`, on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;
use strandline::Receipt;

use super::messaging;
use crate::commands::arguments::{check_body, options, positive};
use crate::commands::row::{Class, Command, Context, KnownReply, Prepared, Run, Write};
use crate::commands::scope::{Scope, TokenRule, Touch};
use crate::messaging::{Message, Messaging};
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(in crate::commands) static COMMANDS: &[Command] =
    &[Command::new("IM.SEND", -4, Class::Write, Run::Write(send))
        .touches(Scope::Of(&[Touch::Conversation(1), Touch::User(2)]))
        .by_token(TokenRule::AsItself(2))
        .one_key()
        .told(
            "conv sender body [ID id] [PX ms]",
            "Map: seq, time, duplicate (0 or 1). Durable; reaches every member or none.",
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
    check_body(&arguments[2], context.limits())?;
    let [conv, sender, body] = [0, 1, 2].map(|at| arguments[at].clone());
    let message = Message { conv, sender, body, id, lifetime_ms };
    let messaging = messaging(context.shared)?;
    if messaging.is_near(&message.conv) {
        return decide(messaging, message).map(Prepared::Decided);
    }
    let messaging = Arc::clone(messaging);
    Ok(Prepared::Elsewhere(Box::new(move || decide(&messaging, message))))
}

fn decide(messaging: &Arc<Messaging>, message: Message) -> Result<Write, Refusal> {
    let known = |receipt: Receipt| -> KnownReply { Box::new(move |out| reply(&receipt, out)) };
    let decision = messaging.decide_send(&message)?.map(known);
    let messaging = Arc::clone(messaging);
    let again = move || Ok(known(messaging.send(&message)?));
    Ok(Write { decision, reply, again: Some(Box::new(again)), after: None })
}

fn reply(receipt: &Receipt, out: &mut Encoder) {
    out.map(3);
    out.field("seq", receipt.sequences.first().copied().unwrap_or(0));
    out.field("time", receipt.time_ms);
    out.field("duplicate", u64::from(receipt.duplicate));
}
