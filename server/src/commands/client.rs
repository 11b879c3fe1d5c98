//! CLIENT: names, numbers and the list of connections. What is not listed here is refused as Redis refuses what it does not know.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::arguments::integer;
use super::row::{Class, Command, Context, Flow, Reply, Run};
use super::{unknown_subcommand, write_help};
use crate::clients::{Client, End};
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[Command::new("CLIENT", -2, Class::Connection, Run::Now(client)).told(
    "SETINFO attribute value | SETNAME name | GETNAME | ID | INFO | LIST | KILL ID id | KILL ADDR address | KILL address | \
     NO-EVICT on|off | NO-TOUCH on|off",
    "About this connection and the others. KILL: how many were closed; in its old form OK.",
)
.replies(Reply::LargeWith("LIST"))];

fn client(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    match (word.as_slice(), &arguments[1..]) {
        (b"HELP", []) => return write_help("CLIENT", context),
        (b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH", [_, ..]) => context.connection.out.ok(),
        (b"SETNAME", [name]) => {
            check_name(name)?;
            context.connection.rename(name);
            context.connection.out.ok();
        }
        (b"GETNAME", []) => {
            let name = context.connection.client.name.lock().clone();
            if name.is_empty() { context.connection.out.null() } else { context.connection.out.bulk(name) }
        }
        (b"ID", []) => {
            let id = context.connection.client.id;
            context.connection.out.integer(id);
        }
        (b"INFO", []) => {
            let line = describe(&context.connection.client, context.shared.now_ms());
            context.connection.out.bulk(line);
        }
        (b"LIST", _) => {
            let now_ms = context.shared.now_ms();
            let lines: String =
                context.shared.clients.all().iter().map(|client| describe(client, now_ms)).collect();
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
        _ => return Err(unknown_subcommand("CLIENT", &arguments[0])),
    }
    Ok(Flow::Done)
}

/// A name must not break the lines of CLIENT LIST.
pub(super) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.iter().all(u8::is_ascii_graphic) {
        return Ok(());
    }
    Err(Refusal::usage("Client names cannot contain spaces, newlines or special characters."))
}

fn describe(client: &Client, now_ms: u64) -> String {
    format!(
        "id={} addr={} name={} age={} db=0 sub={} psub=0 ssub={} multi=-1 resp={}\n",
        client.id,
        client.address,
        String::from_utf8_lossy(&client.name.lock()),
        now_ms.saturating_sub(client.since_ms) / 1000,
        client.channels.load(Ordering::Relaxed),
        client.shard_channels.load(Ordering::Relaxed),
        client.protocol.load(Ordering::Relaxed),
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
    for victim in context.shared.clients.all().iter().filter(|client| chosen(client)) {
        count += 1;
        if victim.id == context.connection.client.id {
            // Its own reply still has to go out.
            flow = Flow::Close;
        } else {
            victim.tell(End::Now);
        }
    }
    context.connection.out.integer(count);
    flow
}

/// The old form replies OK, or an error when there is nobody of that address.
fn kill_address(context: &mut Context<'_>, value: &[u8]) -> Result<Flow, Refusal> {
    let address = parse_address(value)?;
    let Some(victim) = context.shared.clients.all().into_iter().find(|client| client.address == address)
    else {
        return Err(Refusal::usage("No such client"));
    };
    context.connection.out.ok();
    if victim.id == context.connection.client.id {
        return Ok(Flow::Close);
    }
    victim.tell(End::Now);
    Ok(Flow::Done)
}
