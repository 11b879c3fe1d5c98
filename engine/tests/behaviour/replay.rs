//! A log that is large enough for a reader of its own: what an open makes of it (P1, P6).

use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::{Batch, Durability, Engine, Error, Limit};

use crate::two_stores;
use crate::world::House;

const TIMELINES: u64 = 7;
const BATCHES: u64 = 300;
const BODY_BYTES: usize = 20_000;

fn of(disk: SimulatedDisk, read_only: bool) -> House {
    House { disk, ..House::with(two_stores::options().read_only(read_only)) }
}

/// The name, and the body, of an append.
fn name(number: u64) -> Vec<u8> {
    format!("t{}", number % TIMELINES).into_bytes()
}

fn body(number: u64) -> Vec<u8> {
    let mut body = vec![b'~'; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body
}

/// The disk after appends of six megabytes, none of which is flushed.
fn killed(durability: Durability) -> Image {
    let house = of(SimulatedDisk::new(), false);
    let (engine, store) = house.open();
    for number in 0..BATCHES {
        let batch = Batch::new().durability(durability);
        let batch = batch.append(&store, name(number), body(number));
        engine.submit(batch).expect("is taken").wait().expect("appends");
    }
    house.disk.contents()
}

/// How many of the appends are there, none of them missing before the last.
fn found(engine: &Engine) -> u64 {
    let store = engine.store("messages").expect("is there");
    (0..TIMELINES)
        .map(|timeline| {
            let page = store.read_after(name(timeline), 0, Limit::entries(1000)).expect("reads");
            for (at, entry) in page.entries.iter().enumerate() {
                assert_eq!(entry.body, body(at as u64 * TIMELINES + timeline));
            }
            page.entries.len() as u64
        })
        .sum()
}

#[test]
fn a_large_log_that_was_never_synced_is_durable_once_it_is_open() {
    let image = killed(Durability::Os);
    let house = of(SimulatedDisk::from_image(&image), false);
    let engine = house.engine();
    assert_eq!(found(&engine), BATCHES);
    let mut model = Model::from_image(&image);
    house.disk.log().iter().for_each(|op| model.apply(op, None));
    let after =
        of(SimulatedDisk::from_image(&model.power_cut(Cut::Lost, &mut Dice::new(1))), false);
    assert_eq!(found(&after.engine()), BATCHES);
}

#[test]
fn damage_in_the_middle_of_a_large_log_refuses_an_open_and_leaves_the_files_alone() {
    let mut image = killed(Durability::Disk);
    let (log, middle) = {
        let logs = image.files.iter().filter(|(name, _)| name.starts_with("wal-0"));
        let (name, content) = logs.max_by_key(|(_, content)| content.len()).expect("a log");
        let at = content.windows(8).rposition(|bytes| bytes == b"~~~~~~~~").expect("a body");
        (name.clone(), at / 2)
    };
    image.files.get_mut(&log).expect("is there")[middle] ^= 1;
    let house = of(SimulatedDisk::from_image(&image), false);
    let refused = house.try_engine();
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    // Temporary files are removed first; everything else stays, and nothing is added.
    image.files.retain(|name, _| !name.contains(".tmp"));
    assert!(house.disk.contents().files == image.files);
    let readable = of(SimulatedDisk::from_image(&image), true);
    let page = readable
        .engine()
        .store("messages")
        .expect("is there")
        .read_after(name(0), 0, Limit::entries(1))
        .expect("reads");
    assert_eq!(page.entries[0].body, body(0));
}
