//! CLIENT: names, ids and the list of connections. Other subcommands are refused, as Redis refuses
//! unknown ones.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use super::arguments::{integer, shown, unknown_subcommand};
use super::reply::write_help;
use super::row::{Class, Command, Context, Flow, Reply, Run};
use super::scope::{Part, Scope};
use crate::clients::{Client, End};
use crate::refusal::Refusal;

static PARTS: &[Part] = &[
    own("HELP"),
    own("SETINFO"),
    own("SETNAME"),
    own("GETNAME"),
    own("ID"),
    own("INFO"),
    own("NO-EVICT"),
    own("NO-TOUCH"),
    // They show and close only connections that match the user's patterns.
    Part::new("LIST", Class::Admin, Scope::Nothing),
    Part::new("KILL", Class::Admin, Scope::Nothing),
];

/// A subcommand about the connection itself.
const fn own(word: &'static str) -> Part {
    Part::new(word, Class::Connection, Scope::Nothing)
}

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "CLIENT",
    -2,
    Class::Admin,
    Run::Now(client),
)
.touches(Scope::Everything)
.in_parts(PARTS)
.told(
    "SETINFO attribute value | SETNAME name | GETNAME | ID | INFO | LIST [TYPE type | ID id [id \
     ...]] | KILL ID id | KILL ADDR address | KILL address | \
     NO-EVICT on|off | NO-TOUCH on|off",
    "Reports and controls this connection and others. SETINFO: LIB-NAME or LIB-VER. TYPE: normal, \
     pubsub, master, replica. KILL: the number of closed connections; OK in its old form.",
)
.replies(Reply::LargeWith("LIST"))];

fn client(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    match (word.as_slice(), &arguments[1..]) {
        (b"HELP", []) => return write_help("CLIENT", context),
        (b"SETINFO", [attribute, value]) => {
            set_info(context, attribute, value)?;
            context.connection.out.ok();
        }
        (b"NO-EVICT", [word]) => {
            set_flag(&context.connection.client.activity.no_evict, word)?;
            context.connection.out.ok();
        }
        (b"NO-TOUCH", [word]) => {
            set_flag(&context.connection.client.activity.no_touch, word)?;
            context.connection.out.ok();
        }
        (b"SETNAME", [name]) => {
            check_name(name)?;
            context.connection.rename(name);
            context.connection.out.ok();
        }
        (b"GETNAME", []) => {
            let name = context.connection.client.name.lock().clone();
            if name.is_empty() {
                context.connection.out.null();
            } else {
                context.connection.out.bulk(name);
            }
        }
        (b"ID", []) => {
            let id = context.connection.client.id;
            context.connection.out.integer(id);
        }
        (b"INFO", []) => {
            let line = describe(&context.connection.client, context.shared.monotonic_ms());
            context.connection.out.bulk(line);
        }
        (b"LIST", filter) => {
            let is_listed = list_filter(filter)?;
            let now_ms = context.shared.monotonic_ms();
            let clients = context.shared.clients.all();
            let shows = sight(context);
            let listed = clients.iter().filter(|client| shows(client) && is_listed(client));
            let lines: String = listed.map(|client| describe(client, now_ms)).collect();
            context.connection.out.bulk(lines);
        }
        (b"KILL", [what, value]) if what.eq_ignore_ascii_case(b"ID") => {
            let id = integer(value)?;
            return Ok(kill(context, |client| client.id == id));
        }
        (b"KILL", [what, value]) if what.eq_ignore_ascii_case(b"ADDR") => {
            let address = parse_address(value)?;
            return Ok(kill(context, |client| client.address == address));
        }
        (b"KILL", [value]) => return kill_address(context, value),
        (
            b"HELP" | b"SETINFO" | b"SETNAME" | b"GETNAME" | b"ID" | b"INFO" | b"NO-EVICT"
            | b"NO-TOUCH",
            _,
        ) => {
            let word = word.to_ascii_lowercase();
            let word = String::from_utf8_lossy(&word);
            let text = format!("wrong number of arguments for 'client|{word}' command");
            return Err(Refusal::usage(text));
        }
        (b"KILL", _) => return Err(Refusal::syntax()),
        _ => return Err(unknown_subcommand("CLIENT", &arguments[0])),
    }
    Ok(Flow::Done)
}

/// Checks that a name does not break the lines of CLIENT LIST.
pub(super) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.iter().all(u8::is_ascii_graphic) {
        return Ok(());
    }
    Err(Refusal::usage("Client names cannot contain spaces, newlines or special characters."))
}

fn set_info(context: &Context<'_>, attribute: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let is_name = attribute.eq_ignore_ascii_case(b"LIB-NAME");
    if !is_name && !attribute.eq_ignore_ascii_case(b"LIB-VER") {
        return Err(Refusal::usage(format!("Unrecognized option '{}'", shown(attribute))));
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        let attribute = if is_name { "lib-name" } else { "lib-ver" };
        let text = format!("{attribute} cannot contain spaces, newlines or special characters.");
        return Err(Refusal::usage(text));
    }
    let mut library = context.connection.client.library.lock();
    *(if is_name { &mut library.name } else { &mut library.version }) =
        Bytes::copy_from_slice(value);
    Ok(())
}

fn set_flag(flag: &AtomicBool, word: &[u8]) -> Result<(), Refusal> {
    let is_on = word.eq_ignore_ascii_case(b"ON");
    if !is_on && !word.eq_ignore_ascii_case(b"OFF") {
        return Err(Refusal::syntax());
    }
    flag.store(is_on, Ordering::Relaxed);
    Ok(())
}

