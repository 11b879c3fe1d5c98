//! Entries that a power cut takes although they were seen, and entries that may be missing at the
//! end of the log (P2, P5, P11): epochs of stores, the group that vouches for the last one, the
//! torn tail that is counted, and verdicts of a read-only open after damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strandline::format::header::{FileHeader, file_header};
use strandline::format::manifest::{Live, decode};
use strandline::format::wal::{GroupHeader, WAL_HEADER_BYTES};
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};
use strandline::{Batch, Durability, Engine, Error, Limit, Lsn, Result, Store, Verdict};

use crate::two_stores;
use crate::world::House;

fn house() -> House {
    of(SimulatedDisk::new(), false)
}

fn of(disk: SimulatedDisk, read_only: bool) -> House {
    let options = two_stores::options().wal_file_bytes(64 * 1024).read_only(read_only);
    House { disk, ..House::with(options) }
}

/// The disk as a killed process left it.
fn model(house: &House, base: &Image) -> Model {
    let mut model = Model::from_image(base);
    house.disk.log().iter().for_each(|op| model.apply(op, None));
    model
}

/// The disk after a power cut that took all unsynced data.
fn power_cut(house: &House, base: &Image) -> Image {
    model(house, base).power_cut(Cut::Lost, &mut Dice::new(1))
}

fn stores(engine: &Engine) -> (Store, Store) {
    (engine.store("messages").expect("is there"), engine.store("sync").expect("is there"))
}

fn append(
    engine: &Engine,
    store: &Store,
    name: &[u8],
    body: &[u8],
    durability: Durability,
) -> Result<u64> {
    let batch = Batch::new().append(store, name, body).durability(durability);
    Ok(engine.submit(batch)?.wait()?.sequences[0])
}

fn bodies(store: &Store, name: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let page = store.range(name, .., Limit::entries(100)).expect("reads");
    page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect()
}

/// The current manifest.
fn live(image: &Image) -> Live {
    let (_, bytes) =
        image.files.iter().rfind(|(name, _)| name.starts_with("manifest-")).expect("a manifest");
    let header = FileHeader::decode(bytes, Path::new("")).expect("a header");
    decode(&bytes[file_header::BYTES..], &header).expect("a manifest")
}

/// The active log file, and the positions of its groups.
fn groups(image: &Image) -> (String, Vec<(usize, GroupHeader)>) {
    let (name, bytes) =
        image.files.iter().rfind(|(name, _)| name.starts_with("wal-0")).expect("a log");
    let header = FileHeader::decode(bytes, Path::new("")).expect("a header");
    let (start, mut at, mut groups) =
        (WAL_HEADER_BYTES as usize, WAL_HEADER_BYTES as usize, Vec::new());
    while let Some(group) = bytes.get(at..).and_then(|rest| {
        GroupHeader::decode(rest, header.engine_id, Lsn(header.first + (at - start) as u64))
    }) {
        groups.push((at, group));
        at += (group.group_bytes() as usize).next_multiple_of(512);
    }
    (name.clone(), groups)
}

/// Flips a bit in the n-th group from the end.
fn damage(image: &mut Image, from_end: usize) {
    let (name, groups) = groups(image);
    let (at, group) = groups[groups.len() - 1 - from_end];
    let bytes = image.files.get_mut(&name).expect("is there");
    bytes[at + group.group_bytes() as usize - 9] ^= 1;
}

