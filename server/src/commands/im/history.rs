//! Roaming: IM.HISTORY and IM.CONVERSATIONS.

use bytes::Bytes;
use strandline::Limit;

use super::{at_length, detached};
use crate::commands::arguments::{Paging, after_and_count, integer, options};
use crate::commands::row::{Class, Command, Context, Flow, Run};
use crate::commands::scope::{Scope, TokenRule, Touch};
use crate::messaging::{Listed, Messaging, Window};
use crate::protocol::Encoder;
use crate::push::{shown_parts, write_attributes, write_shown};
use crate::refusal::Refusal;

/// The conversation, and the user who reads.
const OF_A_MEMBER: Scope = Scope::Of(&[Touch::Conversation(1), Touch::User(2)]);

pub(in crate::commands) static COMMANDS: &[Command] = &[
    Command::new("IM.HISTORY", -3, Class::Read, Run::Now(history))
.touches(OF_A_MEMBER).by_token(TokenRule::AsItself(2)).one_key().told(
        "conv user [BEFORE seq | AFTER seq | AT time] [COUNT n]",
        "Array of [seq, time, sender, kind, body(, attributes)] that the user may see; BEFORE and \
         none: newest first.",
    ),
    Command::new("IM.CONVERSATIONS", -2, Class::Read, Run::Now(conversations))
.touches(Scope::Of(&[Touch::User(1)])).by_token(TokenRule::AsItself(1)).one_key().told(
        "user [AFTER token] [COUNT n]",
        "Map: next, items (maps of conv, seq, time, sender, kind, body, unread, read; attributes \
         if the last message has any), by last activity at the time of the first page; \
         conversations that moved since come (again) at the end.",
    ),
];

fn history(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let mut window = Window::Newest;
    let mut paging = Paging::default();
    options(&arguments[2..], |word, value| {
        let wanted = match word {
            b"BEFORE" => Window::Before(integer(value)?),
            b"AFTER" => Window::After(integer(value)?),
            b"AT" => Window::At(integer(value)?),
            b"COUNT" => return paging.take(word, value),
            _ => return Ok(false),
        };
        let is_second = window != Window::Newest
            && std::mem::discriminant(&window) != std::mem::discriminant(&wanted);
        if is_second {
            return Err(Refusal::usage("syntax error: one of BEFORE, AFTER, AT"));
        }
        window = wanted;
        Ok(true)
    })?;
    let limit = paging.limit(context.limits());
    let words = detached(&arguments[..2]);
    let read = move |messaging: &Messaging| messaging.history(&words[0], &words[1], window, limit);
    at_length(context, read, |shown, out| {
        out.array(shown.len());
        for event in shown {
            out.array(shown_parts(event));
            write_shown(event, out);
        }
    })
}

fn conversations(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (after, count) = after_and_count(&arguments[1..])?;
    let limit = Limit::entries(count).body_bytes(context.limits().reply_bytes);
    let words = detached(&[arguments[0].clone(), after.unwrap_or_default()]);
    let sight = context.connection.identity.sight();
    at_length(
        context,
        move |messaging| {
            let mut listed = messaging.conversations(&words[0], &words[1], limit)?;
            if let Some(user) = sight {
                listed.items.retain(|item| user.rules().patterns.has_conversation(&item.conv));
            }
            Ok(listed)
        },
        write_list,
    )
}

fn write_list(listed: &Listed, out: &mut Encoder) {
    out.map(2);
    out.bulk("next");
    out.bulk(&listed.next);
    out.bulk("items");
    out.array(listed.items.len());
    for item in &listed.items {
        let has_attributes = item.last.has_attributes();
        out.map(8 + usize::from(has_attributes));
        out.bulk("conv");
        out.bulk(&item.conv);
        out.field("seq", item.last.sequence);
        out.field("time", item.last.time_ms);
        out.bulk("sender");
        out.bulk(&item.last.sender);
        out.bulk("kind");
        out.bulk(item.kind());
        out.bulk("body");
        out.bulk(&item.last.body);
        out.field("unread", item.unread);
        out.field("read", item.read);
        if has_attributes {
            out.bulk("attributes");
            write_attributes(&item.last, out);
        }
    }
}
