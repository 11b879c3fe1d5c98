//! ACL: the users and their rules, in the forms of Redis. Changes last until the server stops;
//! users that shall stay are in the settings, which ACL LOAD reads again.

use std::sync::Arc;

use bytes::Bytes;

use super::arguments::{integer, shown, unknown_subcommand};
use super::reply::write_help;
use super::row::{Class, Command, Context, Done, Flow, Reply, Run};
use super::scope::{Part, Scope};
use crate::access::{Access, Account, Catalog, DEFAULT_USER, RAW_EVENTS, categories};
use crate::protocol::Encoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// The bits of a password without a number, and the most.
const DEFAULT_BITS: u64 = 256;
const MOST_BITS: u64 = 4096;

static PARTS: &[Part] = &[
    own("HELP"),
    own("WHOAMI"),
    own("CAT"),
    own("GENPASS"),
    of_all("SETUSER"),
    of_all("GETUSER"),
    of_all("DELUSER"),
    of_all("LIST"),
    of_all("USERS"),
    of_all("LOAD"),
];

/// A subcommand that shows nothing of other users.
const fn own(word: &'static str) -> Part {
    Part::new(word, Class::Connection, Scope::Nothing)
}

/// A subcommand about all users: whoever runs it could give itself every right.
const fn of_all(word: &'static str) -> Part {
    Part::new(word, Class::Admin, Scope::Everything)
}

pub(super) static COMMANDS: &[Command] = &[Command::new("ACL", -2, Class::Admin, Run::Now(acl))
    .secret()
    .touches(Scope::Everything)
    .in_parts(PARTS)
    .told(
        "SETUSER user [rule ...] | GETUSER user | DELUSER user [user ...] | LIST | USERS | WHOAMI \
         | CAT [category] | GENPASS [bits] | LOAD",
        "Users and their rules (access.md), as in Redis. LOAD reads the users of the \
         configuration file again.",
    )
    .replies(Reply::Large)];

fn acl(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    match (word.as_slice(), &arguments[1..]) {
        (b"HELP", []) => return write_help("ACL", context),
        (b"SETUSER", [name, rules @ ..]) => return set_user(context, name, rules),
        (b"DELUSER", names @ [_, ..]) => return remove(context, names),
        (b"LOAD", []) => return load(context),
        (b"GETUSER", [name]) => {
            let user = context.shared.access.user(name);
            write_user(user.as_deref(), &mut context.connection.out);
        }
        (b"LIST", []) => {
            let lines = context.shared.access.all_users();
            let line =
                |user: &Arc<Account>| format!("user {} {}", user.name(), user.rules().text());
            write_words(lines.iter().map(line), &mut context.connection.out);
        }
        (b"USERS", []) => {
            let users = context.shared.access.all_users();
            let names = users.iter().map(|user| user.name().to_owned());
            write_words(names, &mut context.connection.out);
        }
        (b"WHOAMI", []) => {
            let connection = &mut *context.connection;
            connection.out.bulk(connection.identity.name());
        }
        (b"CAT", []) => {
            write_words(categories().map(str::to_owned), &mut context.connection.out);
        }
        (b"CAT", [name]) => {
            let names = category(context.shared.access.catalog(), name)?;
            write_words(names.into_iter(), &mut context.connection.out);
        }
        (b"GENPASS", bits @ ([] | [_])) => {
            let bits = bits.first().map_or(Ok(DEFAULT_BITS), |bits| integer(bits))?;
            if !(1..=MOST_BITS).contains(&bits) {
                let text = format!("the number of bits must be from 1 to {MOST_BITS}");
                return Err(Refusal::usage(text));
            }
            let made = Access::random_password(bits as usize).map_err(Refusal::usage)?;
            context.connection.out.bulk(made);
        }
        (
            b"HELP" | b"SETUSER" | b"DELUSER" | b"LOAD" | b"GETUSER" | b"LIST" | b"USERS"
            | b"WHOAMI" | b"CAT" | b"GENPASS",
            _,
        ) => {
            let word = word.to_ascii_lowercase();
            let word = String::from_utf8_lossy(&word);
            let text = format!("wrong number of arguments for 'acl|{word}' command");
            return Err(Refusal::usage(text));
        }
        _ => return Err(unknown_subcommand("ACL", &arguments[0])),
    }
    Ok(Flow::Done)
}