/// Waits for the group that vouches for the last one, which takes a second or two.
fn wait_for_voucher(engine: &Engine) {
    for _ in 0..3000 {
        if vouched(engine) > 0 {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("no group vouches for the last one");
}

/// Lets two ticks of the clock's thread pass, nearly always.
fn let_ticks_pass() {
    let (_open, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(2500));
}

fn vouched(engine: &Engine) -> u64 {
    engine.stats().wal_vouching_groups
}

#[test]
fn sequences_lost_after_they_were_read_are_assigned_again_under_another_epoch() {
    let house = house();
    let engine = house.engine();
    let (messages, sync) = stores(&engine);
    append(&engine, &messages, b"t", b"durable", Durability::Disk).expect("commits");
    append(&engine, &sync, b"t", b"durable", Durability::Disk).expect("commits");
    let (epoch, epoch_of_sync) = (messages.epoch(), sync.epoch());
    assert_eq!((epoch, epoch.number()), (engine.epoch(), 0), "as long as nothing was lost");
    assert_eq!(append(&engine, &messages, b"t", b"lost", Durability::Os).expect("commits"), 2);
    assert_eq!(bodies(&messages, b"t").len(), 2, "it is seen");
    let image = power_cut(&house, &Image::default());
    drop((engine, messages, sync));

    let house = of(SimulatedDisk::from_image(&image), false);
    let engine = house.engine();
    let (messages, sync) = stores(&engine);
    assert_eq!(bodies(&messages, b"t"), [(1, b"durable".to_vec())]);
    assert_eq!(
        messages.epoch().to_string(),
        format!("{epoch}-1"),
        "a cursor at 2 is of another epoch"
    );
    assert_eq!(sync.epoch(), epoch_of_sync, "nothing of it was at risk");
    assert_eq!(engine.epoch(), epoch, "the history is the same");
    assert_eq!(engine.recovery().new_epochs, ["messages"]);
    assert_eq!(
        append(&engine, &messages, b"t", b"new", Durability::Disk).expect("commits"),
        2,
        "dense"
    );
    drop((engine, messages, sync));

    // Nothing is at risk any more: neither a kill nor a power cut changes the epoch.
    let house = of(SimulatedDisk::from_model(model(&house, &image)), false);
    let engine = house.engine();
    assert_eq!(engine.recovery().new_epochs, [""; 0]);
    drop(engine);
    let house = of(SimulatedDisk::from_image(&house.disk.contents()), false);
    assert_eq!(stores(&house.engine()).0.epoch().to_string(), format!("{epoch}-1"));
}

#[test]
fn a_kill_and_a_clean_stop_change_no_epoch_and_each_power_cut_with_relaxed_writes_does() {
    let house = house();
    let epoch = |house: &House| stores(&house.engine()).0.epoch();
    let relaxed = |house: &House| {
        let engine = house.engine();
        let (messages, _) = stores(&engine);
        append(&engine, &messages, b"t", b"x", Durability::Os).expect("commits");
        engine
    };
    let first = epoch(&house);
    drop(relaxed(&house));
    assert_eq!(live(&house.disk.contents()).relaxed.stores.len(), 1);
    assert_eq!(epoch(&house), first, "after a kill");
    assert_eq!(live(&house.disk.contents()).relaxed.stores.len(), 0, "what was found is durable");
    relaxed(&house).close().expect("closes");
    assert_eq!(live(&house.disk.contents()).relaxed.stores.len(), 0);
    let mut house = of(SimulatedDisk::from_image(&house.disk.contents()), false);
    assert_eq!(epoch(&house), first, "after a clean stop and a power cut");
    for life in 1..=3 {
        drop(relaxed(&house));
        house = of(SimulatedDisk::from_image(&house.disk.contents()), false);
        assert_eq!(
            epoch(&house).to_string(),
            format!("{first}-{life}"),
            "whether something was lost is not known"
        );
    }
}

#[test]
fn an_edit_that_was_seen_and_lost_ends_the_epoch_too() {
    let house = house();
    let engine = house.engine();
    let (_, sync) = stores(&engine);
    append(&engine, &sync, b"t", b"old", Durability::Disk).expect("commits");
    let epoch = sync.epoch();
    let edit = Batch::new().edit(&sync, b"t", 1, b"new").durability(Durability::Os);
    engine.submit(edit).and_then(strandline::Ticket::wait).expect("commits");
    assert_eq!(bodies(&sync, b"t"), [(1, b"new".to_vec())]);
    let engine =
        of(SimulatedDisk::from_image(&power_cut(&house, &Image::default())), false).engine();
    let (messages, sync) = stores(&engine);
    assert_eq!(bodies(&sync, b"t"), [(1, b"old".to_vec())]);
    assert_eq!((sync.epoch().number(), messages.epoch()), (1, epoch));
}

#[test]
fn a_store_is_noted_once_per_opening() {
    let house = house();
    let engine = house.engine();
    let (messages, sync) = stores(&engine);
    let manifests = || {
        let log = house.disk.log();
        log.iter()
            .filter(|op| matches!(op, Op::Rename { to, .. } if to.starts_with("manifest-")))
            .count()
    };
    let before = manifests();
    for number in 0..20u8 {
        let store = if number % 2 == 0 { &messages } else { &sync };
        append(&engine, store, b"t", &[number], Durability::Os).expect("commits");
    }
    assert_eq!(manifests() - before, 2, "one a store");
}

#[test]
fn a_write_that_cannot_be_noted_is_refused_and_not_seen() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Disk).expect("commits");
    house.disk.set_faults(Some(Box::new(|op| {
        matches!(op, Op::Create { name, .. } if name.starts_with("manifest"))
            .then_some(std::io::ErrorKind::StorageFull)
    })));
    let refused = append(&engine, &messages, b"t", b"y", Durability::Os);
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    assert_eq!(messages.end(b"t").expect("reads").0, 1);
    assert_eq!(
        append(&engine, &messages, b"t", b"z", Durability::Disk).expect("commits"),
        2,
        "others go on"
    );
    house.disk.set_faults(None);
    assert_eq!(append(&engine, &messages, b"t", b"y", Durability::Os).expect("commits"), 3);
    house.disk.set_faults(Some(Box::new(|op| {
        matches!(op, Op::Rename { to, .. } if to.starts_with("manifest"))
            .then_some(std::io::ErrorKind::Other)
    })));
    let (_, sync) = stores(&engine);
    let refused = append(&engine, &sync, b"t", b"y", Durability::Os);
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    assert_eq!(sync.end(b"t").expect("reads").0, 0);
}

