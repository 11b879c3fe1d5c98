//! Tests of the second copies of files, which a start makes: after a start every copy exists,
//! whatever interrupted the start before.

use std::io::ErrorKind;

use strandline::Copies;
use strandline::vfs::simulated::{Cut, Dice, Model, Op};

use super::*;

/// A start makes the copies that an earlier start did not complete.
#[test]
fn copies_that_a_crash_or_a_full_disk_interrupted_are_made_by_the_next_start() {
    let lacking = |disk: &SimulatedDisk| {
        let files = disk.contents().files;
        let indexes =
            files.keys().filter(|name| name.contains(".index") && !name.contains(".twin"));
        indexes.filter(|name| !files.contains_key(&format!("{name}.twin"))).count()
    };
    // A directory whose stores are kept once.
    let (image, now_ms) = scene(true);
    let disk = SimulatedDisk::from_image(&image);
    let table = open(&disk, now_ms);
    for store in ["messages", "sync"] {
        table.engine.set_store_copies(store, Copies::Once).expect("is changed");
    }
    table.engine.compact().expect("merges");
    table.engine.close().expect("closes");
    drop(table);
    let image = disk.contents();
    assert_eq!(lacking(&disk), 2, "one segment each");

    let mut cut_short = 0;
    let (mut model, whole) = (Model::from_image(&image), SimulatedDisk::from_image(&image));
    drop(open(&whole, now_ms));
    assert_eq!(lacking(&whole), 0);
    for op in whole.log() {
        model.apply(&op, None);
        for cut in Cut::ALL {
            let disk = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(cut_short)));
            cut_short += u64::from(lacking(&disk) > 0);
            drop(open(&disk, now_ms));
            assert_eq!(lacking(&disk), 0, "{cut:?} after {op:?}");
        }
    }
    assert!(cut_short > 50, "{cut_short} times a copy was lacking");

    for is_full in
        [|op: &Op| matches!(op, Op::Create { name, .. } if name.contains(".twin")), |_: &Op| true]
    {
        let disk = SimulatedDisk::from_image(&image);
        let engine = engine_on(&disk, &Arc::new(ManualClock::at(now_ms)));
        disk.set_faults(Some(Box::new(move |op| is_full(op).then_some(ErrorKind::StorageFull))));
        let messaging = Messaging::open(&engine, Options::default());
        drop(messaging.expect("a start without room is a start"));
        assert_eq!(lacking(&disk), 2);
        disk.set_faults(None);
        drop(Messaging::open(&engine, Options::default()).expect("opens"));
        assert_eq!(lacking(&disk), 0);
    }
}
