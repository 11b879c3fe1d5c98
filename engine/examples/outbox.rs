//! An outbox: an order and the event that tells others of it are one batch, so none is there
//! without the other. A relay delivers events in order, at least once, and removes what it has
//! delivered.
//!
//! `cargo run -p strandline --example outbox`

use std::error::Error;
use std::path::Path;

use strandline::{Batch, Engine, Options, Store, Trim};

const EVENTS: &str = "events";

fn place(engine: &Engine, orders: &Store, outbox: &Store, order: &str) -> strandline::Result<()> {
    let event = format!("placed {order}");
    let batch = Batch::new().append(orders, "customer/7", order).append(outbox, EVENTS, event);
    engine.commit(batch).map(drop)
}

/// Delivers up to `most` events. After a crash between a delivery and the trim it delivers the same
/// events again: a receiver knows them by their sequences.
fn relay(outbox: &Store, most: usize, delivered: &mut Vec<String>) -> strandline::Result<()> {
    let mut next = 0;
    for entry in outbox.entries(EVENTS, ..).take(most) {
        let entry = entry?;
        delivered.push(format!("{} {}", entry.sequence, String::from_utf8_lossy(&entry.body)));
        next = entry.sequence + 1;
    }
    outbox.trim(EVENTS, Trim::Before(next)).map(drop)
}

/// Places orders, and relays their events before and after a restart. Returns what was delivered.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut delivered = Vec::new();
    let engine = Engine::open(dir, Options::default())?;
    let (orders, outbox) =
        (engine.create_store("orders", None)?, engine.create_store("outbox", None)?);
    for order in ["tea", "milk", "bread"] {
        place(&engine, &orders, &outbox, order)?;
    }
    relay(&outbox, 2, &mut delivered)?;
    engine.close()?;

    // The process starts again, and the relay continues where it was.
    let engine = Engine::open(dir, Options::default())?;
    let (orders, outbox) = (engine.store("orders")?, engine.store("outbox")?);
    relay(&outbox, 10, &mut delivered)?;
    assert!(outbox.entries(EVENTS, ..).next().is_none());
    assert_eq!(orders.entries("customer/7", ..).count(), 3);
    engine.close()?;
    Ok(delivered)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    run(dir.path())?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
