//! Marks and changes of messages: IM.READ, IM.UNREAD, IM.RECALL, IM.EDIT, IM.HIDE.

use std::sync::Arc;

use bytes::Bytes;

use super::{at_length, detached, messaging, slowly};
use crate::commands::arguments::{check_body, integer};
use crate::commands::row::{
    After, Class, Command, Context, Flow, KnownReply, Prepared, Run, Write, WriteReply,
};
use crate::commands::scope::{Scope, TokenRule, Touch};
use crate::messaging::{Decision, Messaging, Trouble};
use crate::refusal::Refusal;

/// The conversation, and the user who acts.
const OF_A_MEMBER: Scope = Scope::Of(&[Touch::Conversation(1), Touch::User(2)]);

/// The user who acts is the token's.
const AS_ITSELF: TokenRule = TokenRule::AsItself(2);

pub(in crate::commands) static COMMANDS: &[Command] = &[
    Command::new("IM.READ", 4, Class::Write, Run::Write(read))
.touches(OF_A_MEMBER).by_token(AS_ITSELF).one_key().told(
        "conv user seq",
        "1 when the read mark moved up, else 0. Reaches the user's other terminals.",
    ),
    Command::new("IM.UNREAD", -2, Class::Read, Run::Now(unread))
.touches(Scope::Of(&[Touch::User(1), Touch::Conversations(2)])).by_token(TokenRule::AsItself(1))
        .one_key()
        .told("user [conv ...]", "Map: conv to the number of unread messages."),
    Command::new("IM.RECALL", 4, Class::Write, Run::Now(recall))
.touches(OF_A_MEMBER).by_token(AS_ITSELF).one_key().told(
        "conv user seq",
        "1: the body is removed, and every member who may see the message is notified; 0: it was \
         recalled before. NOTFOUND: no such message, or nothing of it is kept; NOPERM: not the \
         sender, not a member, or too late.",
    ),
    Command::new("IM.EDIT", 5, Class::Write, Run::Now(edit))
.touches(OF_A_MEMBER).by_token(AS_ITSELF).one_key().told(
        "conv user seq body",
        "1: the message has the new body, and every member who may see it is notified. Refused as \
         IM.RECALL is; a recalled message is NOTFOUND.",
    ),
    Command::new("IM.HIDE", -4, Class::Write, Run::Write(hide))
.touches(OF_A_MEMBER).by_token(AS_ITSELF).one_key().told(
        "conv user seq [seq ...]",
        "Hides messages from this user; integer: the number of messages that became hidden.",
    ),
];

fn read(context: &Context<'_>, arguments: &[Bytes]) -> Result<Prepared, Refusal> {
    let (words, sequence) = (detached(&arguments[..2]), integer(&arguments[2])?);
    let same = words.clone();
    mark(
        context,
        words[1].clone(),
        move |messaging| Ok(messaging.decide_read(&words[0], &words[1], sequence)?.map(u64::from)),
        |_, out| out.integer(1),
        move |messaging| Ok(u64::from(messaging.read(&same[0], &same[1], sequence)?)),
    )
}

/// A mark of a user, whose reply is a number. It is decided on a thread that may block, and
/// committed like an append, together with the writes of other connections.
fn mark(
    context: &Context<'_>,
    user: Bytes,
    decide: impl FnOnce(&Messaging) -> Result<Decision<u64>, Trouble> + Send + 'static,
    reply: WriteReply,
    again: impl FnOnce(&Messaging) -> Result<u64, Trouble> + Send + 'static,
) -> Result<Prepared, Refusal> {
    let messaging = Arc::clone(messaging(context.shared)?);
    let known = |number| -> KnownReply { Box::new(move |out| out.integer(number)) };
    Ok(Prepared::Elsewhere(Box::new(move || {
        let decision = decide(&messaging)?.map(known);
        let after: Option<After> = messaging.has_long_marks(&user)?.then(|| {
            let messaging = Arc::clone(&messaging);
            let shorten: After = Box::new(move || messaging.shorten_marks(&user));
            shorten
        });
        let again = move || Ok(known(again(&messaging)?));
        Ok(Write { decision, reply, again: Some(Box::new(again)), after })
    })))
}

fn unread(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let words = detached(arguments);
    let sight = context.connection.identity.sight();
    at_length(
        context,
        move |messaging| {
            let mut unread = messaging.unread(&words[0], &words[1..])?;
            if let Some(user) = sight {
                unread.retain(|(conv, _)| user.rules().patterns.has_conversation(conv));
            }
            Ok(unread)
        },
        |unread, out| {
            out.map(unread.len());
            for (conv, count) in unread {
                out.bulk(conv);
                out.integer(*count);
            }
        },
    )
}

fn recall(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (words, sequence) = (detached(&arguments[..2]), integer(&arguments[2])?);
    slowly(context, move |messaging| {
        Ok(u64::from(messaging.recall(&words[0], &words[1], sequence)?))
    })
}

fn edit(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (words, sequence) = (detached(arguments), integer(&arguments[2])?);
    check_body(&words[3], context.limits())?;
    slowly(context, move |messaging| {
        messaging.edit(&words[0], &words[1], sequence, &words[3])?;
        Ok(1)
    })
}

fn hide(context: &Context<'_>, arguments: &[Bytes]) -> Result<Prepared, Refusal> {
    let words = detached(&arguments[..2]);
    let sequences = arguments[2..].iter().map(|raw| integer(raw)).collect::<Result<Vec<_>, _>>()?;
    let (same, same_sequences) = (words.clone(), sequences.clone());
    mark(
        context,
        words[1].clone(),
        move |messaging| {
            let decision = messaging.decide_hide(&words[0], &words[1], &sequences)?;
            Ok(decision.map(|count| count as u64))
        },
        |receipt, out| out.integer(Messaging::hidden_by(receipt) as u64),
        move |messaging| Ok(messaging.hide(&same[0], &same[1], &same_sequences)? as u64),
    )
}
