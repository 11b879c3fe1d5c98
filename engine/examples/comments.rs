//! Live comments on a show: they live for a minute, one of them for a moment only, and their bytes
//! leave the disk by themselves. Sequences go on, so a viewer knows what it has missed.
//!
//! `cargo run -p strandline --example comments`

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use strandline::{AppendOptions, Batch, Durability, Engine, Options};

const SHOW: &str = "show/launch";

/// Comments arrive. Returns the newest ones first, and how many there were.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let engine = Engine::open(dir, Options::default())?;
    let comments = engine.create_store("comments", Some(Duration::from_mins(1)))?;

    // A comment that a power cut loses is no loss: nobody waits for the disk.
    let comment = |text: &str| {
        let batch = Batch::new().append(&comments, SHOW, text);
        engine.submit(batch.durability(Durability::Os))
    };
    let tickets = ["wow", "nice", "when?"].map(comment);
    for ticket in tickets {
        ticket?.wait()?;
    }
    // An entry may have a lifetime of its own.
    let moment = AppendOptions::default().lifetime(Duration::from_millis(1));
    comments.append_with(SHOW, "look at this", moment)?;

    let mut lines = Vec::new();
    for entry in comments.entries(SHOW, ..=3).rev() {
        lines.push(String::from_utf8_lossy(&entry?.body).into_owned());
    }
    lines.push(format!("{} comments so far", comments.end(SHOW)?.0));
    engine.close()?;
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    run(dir.path())?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
