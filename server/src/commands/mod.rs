//! The commands: one file per group, and files that the groups share. The file of a group begins
//! with its rows of the table; then each command has the same steps in the same order: parse the
//! arguments (leftovers are refused), find the timelines, run, write the reply.
//!
//! Kinds of commands: most write their reply at once. A *write* makes a batch and a function that
//! writes its receipt, so that the session can submit the batches of a whole pipeline together. A
//! *wait* is tried again when its timelines advance. A *slow* command runs on a thread that may
//! block, and so does a *sliced* one, one slice at a time. `place.rs` has the rule for the choice.
//!
//! Errors have the contract's order: the words of the command first, then sizes, then keys and
//! stores, then the engine. This module knows nothing of sockets.

#![allow(clippy::unnecessary_wraps, reason = "the table wants one signature for all commands")]

mod acl;
mod append;
mod arguments;
mod change;
mod client;
mod command;
mod config;
mod connection;
mod document;
mod follow;
mod get;
mod im;
mod latency;
mod list;
mod maintenance;
mod monitor;
mod permit;
mod place;
mod range;
mod read;
mod read_many;
mod reply;
mod row;
mod scope;
mod server;
mod slowlog;
mod store;
mod subscribe;
mod table;
mod wait;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

pub use document::render as render_tables;
pub use place::STEPS;
pub use row::{
    After, Again, Attempt, Command, Context, Done, Flow, LogIn, Prepared, Run, Sliced, Waiting,
    Write, WriteReply,
};
pub use wait::watch_instead;

use permit::{check_command, check_names};
use row::Reply;
use table::TABLE;

use crate::access::Catalog;
use crate::connection::Connection;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// The context in which the commands of a connection run.
pub fn context<'a>(shared: &'a Arc<Shared>, connection: &'a mut Connection) -> Context<'a> {
    Context { shared, connection, table: &TABLE }
}

/// The names of all commands in lower case, in the order of their positions.
pub fn names() -> impl Iterator<Item = String> {
    TABLE.all().map(|(_, command)| command.lower_name())
}

/// The command of a request that was not admitted, if there is one of its name.
pub fn named(request: &[Bytes]) -> Option<&'static Command> {
    TABLE.find(&request[0])
}

/// Finds the command of a request and checks whether it may run now.
pub fn admit(request: &[Bytes], connection: &Connection) -> Result<&'static Command, Refusal> {
    let found = TABLE.found(&request[0]).ok_or_else(|| unknown(request))?;
    let (command, needs) = (found.command, found.needs(request));
    check_command(command, &needs, &connection.identity)?;
    if !command.takes(request.len()) {
        return Err(wrong_arity(command));
    }
    if !command.while_subscribed && connection.is_subscriber_only() {
        return Err(Refusal::usage(format!(
            "Can't execute '{}': only (S)SUBSCRIBE / (S)UNSUBSCRIBE / PING / QUIT / RESET are \
             allowed in this context",
            command.lower_name()
        )));
    }
    check_names(command, &needs, request, &connection.identity)?;
    Ok(command)
}

/// The commands as the rules of users know them.
pub fn catalog() -> Catalog {
    Catalog::new(TABLE.units())
}

/// Whether the reply to a request is small, so that its connection gets it even when memory is
/// short.
pub fn is_small(request: &[Bytes]) -> bool {
    let reply = TABLE.find(&request[0]).map_or(Reply::Small, |command| command.reply);
    place::is_small(reply, request)
}

fn wrong_arity(command: &Command) -> Refusal {
    Refusal::usage(format!("wrong number of arguments for '{}' command", command.lower_name()))
}

/// The text of Redis, from which clients detect the commands that a server has.
fn unknown(request: &[Bytes]) -> Refusal {
    const SHOWN_BYTES: usize = 128;
    let mut arguments = String::new();
    for argument in &request[1..] {
        if arguments.len() >= SHOWN_BYTES {
            break;
        }
        let shown = &argument[..argument.len().min(SHOWN_BYTES - arguments.len())];
        write!(arguments, "'{}' ", String::from_utf8_lossy(shown))
            .expect("a string takes all that is written");
    }
    let name = &request[0][..request[0].len().min(SHOWN_BYTES)];
    Refusal::usage(format!(
        "unknown command '{}', with args beginning with: {arguments}",
        String::from_utf8_lossy(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::FLOOR_BYTES;

    fn small(line: &str) -> bool {
        is_small(
            &line
                .split(' ')
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn commands_that_keep_a_connection_alive_or_write_are_small() {
        for line in [
            "PING",
            "hello 3",
            "AUTH x",
            "TL.APPEND a:b x",
            "SUBSCRIBE a:b",
            "INFO",
            "CLIENT ID",
            "NOPE",
        ] {
            assert!(small(line), "{line}");
        }
        for line in [
            "TL.RANGE a:b - +",
            "TL.MREAD 1 a:b AFTER 0",
            "IM.HISTORY c u",
            "COMMAND DOCS",
            "client list",
        ] {
            assert!(!small(line), "{line}");
        }
        assert!(!small(&format!("ECHO {}", "x".repeat(FLOOR_BYTES))), "it comes back");
    }
}
