//! Stores and their TTLs: TL.STORE CREATE, LIST, INFO, TTL, DROP.

use bytes::Bytes;

use super::arguments::{integer, options};
use super::row::{Class, Command, Context, Done, Flow, Run};
use super::scope::{Part, Scope, Touch};
use crate::key::find_store;
use crate::messaging::{FIRST_STORES, limit_ms, limit_of};
use crate::refusal::{Refusal, is_store_name};

const USAGE: &str = "CREATE name [TTL ms] | LIST | INFO name | TTL name ms | DROP name [FORCE]";

/// A store is the prefix of its keys.
const STORE: Scope = Scope::Of(&[Touch::Store(2)]);

static PARTS: &[Part] = &[
    Part::new("LIST", Class::Read, Scope::Everything),
    Part::new("INFO", Class::Read, STORE),
    Part::new("CREATE", Class::Write, STORE),
    Part::new("TTL", Class::Write, STORE),
    Part::new("DROP", Class::Write, STORE),
];

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "TL.STORE",
    -2,
    Class::Write,
    Run::Now(store),
)
.touches(Scope::Everything)
.in_parts(PARTS)
.told(
    USAGE,
    "OK, array of names, map of name and ttl, OK, OK. TTL 0: entries are kept for ever. DROP: \
         of an empty store, with FORCE of any \
         but messages and sync.",
)];

fn store(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    match (word.as_slice(), &arguments[1..]) {
        (b"CREATE", [name, rest @ ..]) => create(context, name, rest),
        (b"LIST", []) => {
            list(context);
            Ok(Flow::Done)
        }
        (b"INFO", [name]) => info(context, name),
        (b"TTL", [name, ttl_ms]) => set_ttl(context, name, ttl_ms),
        (b"DROP", [name, words @ ..])
            if words.iter().all(|word| word.eq_ignore_ascii_case(b"FORCE")) =>
        {
            drop_store(context, name, !words.is_empty())
        }
        _ => Err(Refusal::usage(format!("syntax error: TL.STORE {USAGE}"))),
    }
}

fn create(context: &Context<'_>, name: &[u8], rest: &[Bytes]) -> Result<Flow, Refusal> {
    let mut ttl = None;
    options(rest, |word, value| {
        if word != b"TTL" {
            return Ok(false);
        }
        ttl = limit_of(integer(value)?);
        Ok(true)
    })?;
    if !is_store_name(name) {
        return Err(Refusal::usage(
            "a store's name is 1 to 32 of a-z, 0-9, _ and -, and not 'im', which is reserved",
        ));
    }
    let name = String::from_utf8_lossy(name).into_owned();
    let engine = context.shared.engine.clone();
    Ok(Flow::Slow(Box::new(move || Ok(engine.create_store(&name, ttl).map(|_| Done::Ok)?))))
}

fn drop_store(context: &Context<'_>, name: &[u8], force: bool) -> Result<Flow, Refusal> {
    if FIRST_STORES.iter().any(|first| first.as_bytes() == name) {
        return Err(Refusal::new("NOPERM", "this store cannot be dropped"));
    }
    let name = find_store(&context.shared.engine, name)?.name().to_owned();
    let engine = context.shared.engine.clone();
    Ok(Flow::Slow(Box::new(move || Ok(engine.drop_store(&name, force).map(|()| Done::Ok)?))))
}

fn list(context: &mut Context<'_>) {
    let mut stores = context.shared.engine.stores();
    stores.retain(|store| is_store_name(store.name.as_bytes()));
    let out = &mut context.connection.out;
    out.array(stores.len());
    for store in stores {
        out.bulk(store.name);
    }
}

fn info(context: &mut Context<'_>, name: &[u8]) -> Result<Flow, Refusal> {
    let store = find_store(&context.shared.engine, name)?;
    let out = &mut context.connection.out;
    out.map(2);
    out.bulk("name");
    out.bulk(name);
    out.field("ttl", limit_ms(store.ttl()));
    Ok(Flow::Done)
}

fn set_ttl(context: &Context<'_>, name: &[u8], ttl_ms: &[u8]) -> Result<Flow, Refusal> {
    let ttl = limit_of(integer(ttl_ms)?);
    let name = find_store(&context.shared.engine, name)?.name().to_owned();
    let engine = context.shared.engine.clone();
    Ok(Flow::Slow(Box::new(move || Ok(engine.set_store_ttl(&name, ttl).map(|()| Done::Ok)?))))
}