#[test]
fn a_read_only_open_shows_the_epoch_that_the_next_writer_begins() {
    let first = house();
    let engine = first.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Os).expect("commits");
    let epoch = messages.epoch();
    let killed = of(SimulatedDisk::from_model(model(&first, &Image::default())), true);
    assert_eq!(stores(&killed.engine()).0.epoch(), epoch);
    let image = power_cut(&first, &Image::default());
    let reader = of(SimulatedDisk::from_image(&image), true);
    let shown = stores(&reader.engine()).0.epoch();
    assert_eq!((shown.number(), &reader.disk.contents()), (1, &image));
    assert_eq!(stores(&of(reader.disk, false).engine()).0.epoch(), shown);
}

#[test]
fn damage_to_the_last_group_of_an_idle_log_is_named() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    for body in [b"a", b"b"] {
        append(&engine, &messages, b"t", body, Durability::Disk).expect("commits");
    }
    wait_for_voucher(&engine);
    let mut image = power_cut(&house, &Image::default());
    drop((engine, messages));
    let (_, written) = groups(&image);
    assert_eq!(written.iter().map(|(_, group)| group.records).collect::<Vec<_>>(), [1, 1, 0]);
    let whole = of(SimulatedDisk::from_image(&image), false);
    assert_eq!(bodies(&stores(&whole.engine()).0, b"t").len(), 2);
    damage(&mut image, 1);
    let refused = of(SimulatedDisk::from_image(&image), false).try_engine().map(drop);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

#[test]
fn groups_that_an_open_copied_from_the_page_cache_are_vouched_for_too() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Os).expect("commits");
    let house = of(SimulatedDisk::from_model(model(&house, &Image::default())), false);
    drop((engine, messages));
    let engine = house.engine();
    wait_for_voucher(&engine);
    let mut image = house.disk.contents();
    damage(&mut image, 1);
    assert!(of(SimulatedDisk::from_image(&image), false).try_engine().is_err());
}

#[test]
fn an_idle_log_is_vouched_for_once_and_relaxed_entries_are_durable_then() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Os).expect("commits");
    wait_for_voucher(&engine);
    let calls = house.disk.log_len();
    let prepared = |op: &Op| matches!(op, Op::Create { name, .. } if name == "wal-next.tmp");
    assert!(!house.disk.log().iter().any(prepared), "no file is made ahead for it");
    // Further ticks find nothing to do. A tick that wrote a second group would be detected, if not
    // each time.
    let_ticks_pass();
    assert_eq!((vouched(&engine), house.disk.log_len()), (1, calls));
    let image = power_cut(&house, &Image::default());
    drop((engine, messages));
    let house = of(SimulatedDisk::from_image(&image), false);
    assert_eq!(bodies(&stores(&house.engine()).0, b"t").len(), 1);
}

#[test]
fn a_clean_stop_after_a_vouching_group_uses_no_position_of_the_log_twice() {
    let house = house();
    for life in 1..=2 {
        let engine = house.engine();
        let (messages, _) = stores(&engine);
        append(&engine, &messages, b"t", b"x", Durability::Disk).expect("commits");
        wait_for_voucher(&engine);
        let (name, written) = groups(&house.disk.contents());
        let header = FileHeader::decode(&house.disk.contents().files[&name], Path::new(""))
            .expect("a header");
        let (at, group) = written[written.len() - 1];
        let end = header.first + at as u64 - WAL_HEADER_BYTES + group.group_bytes();
        engine.close().expect("closes");
        let after = live(&house.disk.contents());
        assert_eq!(
            (after.checkpoint.0, after.log_file),
            (end.next_multiple_of(512), 0),
            "life {life}"
        );
    }
}

