//! A chat room: messages that are safe to repeat, the newest ones, and a reader that is told of new
//! ones.
//!
//! `cargo run -p strandline --example room`

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use strandline::{Batch, Engine, Options, Store};

const ROOM: &str = "room/lobby";

/// Sends a message. The client chooses the id: if it sends the message again because it saw no
/// answer, the message is not stored twice.
fn send(engine: &Engine, rooms: &Store, id: &str, text: &str) -> strandline::Result<u64> {
    let receipt = engine.commit(Batch::new().append(rooms, ROOM, text).id(id))?;
    Ok(receipt.sequences[0])
}

/// What a user sees on opening the room, oldest first.
fn newest(rooms: &Store, count: usize) -> strandline::Result<Vec<String>> {
    let mut page = rooms.latest(ROOM, count)?;
    page.entries.reverse();
    Ok(page.entries.iter().map(|entry| String::from_utf8_lossy(&entry.body).into_owned()).collect())
}

/// Two users talk, and a reader follows. Returns the lines that it shows.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let engine = Engine::open(dir, Options::default())?;
    let rooms = engine.create_store("rooms", None)?;
    let watcher = engine.watcher();
    watcher.watch(&rooms, ROOM, 1)?;

    send(&engine, &rooms, "ann-1", "ann: hello")?;
    send(&engine, &rooms, "bob-1", "bob: hi ann")?;
    let again = send(&engine, &rooms, "ann-1", "ann: hello")?;
    assert_eq!(again, 1, "a repeated message has the sequence of the first");

    // A reader remembers the last sequence that it has shown.
    let mut shown = 0;
    let mut lines = Vec::new();
    while watcher.wait(Duration::ZERO) {
        watcher.ready();
        for entry in rooms.entries(ROOM, shown + 1..) {
            let entry = entry?;
            lines.push(format!("{} {}", entry.sequence, String::from_utf8_lossy(&entry.body)));
            shown = entry.sequence;
        }
    }
    assert_eq!(newest(&rooms, 1)?, ["bob: hi ann"]);
    engine.close()?;
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    run(dir.path())?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
