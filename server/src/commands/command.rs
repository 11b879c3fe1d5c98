//! COMMAND: describes the table of commands to clients.

use std::collections::HashSet;

use bytes::Bytes;

use super::arguments::unknown_subcommand;
use super::reply::write_help;
use super::row::{Class, Command, CommandTable, Context, Flow, Group, Reply, Run};
use super::scope::Scope;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] =
    &[Command::new("COMMAND", -1, Class::Connection, Run::Now(command))
        .touches(Scope::Nothing)
        .told(
            "[COUNT | LIST | INFO [name ...] | DOCS [name ...] | GETKEYS command [argument ...]]",
            "The table of commands: arity, flags, key positions, documentation.",
        )
        .replies(Reply::Large)];

fn command(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments.first().map_or_else(|| b"INFO".to_vec(), |word| word.to_ascii_uppercase());
    if word == b"HELP" && arguments.len() == 1 {
        return write_help("COMMAND", context);
    }
    let (table, most) = (context.table, context.limits().reply_bytes);
    let out = &mut context.connection.out;
    match (word.as_slice(), arguments.get(1..).unwrap_or_default()) {
        (b"COUNT", []) => out.integer(table.all().count() as u64),
        (b"LIST", []) => {
            out.array(table.all().count());
            for (_, command) in table.all() {
                out.bulk(command.lower_name());
            }
        }
        (b"INFO", names) => write_info(table, names, most, out)?,
        (b"DOCS", names) => write_docs(table, names, out),
        (b"GETKEYS", request @ [name, ..]) => {
            let command =
                table.find(name).ok_or_else(|| Refusal::usage("Invalid command specified"))?;
            if !command.takes(request.len()) {
                return Err(Refusal::usage("Invalid number of arguments specified for command"));
            }
            let keys = command.keys_of(request)?;
            if keys.is_empty() {
                return Err(Refusal::usage("The command has no key arguments"));
            }
            out.array(keys.len());
            for key in keys {
                out.bulk(key);
            }
        }
        _ => return Err(unknown_subcommand("COMMAND", &word)),
    }
    Ok(Flow::Done)
}

fn write_info(
    table: &CommandTable,
    names: &[Bytes],
    most: u64,
    out: &mut Encoder,
) -> Result<(), Refusal> {
    if names.is_empty() {
        out.array(table.all().count());
        for (_, command) in table.all() {
            write_row(command, out);
        }
        return Ok(());
    }
    let start = out.mark();
    out.array(names.len());
    for name in names {
        match table.find(name) {
            Some(command) => write_row(command, out),
            None => out.null(),
        }
        if (out.mark() - start) as u64 > most {
            out.forget(start);
            return Err(Refusal::new(
                "LIMIT",
                format!("a reply has at most {most} bytes: ask for fewer names"),
            ));
        }
    }
    Ok(())
}

/// Name, arity, flags, first key, last key, step, categories, and three empty lists: tips, key
/// specifications, subcommands. For commands with counted keys this has only the first key; clients
/// then use GETKEYS.
fn write_row(command: &Command, out: &mut Encoder) {
    out.array(10);
    out.bulk(command.lower_name());
    out.signed(i64::from(command.arity));
    let flags = command.flags();
    out.array(flags.len());
    for flag in flags {
        out.simple(flag);
    }
    out.integer(command.keys.first as u64);
    out.signed(command.keys.last as i64);
    out.integer(command.keys.step as u64);
    out.array(1);
    out.simple(command.class.word());
    for _ in 0..3 {
        out.array(0);
    }
}

fn write_docs(table: &CommandTable, names: &[Bytes], out: &mut Encoder) {
    let rows: Vec<(&Group, &Command)> = if names.is_empty() {
        table.all().collect()
    } else {
        // The reply is a map, so each command is in it only once.
        let mut known = HashSet::new();
        let found = names.iter().filter_map(|name| table.found(name));
        let rows = found.map(|found| (found.group, found.command));
        rows.filter(|(_, command)| known.insert(command.name)).collect()
    };
    out.map(rows.len());
    for (group, command) in rows {
        out.bulk(command.lower_name());
        out.map(3);
        let summary = if command.usage.is_empty() {
            command.summary.to_owned()
        } else {
            format!("{} {}: {}", command.name, command.usage, command.summary)
        };
        for (name, value) in
            [("summary", summary.as_str()), ("since", "1.0.0"), ("group", group.word)]
        {
            out.bulk(name);
            out.bulk(value);
        }
    }
}
