//! The connection itself: HELLO, AUTH, PING, ECHO, QUIT, RESET, SELECT, READONLY, as in Redis.

use bytes::Bytes;

use super::arguments::integer;
use super::client::check_name;
use super::row::{Class, Command, Context, Flow, LogIn, Run, Then};
use super::scope::Scope;
use crate::access::DEFAULT_USER;
use crate::protocol::Protocol;
use crate::refusal::Refusal;

/// The version of Redis that clients see. It tells them which commands of this group and of CLIENT
/// they can use.
pub(super) const REDIS_VERSION: &str = "7.4.0";

pub(super) static COMMANDS: &[Command] = &[
    Command::new("HELLO", -1, Class::Connection, Run::Now(hello))
        .touches(Scope::Nothing)
        .told(
            "[2|3] [AUTH user pass] [SETNAME name]",
            "Selects the protocol; map of facts about the server.",
        )
        .before_login()
        .secret(),
    Command::new("AUTH", -2, Class::Connection, Run::Now(auth))
        .touches(Scope::Nothing)
        .told(
            "[user] pass",
            "Logs in; OK. Without a user: as default. The password may be a token.",
        )
        .before_login()
        .secret(),
    Command::new("PING", -1, Class::Connection, Run::Now(ping))
        .touches(Scope::Nothing)
        .told("[message]", "PONG, or the message.")
        .while_subscribed(),
    Command::new("ECHO", 2, Class::Connection, Run::Now(echo))
        .touches(Scope::Nothing)
        .told("message", "The message."),
    Command::new("QUIT", -1, Class::Connection, Run::Now(quit))
        .touches(Scope::Nothing)
        .told("", "OK, and the connection is closed.")
        .before_login()
        .while_subscribed(),
    Command::new("RESET", 1, Class::Connection, Run::Now(reset))
        .touches(Scope::Nothing)
        .told("", "RESET. RESP2, no name, no subscriptions, not logged in: as after connecting.")
        .before_login()
        .while_subscribed(),
    Command::new("SELECT", 2, Class::Connection, Run::Now(select))
        .touches(Scope::Nothing)
        .told("0", "OK. There is one database."),
    Command::new("READONLY", 1, Class::Connection, Run::Now(read_only))
        .touches(Scope::Nothing)
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
    let name = name.map(|name| Bytes::copy_from_slice(name));
    match credentials {
        Some((user, password)) => {
            let then = move |context: &mut Context<'_>| {
                greet(context, protocol, name.as_deref());
                Ok(())
            };
            Ok(log_in(user, password, Box::new(then)))
        }
        None if context.connection.is_logged_in() => {
            greet(context, protocol, name.as_deref());
            Ok(Flow::Done)
        }
        None => Err(Refusal::new("NOAUTH", "HELLO must be called with AUTH here")),
    }
}

/// Selects the protocol and writes the facts about the server.
fn greet(context: &mut Context<'_>, protocol: Protocol, name: Option<&[u8]>) {
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
}

fn auth(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let then: Then = Box::new(|context| {
        context.connection.out.ok();
        Ok(())
    });
    match arguments {
        [password] if is_open(context) && !context.shared.access.takes_token(password) => {
            Err(Refusal::usage(
                "AUTH <password> called without any password configured for the default user",
            ))
        }
        [password] => Ok(log_in(DEFAULT_USER.as_bytes(), password, then)),
        [user, password] => Ok(log_in(user, password, then)),
        _ => Err(Refusal::syntax()),
    }
}

/// Whether the user `default` has no password.
fn is_open(context: &Context<'_>) -> bool {
    context.shared.access.newcomer().is_known()
}

/// A login. The words are copied: slices of the input would keep the whole read buffer alive.
fn log_in(user: &[u8], password: &[u8], then: Then) -> Flow {
    let [user, password] = [user, password].map(Bytes::copy_from_slice);
    Flow::LogIn(Box::new(LogIn { user, password, then }))
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
