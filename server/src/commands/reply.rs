//! Parts of replies that several commands share.

use strandline::{Entry, Epoch, Page};

use super::place::FRAME_BYTES;
use super::row::{Context, Flow};
use crate::protocol::Encoder;
use crate::refusal::Refusal;

/// Writes entries in the form of the protocol.
pub fn write_entries(entries: &[Entry], out: &mut Encoder) {
    let bodies: usize = entries.iter().map(|entry| entry.body.len()).sum();
    out.expect(bodies + entries.len() * FRAME_BYTES);
    for entry in entries {
        write_entry(entry, out);
    }
}

fn write_entry(entry: &Entry, out: &mut Encoder) {
    out.array(3);
    out.integer(entry.sequence);
    out.integer(entry.time_ms);
    out.bulk(&entry.body);
}

/// Writes one entry, or null.
pub fn write_optional(entry: Option<&Entry>, out: &mut Encoder) {
    match entry {
        Some(entry) => write_entry(entry, out),
        None => out.null(),
    }
}

/// Writes the head of a read's map, with `pairs` pairs in all: the verdict and the positions.
pub fn write_standing(verdict: &str, epoch: Epoch, page: &Page, pairs: usize, out: &mut Encoder) {
    out.map(pairs);
    out.bulk("verdict");
    out.bulk(verdict);
    out.bulk("epoch");
    out.bulk(epoch.to_string());
    out.field("first", page.first);
    out.field("last", page.last);
    out.field("next", page.next);
    out.field("more", u64::from(page.more));
}

/// Writes the reply to `<command> HELP`: its forms, one per line, from the table.
pub fn write_help(command: &'static str, context: &mut Context<'_>) -> Result<Flow, Refusal> {
    let usage = context.table.find(command.as_bytes()).map_or("", |row| row.usage);
    let forms: Vec<&str> = usage.trim_matches(['[', ']']).split(" | ").collect();
    let out = &mut context.connection.out;
    out.array(forms.len() + 2);
    out.simple(&format!("{command} <subcommand> [<argument> ...]. Subcommands:"));
    for form in forms {
        out.simple(form);
    }
    out.simple("HELP");
    Ok(Flow::Done)
}
