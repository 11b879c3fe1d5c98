//! IM.CREATE, IM.JOIN, IM.LEAVE, IM.MEMBERS, IM.INFO.

use bytes::Bytes;

use super::{detached, reading, slowly};
use crate::commands::arguments::{after_and_count, options};
use crate::commands::place::FRAME_BYTES;
use crate::commands::row::{Class, Command, Context, Flow, Run};
use crate::commands::scope::{Scope, TokenRule, Touch, members_at};
use crate::messaging::{History, MAX_ID_BYTES, Messaging, Mode, NewConversation};
use crate::refusal::Refusal;

pub(in crate::commands) static COMMANDS: &[Command] = &[
    Command::new("IM.CREATE", -4, Class::Write, Run::Now(create))
        .touches(Scope::Of(&[Touch::Conversation(1), Touch::Members(2)]))
        .by_token(TokenRule::Create)
        .one_key()
        .told(
            "conv [MODE auto|push|pull] [HISTORY all|joined] MEMBERS user [user ...]",
            "1, or 0 when it exists with the same settings (CONFLICT otherwise).",
        ),
    Command::new("IM.JOIN", -3, Class::Write, Run::Now(join))
        .touches(Scope::Of(&[Touch::Conversation(1), Touch::Users(2)]))
        .by_token(TokenRule::Join)
        .one_key()
        .told("conv user [user ...]", "Integer: the number of users who became members."),
    Command::new("IM.LEAVE", -3, Class::Write, Run::Now(leave))
        .touches(Scope::Of(&[Touch::Conversation(1), Touch::Users(2)]))
        .by_token(TokenRule::OnlyItself(2))
        .one_key()
        .told("conv user [user ...]", "Integer: the number of users who were members."),
    Command::new("IM.MEMBERS", -2, Class::Read, Run::Now(members))
        .touches(Scope::Of(&[Touch::Conversation(1)]))
        .by_token(TokenRule::AsMember)
        .one_key()
        .told("conv [AFTER user] [COUNT n]", "Array of users in byte order."),
    Command::new("IM.INFO", 2, Class::Read, Run::Now(info))
        .touches(Scope::Of(&[Touch::Conversation(1)]))
        .by_token(TokenRule::AsMember)
        .one_key()
        .told("conv", "Map: members, mode, history, first, last, created."),
];

fn create(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    // Between the name and MEMBERS there are options, in pairs.
    let at = members_at(&arguments[1..])
        .map(|at| at + 1)
        .ok_or_else(|| Refusal::usage("syntax error: MEMBERS is missing"))?;
    let (mut mode, mut history) = (Mode::default(), History::default());
    options(&arguments[1..at], |word, value| {
        match word {
            b"MODE" => mode = one_of(value, &[Mode::Auto, Mode::Push, Mode::Pull], Mode::word)?,
            b"HISTORY" => history = one_of(value, &[History::All, History::Joined], History::word)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let members = detached(&arguments[at + 1..]);
    if members.is_empty() {
        return Err(Refusal::usage("syntax error: at least one member"));
    }
    let conv = Bytes::copy_from_slice(&arguments[0]);
    let new = NewConversation { mode, history, members };
    slowly(context, move |messaging| Ok(u64::from(messaging.create(&conv, &new)?)))
}

fn one_of<T: Copy>(raw: &[u8], all: &[T], word: fn(T) -> &'static str) -> Result<T, Refusal> {
    let found = all.iter().find(|one| raw.eq_ignore_ascii_case(word(**one).as_bytes()));
    found.copied().ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        Refusal::usage(format!("syntax error: one of {}", words.join(", ")))
    })
}

fn join(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let words = detached(arguments);
    slowly(context, move |messaging| Ok(messaging.join(&words[0], &words[1..])? as u64))
}

fn leave(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let words = detached(arguments);
    slowly(context, move |messaging| Ok(messaging.leave(&words[0], &words[1..])? as u64))
}

fn members(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (after, count) = after_and_count(&arguments[1..])?;
    let words = detached(&[arguments[0].clone(), after.unwrap_or_default()]);
    let terminal = context.connection.identity.terminal().cloned();
    let read = move |messaging: &Messaging| {
        if let Some(terminal) = terminal {
            messaging.check_member(&words[0], &terminal.user)?;
        }
        messaging.members(&words[0], &words[1], count)
    };
    reading(context, count * (MAX_ID_BYTES + FRAME_BYTES), read, |members, out| {
        out.array(members.len());
        for user in members {
            out.bulk(user);
        }
    })
}

fn info(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let words = detached(arguments);
    let terminal = context.connection.identity.terminal().cloned();
    reading(
        context,
        0,
        move |messaging| {
            if let Some(terminal) = terminal {
                messaging.check_member(&words[0], &terminal.user)?;
            }
            messaging.info(&words[0])
        },
        |info, out| {
            out.map(6);
            out.field("members", info.members as u64);
            out.bulk("mode");
            out.bulk(info.mode.word());
            out.bulk("history");
            out.bulk(info.history.word());
            out.field("first", info.first);
            out.field("last", info.last);
            out.field("created", info.created_ms);
        },
    )
}