#[test]
fn no_group_vouches_on_a_full_disk_and_the_engine_stays_usable() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Disk).expect("commits");
    house.disk.set_faults(Some(Box::new(|op| {
        matches!(op, Op::Write { .. }).then_some(std::io::ErrorKind::StorageFull)
    })));
    let_ticks_pass();
    assert_eq!((vouched(&engine), engine.stats().poisoned), (0, false));
    house.disk.set_faults(None);
    wait_for_voucher(&engine);
    append(&engine, &messages, b"t", b"y", Durability::Disk).expect("commits");
}

#[test]
fn a_torn_tail_is_counted() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    for body in [[b'a'; 1000], [b'b'; 1000]] {
        append(&engine, &messages, b"t", &body, Durability::Disk).expect("commits");
    }
    let mut image = house.disk.contents();
    drop((engine, messages));
    let opened = of(SimulatedDisk::from_image(&image), true).engine();
    assert_eq!((opened.recovery().torn_tail_bytes, opened.recovery().entries), (0, 2));
    damage(&mut image, 0);
    for read_only in [true, false] {
        let opened = of(SimulatedDisk::from_image(&image), read_only).engine();
        let (_, written) = groups(&image);
        let bytes = opened.recovery().torn_tail_bytes;
        let group = written[1].1.group_bytes();
        assert!(
            bytes <= group && bytes + 8 > group,
            "{bytes} of {group}, which may end in padding"
        );
        assert_eq!(opened.stats().torn_tail_bytes, bytes);
        assert_eq!(opened.recovery().entries, 1);
    }
}

/// Three timelines in the log, of which only "late" gets entries after the damage, and a fourth in
/// a segment only.
fn damaged_log() -> Image {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"cold", b"x", Durability::Disk).expect("commits");
    engine.flush().expect("flushes");
    for name in [b"early", b"lossy", b"late "] {
        append(&engine, &messages, name, b"x", Durability::Disk).expect("commits");
    }
    append(&engine, &messages, b"lossy", b"y", Durability::Disk).expect("commits");
    append(&engine, &messages, b"late ", b"y", Durability::Disk).expect("commits");
    let mut image = power_cut(&house, &Image::default());
    damage(&mut image, 1);
    image
}

fn standing(store: &Store, name: &[u8], cursor: u64) -> (Verdict, u64, usize) {
    let page = store.read_after(name, cursor, Limit::entries(100)).expect("reads");
    (page.verdict, page.next, page.entries.len())
}

#[test]
fn readers_past_damage_to_the_log_learn_that_entries_may_be_missing() {
    let image = damaged_log();
    let engine = of(SimulatedDisk::from_image(&image), true).engine();
    let (store, sync) = stores(&engine);
    assert_eq!(engine.damage().len(), 1);
    // It lost an entry. Another one lost none: nothing distinguishes the two.
    for name in [b"lossy".as_slice(), b"early", b"cold"] {
        let name_shown = String::from_utf8_lossy(name);
        assert_eq!(
            standing(&store, name, 0),
            (Verdict::Trimmed, 1, 1),
            "{name_shown}: the page reaches the end"
        );
        assert_eq!(standing(&store, name, 1), (Verdict::Trimmed, 1, 0), "{name_shown}: at the end");
        assert_eq!(
            standing(&store, name, 2),
            (Verdict::Trimmed, 2, 0),
            "{name_shown}: it may have been there"
        );
    }
    assert_eq!(standing(&store, b"never", 0), (Verdict::Trimmed, 0, 0));
    assert_eq!(standing(&sync, b"never", 0), (Verdict::Trimmed, 0, 0), "whatever store it was");
    // Its last entry has the sequence after the one before: nothing can be missing.
    assert_eq!(standing(&store, b"late ", 0), (Verdict::Ok, 2, 2));
    assert_eq!(standing(&store, b"late ", 2), (Verdict::Ok, 2, 0));
    assert_eq!(standing(&store, b"late ", 3), (Verdict::Future, 2, 0));
    let page = store.read_after(b"late ", 0, Limit::entries(1)).expect("reads");
    assert_eq!((page.verdict, page.more), (Verdict::Ok, true));
}

#[test]
fn a_chosen_sequence_does_not_show_what_is_missing_before_it() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"a", Durability::Disk).expect("commits");
    append(&engine, &messages, b"t", b"lost", Durability::Disk).expect("commits");
    let chosen = Batch::new().append(&messages, b"t", b"c").sequence(3);
    engine.submit(chosen).and_then(strandline::Ticket::wait).expect("commits");
    append(&engine, &messages, b"t", b"d", Durability::Disk).expect("commits");
    let mut image = house.disk.contents();
    damage(&mut image, 2);
    let (store, _) = stores(&of(SimulatedDisk::from_image(&image), true).engine());
    assert_eq!(
        standing(&store, b"t", 1),
        (Verdict::Trimmed, 4, 2),
        "2 may have been passed over, or lost"
    );
}

