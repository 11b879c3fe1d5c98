//! SLOWLOG: the last commands that took long.

use bytes::Bytes;

use super::arguments::{shown, unknown_subcommand};
use super::reply::write_help;
use super::row::{Class, Command, Context, Flow, Reply, Run};
use super::scope::Scope;
use crate::refusal::Refusal;

/// As many as Redis shows without a count.
const SHOWN: usize = 10;

pub(super) static COMMANDS: &[Command] =
    &[Command::new("SLOWLOG", -2, Class::Admin, Run::Now(slowlog))
        .touches(Scope::Everything)
        .told(
            "GET [count] | LEN | RESET",
            "GET: array of the newest slow commands: id, Unix seconds, microseconds, words (cut), \
             address and name of the client; 10 without count, all with -1. LEN: their number. \
             RESET: forgets them; OK. slowlog.threshold_us says what is slow.",
        )
        .replies(Reply::LargeWith("GET"))];

fn slowlog(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    let (slowlog, out) = (&context.shared.slowlog, &mut context.connection.out);
    match (word.as_slice(), &arguments[1..]) {
        (b"HELP", []) => return write_help("SLOWLOG", context),
        (b"LEN", []) => out.integer(slowlog.count() as u64),
        (b"RESET", []) => {
            slowlog.reset();
            out.ok();
        }
        (b"GET", []) => write_newest(context, SHOWN),
        (b"GET", [count]) => write_newest(context, most(count)?),
        (b"HELP" | b"LEN" | b"RESET" | b"GET", _) => {
            let text = format!(
                "wrong number of arguments for 'slowlog|{}' command",
                shown(&arguments[0]).to_lowercase()
            );
            return Err(Refusal::usage(text));
        }
        _ => return Err(unknown_subcommand("SLOWLOG", &arguments[0])),
    }
    Ok(Flow::Done)
}

fn most(count: &[u8]) -> Result<usize, Refusal> {
    let count: Option<i64> = std::str::from_utf8(count).ok().and_then(|text| text.parse().ok());
    match count {
        Some(-1) => Ok(usize::MAX),
        Some(count) if count >= 0 => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        _ => Err(Refusal::usage("count should be greater than or equal to -1")),
    }
}

fn write_newest(context: &mut Context<'_>, most: usize) {
    let commands = context.shared.slowlog.newest(most);
    let out = &mut context.connection.out;
    out.array(commands.len());
    for command in commands {
        out.array(6);
        out.integer(command.id);
        out.integer(command.at_seconds);
        out.integer(command.micros);
        out.array(command.words.len());
        command.words.iter().for_each(|word| out.bulk(word));
        out.bulk(command.address.to_string());
        out.bulk(&command.name);
    }
}
