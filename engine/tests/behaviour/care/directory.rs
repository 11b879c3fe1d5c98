//! A small engine on a simulated disk for the tests of care: its content, and changed versions of
//! its files.
//!
//! It does not know: verify, backup or salvage, except how to request a verification.

use std::collections::BTreeMap;
use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{Batch, Engine, Error, Finding, Limit, Trim, Verification, World};

use crate::two_stores;

pub fn dir(disk: &SimulatedDisk) -> Dir {
    Dir::new(Arc::new(disk.clone()))
}

pub fn try_open(disk: &SimulatedDisk, read_only: bool) -> Result<Engine, Error> {
    let options = two_stores::options().memory_budget_bytes(1).read_only(read_only);
    Engine::open_in(
        World { dir: dir(disk), clock: Arc::new(ManualClock::at(1_700_000_000_000)) },
        options,
    )
}

pub fn open(disk: &SimulatedDisk) -> Engine {
    try_open(disk, false).expect("opens")
}

pub fn verify(engine: &Engine) -> Verification {
    engine.verify(|done, total| assert!(done <= total, "{done} of {total}")).expect("verifies")
}

/// One batch: its number to three inboxes, and a body of its own to a conversation.
pub fn send(engine: &Engine, number: usize) {
    let (messages, sync) =
        (engine.store("messages").expect("a store"), engine.store("sync").expect("a store"));
    let inboxes: Vec<Vec<u8>> =
        (0..3).map(|user| format!("u/{}", (number + user) % 5).into_bytes()).collect();
    let batch = Batch::new()
        .append(
            &messages,
            format!("c/{}", number % 2).as_bytes(),
            format!("body {number} of its own").as_bytes(),
        )
        .fan_out(
            format!("shared {number}").as_bytes(),
            inboxes.iter().map(|name| (&sync, name.as_slice())),
        )
        .id(format!("id {number}").as_bytes());
    engine.submit(batch).expect("queued").wait().expect("committed");
}

pub type Entries = BTreeMap<(String, Vec<u8>), Vec<(u64, u64, Vec<u8>)>>;

/// Everything readable: sequence, time and body of each entry.
pub fn contents(engine: &Engine) -> Entries {
    let mut contents = Entries::new();
    for info in engine.stores() {
        let store = engine.store(&info.name).expect("a store");
        for name in store.list(b"", None, usize::MAX).expect("lists") {
            let page = store.range(&name, .., Limit::entries(usize::MAX)).expect("reads");
            let entries = page
                .entries
                .iter()
                .map(|entry| (entry.sequence, entry.time_ms, entry.body.to_vec()));
            contents.insert((info.name.clone(), name), entries.collect());
        }
    }
    contents
}

/// Two segments per store, with edits, removals and a trim that apply to the older ones, and
/// nothing in the log.
pub fn two_segments() -> Image {
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    (0..10).for_each(|number| send(&engine, number));
    engine.flush().expect("flushes");
    let messages = engine.store("messages").expect("a store");
    messages.edit(b"c/0", 2, b"another body").expect("edits");
    messages.delete(b"c/0", &[3]).expect("deletes");
    messages.trim(b"c/1", Trim::Before(2)).expect("trims");
    (10..14).for_each(|number| send(&engine, number));
    engine.close().expect("closes");
    disk.contents()
}

pub fn changed(
    image: &Image,
    change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>),
) -> SimulatedDisk {
    let mut image = image.clone();
    change(&mut image.files);
    SimulatedDisk::from_image(&image)
}

pub fn names(found: &Verification, file: &str) -> bool {
    found.findings.iter().any(|finding: &Finding| finding.path.ends_with(file))
}