/// Which connections a user sees: all, or those of the same user and of terminals that match its
/// patterns.
fn sight(context: &Context<'_>) -> Filter {
    let Some(user) = context.connection.identity.sight() else { return Box::new(|_| true) };
    Box::new(move |client| {
        let name = client.user.lock();
        if client.is_terminal.load(Ordering::Relaxed) {
            user.rules().patterns.has_user(&name)
        } else {
            *name == user.name().as_bytes()
        }
    })
}

/// Whether a client is listed.
type Filter = Box<dyn Fn(&Client) -> bool>;

/// The filter of CLIENT LIST.
fn list_filter(words: &[Bytes]) -> Result<Filter, Refusal> {
    match words {
        [] => Ok(Box::new(|_| true)),
        [word, name] if word.eq_ignore_ascii_case(b"TYPE") => {
            match name.to_ascii_lowercase().as_slice() {
                b"normal" => Ok(Box::new(|client| !client.is_subscriber())),
                b"pubsub" => Ok(Box::new(Client::is_subscriber)),
                b"master" | b"replica" | b"slave" => Ok(Box::new(|_| false)),
                _ => Err(Refusal::usage(format!("Unknown client type '{}'", shown(name)))),
            }
        }
        [word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let ids =
                ids.iter().map(|id| integer(id)).collect::<Result<HashSet<u64>, Refusal>>()?;
            Ok(Box::new(move |client| ids.contains(&client.id)))
        }
        _ => Err(Refusal::syntax()),
    }
}

/// A line of CLIENT LIST, with the fields of Redis that have a true value here. `idle` counts from
/// the last command. Flags: P subscribes, b blocked, e NO-EVICT, T NO-TOUCH, N none of them.
/// `qbuf` is the input that waits, `qbuf-free` the rest of its memory, `obl` the output that waits,
/// `omem` its memory.
fn describe(client: &Client, now_ms: u64) -> String {
    let activity = &client.activity;
    let seconds_since = |time_ms: u64| now_ms.saturating_sub(time_ms) / 1000;
    let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    let flags = [
        (client.is_subscriber(), 'P'),
        (is_set(&activity.is_blocked), 'b'),
        (is_set(&activity.no_evict), 'e'),
        (is_set(&activity.no_touch), 'T'),
    ];
    let flags: String =
        flags.iter().filter(|(holds, _)| *holds).map(|(_, letter)| letter).collect();
    let command = activity.command.lock().to_ascii_lowercase();
    let library = client.library.lock().clone();
    let read = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    let ([held_in, held_out], [waits_in, waits_out]) =
        (client.held_bytes.each_ref().map(read), client.waiting_bytes.each_ref().map(read));
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub={} psub=0 ssub={} \
         multi=-1 watch=0 qbuf={waits_in} qbuf-free={} obl={waits_out} oll=0 omem={held_out} \
         tot-mem={} events={} cmd={} user={} redir=-1 resp={} tot-net-in={} tot-net-out={} \
         tot-cmds={} lib-name={} lib-ver={}\n",
        client.id,
        client.address,
        client.local,
        client.descriptor,
        String::from_utf8_lossy(&client.name.lock()),
        seconds_since(client.since_ms),
        seconds_since(activity.last_ms.load(Ordering::Relaxed)),
        if flags.is_empty() { "N" } else { &flags },
        client.channels.load(Ordering::Relaxed),
        client.shard_channels.load(Ordering::Relaxed),
        held_in.saturating_sub(waits_in),
        held_in + held_out,
        if waits_out > 0 { "rw" } else { "r" },
        if command.is_empty() { "NULL" } else { &command },
        String::from_utf8_lossy(&client.user.lock()),
        client.protocol.load(Ordering::Relaxed),
        client.received_bytes.load(Ordering::Relaxed),
        client.sent_bytes.load(Ordering::Relaxed),
        activity.commands.load(Ordering::Relaxed),
        String::from_utf8_lossy(&library.name),
        String::from_utf8_lossy(&library.version),
    )
}

fn parse_address(raw: &[u8]) -> Result<SocketAddr, Refusal> {
    std::str::from_utf8(raw)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::usage("an address is ip:port"))
}

fn kill(context: &mut Context<'_>, chosen: impl Fn(&Client) -> bool) -> Flow {
    let mut count = 0;
    let mut flow = Flow::Done;
    let shows = sight(context);
    let is_victim = |client: &&Arc<Client>| shows(client) && chosen(client);
    for victim in context.shared.clients.all().iter().filter(is_victim) {
        count += 1;
        if victim.id == context.connection.client.id {
            // Its own reply must still be sent.
            flow = Flow::Close;
        } else {
            victim.ask_to_end(End::Now);
        }
    }
    context.connection.out.integer(count);
    flow
}

/// The old form replies OK, or an error if no client has that address.
fn kill_address(context: &mut Context<'_>, value: &[u8]) -> Result<Flow, Refusal> {
    let address = parse_address(value)?;
    let shows = sight(context);
    let is_victim = |client: &Arc<Client>| shows(client) && client.address == address;
    let Some(victim) = context.shared.clients.all().into_iter().find(is_victim) else {
        return Err(Refusal::usage("No such client"));
    };
    context.connection.out.ok();
    if victim.id == context.connection.client.id {
        return Ok(Flow::Close);
    }
    victim.ask_to_end(End::Now);
    Ok(Flow::Done)
}
