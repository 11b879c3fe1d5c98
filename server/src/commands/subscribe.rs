//! Push as in Redis: (S)SUBSCRIBE, (S)UNSUBSCRIBE, PUBSUB NUMSUB. A channel is a key: each later
//! entry is pushed as a message. `im:{<user>}` is also a channel, for the events of a user. A
//! channel that is neither is accepted, as by Redis, and stays silent.

use std::sync::Arc;

use bytes::Bytes;

use super::arguments::unknown_subcommand;
use super::place::STEPS;
use super::reply::write_help;
use super::row::{Class, Command, Context, Done, Flow, Run, Sliced};
use super::scope::{Part, Scope, TokenRule, Touch};
use crate::push::{Start, SubscriptionKind};
use crate::refusal::Refusal;

static PARTS: &[Part] = &[
    Part::new("NUMSUB", Class::PubSub, Scope::Of(&[Touch::Channels(2)])),
    Part::new("HELP", Class::PubSub, Scope::Nothing),
];

pub(super) static COMMANDS: &[Command] = &[
    Command::new("SUBSCRIBE", -2, Class::PubSub, Run::Now(subscribe))
        .touches(Scope::Of(&[Touch::Channels(1)]))
        .by_token(TokenRule::OwnChannel)
        .told(
            "key [key ...]",
            "Pushes [message, key, \"<seq> <time>\\n\" + body] for each entry from now on; of \
             im:{<user>} \
             \"<conv> <seq> <time> <sender> <kind>\\n\" + body for each event that reaches the \
               user.",
        )
        .while_subscribed(),
    Command::new("UNSUBSCRIBE", -1, Class::PubSub, Run::Now(unsubscribe))
        .touches(Scope::Nothing)
        .by_token(TokenRule::Always)
        .told("[key ...]", "Ends these subscriptions, or all.")
        .while_subscribed(),
    Command::new("SSUBSCRIBE", -2, Class::PubSub, Run::Now(shard_subscribe))
        .touches(Scope::Of(&[Touch::Channels(1)]))
        .all_keys()
        .told("key [key ...]", "As SUBSCRIBE, with smessage.")
        .while_subscribed(),
    Command::new("SUNSUBSCRIBE", -1, Class::PubSub, Run::Now(shard_unsubscribe))
        .touches(Scope::Nothing)
        .all_keys()
        .told("[key ...]", "Ends these shard subscriptions, or all.")
        .while_subscribed(),
    Command::new("PUBSUB", -2, Class::PubSub, Run::Now(pubsub))
        .touches(Scope::Everything)
        .in_parts(PARTS)
        .told(
            "NUMSUB [channel ...]",
            "Array: each channel and its number of connections by SUBSCRIBE.",
        ),
];

fn subscribe(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    enter(context, arguments, SubscriptionKind::Message, "subscribe")
}

fn shard_subscribe(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    enter(context, arguments, SubscriptionKind::ShardMessage, "ssubscribe")
}

fn unsubscribe(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    leave(context, arguments, SubscriptionKind::Message, "unsubscribe");
    Ok(Flow::Done)
}

fn shard_unsubscribe(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    leave(context, arguments, SubscriptionKind::ShardMessage, "sunsubscribe");
    Ok(Flow::Done)
}

/// Determines the start of each channel, at once if all are in memory, and then subscribes to them.
fn enter(
    context: &mut Context<'_>,
    names: &[Bytes],
    kind: SubscriptionKind,
    word: &'static str,
) -> Result<Flow, Refusal> {
    let near = |name| Start::near(&context.shared.engine, name).transpose();
    let starts: Vec<Start> = names.iter().take(STEPS).map_while(near).collect::<Result<_, _>>()?;
    if starts.len() == names.len() {
        return begin(context, names, starts, (kind, word)).map(|()| Flow::Done);
    }
    let (shared, mut starts) = (Arc::clone(context.shared), Vec::new());
    // Copies: slices of the input would keep the whole read buffer alive.
    let mut names: Vec<Bytes> = names.iter().map(|name| Bytes::copy_from_slice(name)).collect();
    let slice = move || {
        let left = &names[starts.len()..];
        for name in &left[..left.len().min(STEPS)] {
            starts.push(Start::of(&shared.engine, shared.messaging.as_deref(), name)?);
        }
        if starts.len() < names.len() {
            return Ok(None);
        }
        let (names, starts) = (std::mem::take(&mut names), std::mem::take(&mut starts));
        let begin = move |context: &mut Context<'_>| begin(context, &names, starts, (kind, word));
        Ok(Some(Done::Then(Box::new(begin))))
    };
    Ok(Flow::Sliced(Sliced { bytes: 0, slice: Box::new(slice) }))
}

fn begin(
    context: &mut Context<'_>,
    names: &[Bytes],
    starts: Vec<Start>,
    (kind, word): (SubscriptionKind, &str),
) -> Result<(), Refusal> {
    for (name, start) in names.iter().zip(starts) {
        if !context.connection.subscriptions.contains(kind, name) {
            context.connection.check_room(context.shared, 1)?;
        }
        context.connection.subscriptions.subscribe(&context.shared.engine, kind, name, start)?;
        let subscriptions = &context.connection.subscriptions;
        let count = match kind {
            // SUBSCRIBE counts everything that puts a RESP2 connection into subscriber mode.
            SubscriptionKind::Message => {
                subscriptions.count(SubscriptionKind::Message)
                    + subscriptions.count(SubscriptionKind::ShardMessage)
            }
            _ => subscriptions.count(kind),
        };
        write_change(context, word, Some(name), count);
    }
    context.connection.note_subscriptions();
    Ok(())
}

fn leave(context: &mut Context<'_>, names: &[Bytes], kind: SubscriptionKind, word: &str) {
    let all;
    let names = if names.is_empty() {
        all = context.connection.subscriptions.names(kind);
        &all
    } else {
        names
    };
    if names.is_empty() {
        write_change(context, word, None, 0);
    }
    for name in names {
        context.connection.subscriptions.remove(kind, name);
        let count = context.connection.subscriptions.count(kind);
        write_change(context, word, Some(name), count);
    }
    context.connection.note_subscriptions();
}

fn write_change(context: &mut Context<'_>, word: &str, name: Option<&Bytes>, count: usize) {
    let out = &mut context.connection.out;
    out.push(3);
    out.bulk(word);
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.integer(count as u64);
}

fn pubsub(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (word, channels) = (&arguments[0], &arguments[1..]);
    if word.eq_ignore_ascii_case(b"HELP") && channels.is_empty() {
        return write_help("PUBSUB", context);
    }
    if !word.eq_ignore_ascii_case(b"NUMSUB") {
        return Err(unknown_subcommand("PUBSUB", word));
    }
    let out = &mut context.connection.out;
    out.array(channels.len() * 2);
    for channel in channels {
        out.bulk(channel);
        out.integer(context.shared.channels.count(channel) as u64);
    }
    Ok(Flow::Done)
}