fn write_words(words: impl Iterator<Item = String>, out: &mut Encoder) {
    let words: Vec<String> = words.collect();
    out.array(words.len());
    for word in words {
        out.bulk(word);
    }
}

/// The fields of Redis, and the name of its certificates if it has one; there are no selectors.
fn write_user(user: Option<&Account>, out: &mut Encoder) {
    let Some(user) = user else { return out.null() };
    let (rules, certificate) = (user.rules(), user.certificate());
    out.map(6 + usize::from(certificate.is_some()));
    out.bulk("flags");
    let mut flags = vec![if rules.is_on { "on" } else { "off" }.to_owned()];
    flags.extend(rules.needs_no_password.then(|| "nopass".to_owned()));
    write_words(flags.into_iter(), out);
    out.bulk("passwords");
    write_words(rules.passwords.iter().map(|hash| hash.text().to_owned()), out);
    for (name, value) in [
        ("commands", rules.grants.text()),
        ("keys", rules.patterns.key_rules().join(" ")),
        ("channels", rules.patterns.channel_rules().join(" ")),
    ] {
        out.bulk(name);
        out.bulk(value);
    }
    out.bulk("selectors");
    out.array(0);
    if let Some(name) = certificate {
        out.bulk("certificate");
        out.bulk(name);
    }
}

/// The commands of a category.
fn category(catalog: &Catalog, name: &[u8]) -> Result<Vec<String>, Refusal> {
    let unknown = || Refusal::usage(format!("Unknown category '{}'", shown(name)));
    let word = format!("@{}", std::str::from_utf8(name).map_err(|_| unknown())?);
    let word = word.to_ascii_lowercase();
    if word == RAW_EVENTS {
        // A right that other commands need on some keys.
        return Ok(Vec::new());
    }
    let class = Class::named(&word).ok_or_else(unknown)?;
    let units = catalog.all().filter(|(_, unit)| unit.class == class);
    Ok(units.map(|(_, unit)| unit.name()).collect())
}

fn texts(words: &[Bytes]) -> Result<Vec<String>, Refusal> {
    let text = |word: &Bytes| {
        let invalid = |_| Refusal::usage("names and rules are UTF-8");
        Ok(std::str::from_utf8(word).map_err(invalid)?.to_owned())
    };
    words.iter().map(text).collect()
}

fn set_user(context: &Context<'_>, name: &Bytes, rules: &[Bytes]) -> Result<Flow, Refusal> {
    let (names, rules) = (texts(std::slice::from_ref(name))?, texts(rules)?);
    change(context, move |shared| {
        shared.access.set_user(&names[0], rules.iter().map(String::as_str))?;
        Ok(Done::Ok)
    })
}

fn remove(context: &Context<'_>, names: &[Bytes]) -> Result<Flow, Refusal> {
    let names = texts(names)?;
    if names.iter().any(|name| name == DEFAULT_USER) {
        return Err(Refusal::usage("The 'default' user cannot be removed"));
    }
    change(context, move |shared| {
        let count = shared.access.remove_users(names.iter().map(String::as_str));
        Ok(Done::Integer(count as u64))
    })
}

fn load(context: &Context<'_>) -> Result<Flow, Refusal> {
    change(context, |shared| {
        let read = shared.config.read();
        let config = read
            .ok_or("the server was started without a configuration file: start it with --config")?
            .map_err(|error| chained(&error))?;
        shared.load_users(&config).map_err(|error| chained(&error))?;
        Ok(Done::Ok)
    })
}

/// An error with its causes.
fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(error.to_string().lines().next().unwrap_or_default());
        cause = error.source();
    }
    text
}

/// A change of the users, on a thread that may block. All connections then look at their rights.
fn change(
    context: &Context<'_>,
    work: impl FnOnce(&Shared) -> Result<Done, String> + Send + 'static,
) -> Result<Flow, Refusal> {
    let shared = Arc::clone(context.shared);
    Ok(Flow::Slow(Box::new(move || {
        let done = work(&shared).map_err(Refusal::usage)?;
        shared.clients.all().iter().for_each(|client| client.look_again());
        Ok(done)
    })))
}
