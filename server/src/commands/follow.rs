//! Gapless push: TL.FOLLOW and TL.UNFOLLOW. The reply says where the reader stands; the frames are pushed after it, from the cursor
//! on, catch-up and live alike (see `push`).

use bytes::Bytes;
use strandline::{Limit, Page, Verdict};

use super::arguments::{integer, keyword, options};
use super::read::write_standing;
use super::row::{Class, Command, Run};
use super::subscribe::check_room;
use super::{Context, Flow};
use crate::key::Key;
use crate::protocol::Protocol;
use crate::push::{Kind, verdict_word};
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.FOLLOW", -4, Class::PubSub, Run::Now(follow)).one_key().told(
        "key AFTER seq [EPOCH e]",
        "Map as TL.READ without entries, then push frames [tl.entry, key, seq, time, body] and \
         [tl.gap, key, verdict, first, last]. RESP3 only.",
    ),
    Command::new("TL.UNFOLLOW", 2, Class::PubSub, Run::Now(unfollow))
        .one_key()
        .told("key", "1, or 0 when the key was not followed."),
];

fn follow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    if context.connection.out.protocol == Protocol::Resp2 {
        return Err(Refusal::usage("TL.FOLLOW needs HELLO 3; in RESP2 use TL.READ ... BLOCK"));
    }
    keyword(arguments, 1, "AFTER")?;
    let (mut after, mut wanted) = (0, None);
    options(&arguments[1..], |word, value| {
        match word {
            b"AFTER" => after = integer(value)?,
            b"EPOCH" => wanted = Some(value.to_vec()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let epoch = key.store.epoch();
    let foreign = wanted.is_some_and(|wanted| wanted != epoch.as_bytes());
    if !context.connection.subscriptions.contains(Kind::Follow, &arguments[0]) {
        check_room(context, 1)?;
    }
    let nothing = Limit { entries: 0, body_bytes: 0, first_always: false, around_damage: false };
    let mut page = key.store.read_after(key.name(), after, nothing)?;
    let verdict = if foreign { "EPOCH" } else { verdict_word(page.verdict) };
    if foreign {
        page = Page { next: page.first - 1, more: false, ..page };
    } else if page.verdict != Verdict::Future {
        // The frames start behind what is gone for good; the gap is told by this reply.
        page.next = match page.verdict {
            Verdict::Trimmed => key.store.info(key.name())?.trimmed_to.max(after),
            _ => after,
        };
        context.connection.subscriptions.follow(&context.shared.engine, key, page.next)?;
    }
    write_standing(verdict, &epoch, &page, 6, &mut context.connection.out);
    Ok(Flow::Done)
}

fn unfollow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let was_there = context.connection.subscriptions.remove(Kind::Follow, &arguments[0]);
    context.connection.out.integer(u64::from(was_there));
    Ok(Flow::Done)
}
