//! The connection itself: HELLO, AUTH, PING, ECHO, QUIT, RESET, SELECT, READONLY, as in Redis.

use bytes::Bytes;

use super::arguments::integer;
use super::client::check_name;
use super::row::{Class, Command, Context, Flow, Run};
use crate::auth::LoginError;
use crate::protocol::Protocol;
use crate::refusal::Refusal;

/// The version of Redis that clients see. It tells them which commands of this group and of CLIENT
/// they can use.
pub(super) const REDIS_VERSION: &str = "7.4.0";

pub(super) static COMMANDS: &[Command] = &[
    Command::new("HELLO", -1, Class::Connection, Run::Now(hello))
        .told(
            "[2|3] [AUTH user pass] [SETNAME name]",
            "Selects the protocol; map of facts about the server.",
        )
        .before_login()
        .secret(),
    Command::new("AUTH", -2, Class::Connection, Run::Now(auth))
        .told("[user] pass", "Logs in; OK. The only user is default.")
        .before_login()
        .secret(),
    Command::new("PING", -1, Class::Connection, Run::Now(ping))
        .told("[message]", "PONG, or the message.")
        .while_subscribed(),
    Command::new("ECHO", 2, Class::Connection, Run::Now(echo)).told("message", "The message."),
    Command::new("QUIT", -1, Class::Connection, Run::Now(quit))
        .told("", "OK, and the connection is closed.")
        .before_login()
        .while_subscribed(),
    Command::new("RESET", 1, Class::Connection, Run::Now(reset))
        .told("", "RESET. RESP2, no name, no subscriptions, not logged in: as after connecting.")
        .before_login()
        .while_subscribed(),
    Command::new("SELECT", 2, Class::Connection, Run::Now(select))
        .told("0", "OK. There is one database."),
    Command::new("READONLY", 1, Class::Connection, Run::Now(read_only))
        .told("", "OK, for cluster clients; it changes nothing."),
];

fn hello(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (protocol, mut rest) = match arguments.split_first() {
        None => (context.connection.out.protocol, arguments),
        Some((version, rest)) => match &version[..] {
            b"2" => (Protocol::Resp2, rest),
            b"3" => (Protocol::Resp3, rest),
            _ => return Err(Refusal::new("NOPROTO", "unsupported protocol version")),
        },
    };
    // All arguments are checked before any of them takes effect.
    let (mut credentials, mut name) = (None, None);
    loop {
        rest = match rest {
            [] => break,
            [word, user, password, rest @ ..] if word.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((user, password));
                rest
            }
            [word, given, rest @ ..] if word.eq_ignore_ascii_case(b"SETNAME") => {
                check_name(given)?;
                name = Some(given);
                rest
            }
            _ => {
                return Err(Refusal::usage(
                    "syntax error: HELLO [2|3] [AUTH user pass] [SETNAME name]",
                ));
            }
        };
    }
    match credentials {
        Some((user, password)) => log_in(context, user, password)?,
        None if context.connection.logged_in => {}
        None => return Err(Refusal::new("NOAUTH", "HELLO must be called with AUTH here")),
    }
    if let Some(name) = name {
        context.connection.rename(name);
    }
    if protocol == Protocol::Resp2 {
        // Only in RESP3 can the frames of follows be distinguished from replies.
        context.connection.subscriptions.end_follows();
    }
    context.connection.speak(protocol);
    let id = context.connection.client.id;
    let out = &mut context.connection.out;
    out.map(7);
    for (name, value) in [("server", "strandline"), ("version", REDIS_VERSION)] {
        out.bulk(name);
        out.bulk(value);
    }
    out.field("proto", u64::from(protocol.number()));
    out.field("id", id);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        out.bulk(name);
        out.bulk(value);
    }
    out.bulk("modules");
    out.array(0);
    Ok(Flow::Done)
}

fn auth(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    match arguments {
        [password] => log_in(context, b"default", password)?,
        [user, password] => log_in(context, user, password)?,
        _ => return Err(Refusal::syntax()),
    }
    context.connection.out.ok();
    Ok(Flow::Done)
}

fn log_in(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), Refusal> {
    context.shared.password.check(user, password).map_err(|error| match error {
        LoginError::NotConfigured => Refusal::usage(
            "AUTH <password> called without any password configured for the default user",
        ),
        LoginError::Wrong => {
            Refusal::new("WRONGPASS", "invalid username-password pair or user is disabled.")
        }
    })?;
    context.connection.logged_in = true;
    Ok(())
}

fn ping(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    if arguments.len() > 1 {
        return Err(Refusal::usage("wrong number of arguments for 'ping' command"));
    }
    let in_subscription = context.connection.is_subscriber_only();
    let out = &mut context.connection.out;
    match arguments.first() {
        message if in_subscription => {
            out.array(2);
            out.bulk("pong");
            out.bulk(message.map_or(&b""[..], |message| &message[..]));
        }
        Some(message) => out.bulk(message),
        None => out.simple("PONG"),
    }
    Ok(Flow::Done)
}

fn echo(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    context.connection.out.bulk(&arguments[0]);
    Ok(Flow::Done)
}

fn quit(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    context.connection.out.ok();
    Ok(Flow::Close)
}

fn reset(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    context.connection.reset(context.shared);
    context.connection.out.simple("RESET");
    Ok(Flow::Done)
}

fn select(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    if integer(&arguments[0])? != 0 {
        return Err(Refusal::usage("DB index is out of range"));
    }
    context.connection.out.ok();
    Ok(Flow::Done)
}

fn read_only(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    context.connection.out.ok();
    Ok(Flow::Done)
}