#[test]
fn the_end_after_a_reported_loss_is_certain() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    for body in [b"a", b"b", b"c"] {
        append(&engine, &messages, b"t", body, Durability::Disk).expect("commits");
    }
    let mut image = house.disk.contents();
    damage(&mut image, 1);
    let (store, _) = stores(&of(SimulatedDisk::from_image(&image), true).engine());
    assert_eq!(standing(&store, b"t", 1), (Verdict::Trimmed, 3, 1), "2 is missing, as 3 shows");
    assert_eq!(standing(&store, b"t", 3), (Verdict::Ok, 3, 0));
}

#[test]
fn a_page_before_the_end_is_certain() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    for body in [b"a", b"b", b"c"] {
        append(&engine, &messages, b"t", body, Durability::Disk).expect("commits");
    }
    append(&engine, &messages, b"lost", b"x", Durability::Disk).expect("commits");
    append(&engine, &messages, b"u", b"x", Durability::Disk).expect("commits");
    let mut image = house.disk.contents();
    damage(&mut image, 1);
    let engine = of(SimulatedDisk::from_image(&image), true).engine();
    let (store, _) = stores(&engine);
    let page = store.read_after(b"t", 0, Limit::entries(2)).expect("reads");
    assert_eq!((page.verdict, page.next, page.more), (Verdict::Ok, 2, true));
    assert_eq!(standing(&store, b"t", page.next), (Verdict::Trimmed, 3, 1));
}

#[test]
fn a_log_that_lost_its_last_file_or_its_end_makes_every_end_uncertain() {
    let house = house();
    let engine = house.engine();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Disk).expect("commits");
    let whole = house.disk.contents();
    drop((engine, messages));
    let (name, _) = groups(&whole);
    let (mut gone, mut no_header, mut short) = (whole.clone(), whole.clone(), whole.clone());
    gone.files.remove(&name);
    no_header.files.get_mut(&name).expect("is there")[..64].fill(0);
    short.files.get_mut(&name).expect("is there").truncate(2048);
    for (image, entries) in [(gone, 0), (no_header, 0), (short, 1)] {
        let engine = of(SimulatedDisk::from_image(&image), true).engine();
        let (store, _) = stores(&engine);
        let last = entries as u64;
        assert_eq!(standing(&store, b"t", 0), (Verdict::Trimmed, last, entries));
        assert_eq!(standing(&store, b"t", 9), (Verdict::Trimmed, 9, 0));
    }
    // Without damage there is no doubt.
    let engine = of(SimulatedDisk::from_image(&whole), true).engine();
    let (store, _) = stores(&engine);
    assert_eq!(standing(&store, b"t", 0), (Verdict::Ok, 1, 1));
    assert_eq!(standing(&store, b"t", 9), (Verdict::Future, 1, 0));
}

#[test]
fn a_machine_without_a_boot_id_ends_the_epoch_after_a_kill() {
    let house = house();
    let dir = || strandline::vfs::Dir::new(Arc::new(unknown::Bootless(house.disk.clone())));
    let open = || {
        let world = strandline::World { dir: dir(), clock: house.clock.clone() };
        Engine::open_in(world, house.options.clone()).expect("opens")
    };
    let engine = open();
    let (messages, _) = stores(&engine);
    append(&engine, &messages, b"t", b"x", Durability::Os).expect("commits");
    let epoch = messages.epoch();
    drop((engine, messages));
    assert_eq!(stores(&open()).0.epoch().to_string(), format!("{epoch}-1"));
}

/// A simulated disk of a machine that does not report its boot id.
mod unknown {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Arc;

    use strandline::vfs::simulated::SimulatedDisk;
    use strandline::vfs::{RawDirectory, RawFile, Site};

    pub struct Bootless(pub SimulatedDisk);

    impl RawDirectory for Bootless {
        fn path(&self) -> PathBuf {
            self.0.path()
        }

        fn lock(&self, name: &str, alone: bool) -> io::Result<Box<dyn Send + Sync>> {
            self.0.lock(name, alone)
        }

        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
            self.0.create(name)
        }

        fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
            self.0.open(name)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync(&self, site: Site) -> io::Result<()> {
            self.0.sync(site)
        }
    }
}
