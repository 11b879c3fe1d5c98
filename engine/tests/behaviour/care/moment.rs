//! A backup is the state of one moment, whatever merges do while it is taken (P5, P6): the threads
//! are held at chosen calls.

use std::path::Path;
use std::sync::Arc;

use strandline::format::header::{FileHeader, file_header};
use strandline::format::manifest::{decode, encode};
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::{Engine, Error, Limit, Lsn, Store, Trim, Verdict, restore_in};

use super::directory::{changed, try_open, two_segments};
use crate::gates::{COMPACT, FLUSH, Gates};
use crate::world::soon;

/// Ten entries of `x` in a segment that is mostly dead: its merge waits for the compaction thread's
/// release.
fn before_a_merge(gates: &Gates) -> (Engine, Store) {
    let (engine, store) = gates.open();
    for number in 0..10 {
        store.append(b"x", format!("old {number}").as_bytes()).expect("appends");
        store.append(b"most", [b'~'; 500]).expect("appends");
    }
    engine.flush().expect("flushes");
    gates.hold(COMPACT);
    store.trim(b"most", Trim::Keep(0)).expect("trims");
    engine.flush().expect("flushes, and counts most of the segment as dead");
    (engine, store)
}

/// A timeline gets a snapshot and is trimmed below it, as a ledger is, while a backup waits for its
/// flush and a merge of the segment with the timeline's older entries is done.
#[test]
fn a_timeline_that_was_never_empty_is_not_empty_in_a_backup() {
    let gates = Gates::new();
    let (engine, store) = before_a_merge(&gates);
    store.append(b"other", b"something to flush").expect("appends");
    gates.hold(FLUSH);
    let target = SimulatedDisk::new();
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| engine.backup_in(&Dir::new(Arc::new(target.clone()))));
        soon("the backup seals", || engine.stats().sealed_memtables == 1);
        assert_eq!(store.append(b"x", b"snapshot").expect("appends"), 11);
        assert_eq!(store.trim(b"x", Trim::Before(11)).expect("trims"), 10);
        gates.release(COMPACT);
        soon("the segment is rewritten", || engine.stats().merges == 1);
        gates.release(FLUSH);
        backup.join().expect("no panic").expect("is made");
    });
    let restored = SimulatedDisk::new();
    let [from, to] = [&target, &restored].map(|disk| Dir::new(Arc::new(disk.clone())));
    restore_in(&from, &to).expect("restores");
    let engine = try_open(&restored, false).expect("opens");
    let page = engine
        .store("messages")
        .expect("is there")
        .read_after(b"x", 0, Limit::entries(100))
        .expect("reads");
    let bodies: Vec<_> =
        page.entries.iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect();
    assert_eq!(
        (page.verdict, page.last, bodies),
        (Verdict::Trimmed, 11, vec![(11, b"snapshot".to_vec())])
    );
    assert!(engine.verify(|_, _| ()).expect("reads").findings.is_empty());
}

/// A merge leaves out entries that a memtable has as trimmed, so a trim must be durable before it
/// is visible.
#[test]
fn a_merge_uses_no_trim_that_a_power_cut_can_take() {
    let gates = Gates::new();
    let (engine, store) = before_a_merge(&gates);
    assert_eq!(store.trim(b"x", Trim::Before(6)).expect("trims"), 5);
    gates.release(COMPACT);
    soon("the segment is rewritten", || engine.stats().merges == 1);
    let mut model = Model::from_image(&Image::default());
    gates.disk.log().iter().for_each(|op| model.apply(op, None));
    let image = model.power_cut(Cut::Lost, &mut Dice::new(1));

    let engine =
        try_open(&SimulatedDisk::from_image(&image), false).expect("opens after the power cut");
    let store = engine.store("messages").expect("is there");
    let page = store.read_after(b"x", 0, Limit::entries(100)).expect("reads");
    assert_eq!(
        (page.verdict, page.first, page.last, page.entries.len()),
        (Verdict::Trimmed, 6, 10, 5)
    );
    assert!(engine.verify(|_, _| ()).expect("reads").findings.is_empty());
}

#[test]
fn a_directory_without_the_changes_that_its_merges_used_is_refused_by_name() {
    let changes_to = |lsn: u64| {
        changed(&two_segments(), |files| {
            let (name, bytes) =
                files.iter_mut().find(|(name, _)| name.starts_with("manifest-")).expect("is there");
            let header = FileHeader::decode(bytes, Path::new(name)).expect("decodes");
            let mut live = decode(&bytes[file_header::BYTES..], &header).expect("decodes");
            live.changes_to = Lsn(lsn);
            *bytes = encode(&live, header);
        })
    };
    let refused = try_open(&changes_to(1 << 40), false).err();
    assert!(
        matches!(&refused, Some(Error::Corrupt { path, what, .. })
            if path.to_string_lossy().contains("manifest-") && what.contains("1099511627776")),
        "{refused:?}"
    );
    let reader = try_open(&changes_to(1 << 40), true).expect("reads what is there");
    assert_eq!(reader.damage().len(), 1, "{:?}", reader.damage());
    assert!(try_open(&changes_to(512), false).is_ok(), "what is in segments needs no log");
}
