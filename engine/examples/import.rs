//! Imports a mailbox (mbox): a timeline for each sender. Batches of many messages are on their way
//! at the same time, and an import that is started again stores nothing twice.
//!
//! `cargo run -p strandline --example import -- mail.mbox`

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;

use strandline::{Batch, Engine, Options, Ticket};

/// The mailbox that is imported if none is named.
pub const EXAMPLE: &str = "\
From ann@example.org Mon Nov 30 10:00:00 2026
From: ann@example.org
Message-ID: <1@example.org>

Hello!

From bob@example.org Mon Nov 30 10:05:00 2026
From: bob@example.org
Message-ID: <2@example.org>

Hello ann,
how are you?

From ann@example.org Mon Nov 30 10:06:00 2026
From: ann@example.org
Message-ID: <3@example.org>

Fine.
";

/// The maximum number of messages on their way.
const IN_FLIGHT: usize = 256;

/// The messages of a mailbox: each begins with a line that begins with `From `.
fn messages(mailbox: &str) -> impl Iterator<Item = &str> {
    let mut starts: Vec<usize> = mailbox.match_indices("\nFrom ").map(|(at, _)| at + 1).collect();
    starts.extend(mailbox.starts_with("From ").then_some(0));
    starts.sort_unstable();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([mailbox.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &mailbox[start..end])
}

/// The value of a header.
fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let headers = message.lines().take_while(|line| !line.is_empty());
    let mut values = headers.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    values.next()
}

/// Imports all messages. Returns how many were new.
fn import(engine: &Engine, mailbox: &str) -> Result<usize, Box<dyn Error>> {
    let mail = engine.create_store("mail", None)?;
    let (mut on_their_way, mut new) = (VecDeque::<Ticket>::new(), 0);
    let mut finish = |ticket: Ticket| -> strandline::Result<()> {
        new += usize::from(!ticket.wait()?.duplicate);
        Ok(())
    };
    for message in messages(mailbox) {
        let from = header(message, "From").ok_or("a message has no sender")?;
        let id = header(message, "Message-ID").ok_or("a message has no id")?;
        on_their_way.push_back(engine.submit(Batch::new().append(&mail, from, message).id(id))?);
        if on_their_way.len() == IN_FLIGHT {
            on_their_way.pop_front().map_or(Ok(()), &mut finish)?;
        }
    }
    on_their_way.into_iter().try_for_each(&mut finish)?;
    Ok(new)
}

/// Imports a mailbox twice. Returns what came of it.
pub fn run(dir: &Path, mailbox: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let engine = Engine::open(dir, Options::default())?;
    let mut lines = vec![format!("{} new", import(&engine, mailbox)?)];
    lines.push(format!("{} new when it is imported again", import(&engine, mailbox)?));
    let mail = engine.store("mail")?;
    for sender in mail.list("", None, 1000)? {
        let count = mail.info(&sender)?.count;
        lines.push(format!("{}: {count}", String::from_utf8_lossy(&sender)));
    }
    engine.close()?;
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mailbox = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read_to_string(path)?,
        None => EXAMPLE.to_string(),
    };
    let dir = tempfile::tempdir()?;
    run(dir.path(), &mailbox)?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
