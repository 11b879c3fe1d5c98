//! Lists of targets (P2, P3, P5): their names are in the log once for each memtable, and a record
//! that refers to them means the same as one that names all of its targets.

use std::sync::Arc;

use strandline::vfs::Dir;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{
    Batch, Durability, Engine, Error, Limit, Receipt, Store, TargetList, World, salvage_in,
};

use crate::two_stores;
use crate::world::{House, figure};

const MEMBERS: usize = 500;

/// A memtable takes all that a test appends.
fn house() -> House {
    House::with(two_stores::options())
}

fn members() -> Vec<Vec<u8>> {
    (0..MEMBERS).map(|user| format!("u/{user:06}").into_bytes()).collect()
}

fn list_of(engine: &Engine, store: &Store) -> TargetList {
    let names = members();
    engine.target_list(names.iter().map(|name| (store, name.as_slice()))).expect("a list")
}

fn message(store: &Store, list: &TargetList, body: &[u8]) -> Batch {
    Batch::new().fan_out_to_list(body, [(store, b"room".as_slice())], list)
}

/// The bytes that a call adds to the log.
fn logged(engine: &Engine, call: impl FnOnce() -> Receipt) -> (u64, Receipt) {
    let before = figure(engine, "wal_bytes");
    let receipt = call();
    (figure(engine, "wal_bytes") - before, receipt)
}

#[test]
fn the_names_of_a_list_are_in_the_log_once_for_each_memtable() {
    let house = house();
    let (engine, store) = house.open();
    let list = list_of(&engine, &store);
    let send = |body: &[u8]| engine.commit(message(&store, &list, body)).expect("commits");
    let (first, _) = logged(&engine, || send(b"one"));
    let (second, receipt) = logged(&engine, || send(b"two"));
    assert_eq!(receipt.sequences, [2; MEMBERS + 1]);
    // Each name has eight bytes.
    assert!(first > 10 * MEMBERS as u64 && second < 2 * MEMBERS as u64, "{first} and {second}");
    // The same timelines, in another list with the same content.
    let again = list_of(&engine, &store);
    let (third, _) =
        logged(&engine, || engine.commit(message(&store, &again, b"three")).expect("commits"));
    assert!(third < 2 * MEMBERS as u64, "{third}");
    engine.flush().expect("flushes");
    let (fourth, receipt) = logged(&engine, || send(b"four"));
    assert!(fourth > 10 * MEMBERS as u64, "{fourth}: the log before it is not needed any more");
    assert_eq!(receipt.sequences, [4; MEMBERS + 1]);
}

/// A sequence and a body.
type Row = (u64, Vec<u8>);

/// What the room and each member read.
fn read(engine: &Engine) -> Vec<(Vec<u8>, Vec<Row>)> {
    let store = engine.store("messages").expect("a store");
    let names = store.list(b"", None, 10_000).expect("lists");
    let entries = |name: &Vec<u8>| {
        let page = store.range(name, .., Limit::entries(1000)).expect("reads");
        page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect()
    };
    names.into_iter().map(|name| (name.clone(), entries(&name))).collect()
}

#[test]
fn a_killed_engine_replays_records_that_refer_to_a_list() {
    let house = house();
    let (engine, store) = house.open();
    let list = list_of(&engine, &store);
    let batch = |number: usize| {
        let durability = if number.is_multiple_of(2) { Durability::Disk } else { Durability::Os };
        let body = format!("message {number}");
        let batch = message(&store, &list, body.as_bytes()).durability(durability);
        batch.id(body.as_bytes())
    };
    let send = |number| engine.commit(batch(number)).expect("commits");
    (0..5).for_each(|number| drop(send(number)));
    store.append(&members()[7], b"own").expect("appends");
    engine.flush().expect("flushes");
    // One group: both records have the list in full, and the first one counts.
    for ticket in engine.submit_all(vec![batch(5), batch(6)]) {
        ticket.and_then(strandline::Ticket::wait).expect("commits");
    }
    (7..9).for_each(|number| drop(send(number)));
    store.append(&members()[7], b"own").expect("appends");
    (9..12).for_each(|number| drop(send(number)));
    let before = read(&engine);
    assert_eq!((before.len(), before[0].1.len()), (MEMBERS + 1, 12));
    let disk = SimulatedDisk::from_image(&house.disk.contents());
    let world = World { dir: Dir::new(Arc::new(disk)), clock: house.clock.clone() };
    let again = Engine::open_in(world, house.options.clone()).expect("opens");
    assert_eq!(read(&again), before);
    // The retry of a batch that named its list names it timeline by timeline.
    let store = again.store("messages").expect("a store");
    let names = members();
    let targets: Vec<(&Store, &[u8])> = std::iter::once((&store, b"room".as_slice()))
        .chain(names.iter().map(|name| (&store, name.as_slice())))
        .collect();
    let retry = Batch::new().fan_out(b"message 11", targets).id(b"message 11");
    let receipt = again.commit(retry).expect("is known");
    assert!(receipt.duplicate);
    assert_eq!((receipt.sequences[0], receipt.sequences[8]), (12, 14));
}

#[test]
fn a_list_of_a_refused_group_is_not_referred_to() {
    let house = House::with(two_stores::options().reserve_bytes(0));
    let (engine, store) = house.open();
    let list = list_of(&engine, &store);
    house.disk.set_capacity(Some(0));
    // The log file has zeros ahead of it: until they are used up, there is space.
    let refused = (0..1000).find_map(|_| engine.commit(message(&store, &list, b"x")).err());
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    let given = store.info(b"room").expect("reads").last;
    house.disk.set_capacity(None);
    engine.flush().expect("flushes");
    house.disk.set_capacity(Some(0));
    // Without the list, so that the first group with it under this memtable is a refused one.
    let refused = (0..1000).find_map(|_| store.append(b"other", [0; 9000]).err());
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    let refused = engine.commit(message(&store, &list, &[0; 9000]));
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    house.disk.set_capacity(None);
    store.append(b"other", b"takes the place of the refused group").expect("appends");
    let next = engine.commit(message(&store, &list, b"y")).expect("commits").sequences[0];
    assert!(next > given);
    let disk = SimulatedDisk::from_image(&house.disk.contents());
    let world = World { dir: Dir::new(Arc::new(disk)), clock: house.clock.clone() };
    let again = Engine::open_in(world, house.options.clone()).expect("opens");
    assert_eq!(read(&again), read(&engine));
}

#[test]
fn a_list_belongs_to_its_engine_and_a_batch_has_one_with_a_named_timeline() {
    let (house, other) = (house(), house());
    let ((engine, store), (foreign, _)) = (house.open(), other.open());
    let list = list_of(&engine, &store);
    let refused =
        |engine: &Engine, batch| matches!(engine.commit(batch), Err(Error::Invalid { .. }));
    assert!(refused(&foreign, message(&store, &list, b"x")));
    let nothing: [(&Store, &[u8]); 0] = [];
    assert!(refused(&engine, Batch::new().fan_out_to_list(b"x", nothing, &list)));
    let twice = message(&store, &list, b"x");
    let twice = twice.fan_out_to_list(b"y", [(&store, b"room".as_slice())], &list);
    assert!(refused(&engine, twice));
    assert!(engine.target_list([(&store, b"".as_slice())]).is_err());
    let own = engine.commit(message(&store, &list, b"x")).expect("commits");
    assert_eq!(own.sequences, [1; MEMBERS + 1], "nothing of the refused ones was given");
}

/// The disk, with one bit of the first name of the list changed in the log: the first record that
/// has it is damaged.
fn without_the_list(disk: &SimulatedDisk) -> Image {
    let mut image = disk.contents();
    let name = members().swap_remove(0);
    let find = |bytes: &Vec<u8>| bytes.windows(name.len()).position(|piece| piece == name);
    let log = image.files.iter_mut().filter(|(file, _)| file.starts_with("wal-"));
    let found: Vec<_> = log.filter_map(|(_, bytes)| Some((find(bytes)?, bytes))).collect();
    assert_eq!(found.len(), 1);
    found.into_iter().for_each(|(at, bytes)| bytes[at] ^= 1);
    image
}

#[test]
fn a_read_only_open_without_the_list_shows_what_records_name_and_changes_of_the_right_bodies() {
    let house = house();
    let (engine, store) = house.open();
    let list = list_of(&engine, &store);
    let edit = |name: &[u8], sequence, body: &[u8]| {
        let key = store.body_of(name, sequence).expect("reads").expect("it is shared");
        engine.commit(Batch::new().edit_body(key, [&store], body)).expect("commits");
    };
    engine.commit(message(&store, &list, b"with the list")).expect("commits");
    // One group, so that the place of the second body depends on the first record.
    let two = Batch::new().fan_out(b"two", [(&store, b"a".as_slice()), (&store, b"b")]);
    for ticket in engine.submit_all(vec![message(&store, &list, b"one"), two]) {
        ticket.and_then(strandline::Ticket::wait).expect("commits");
    }
    edit(b"room", 2, b"one, edited");
    edit(b"a", 1, b"two, edited");
    engine.commit(message(&store, &list, b"three")).expect("commits");
    let disk = SimulatedDisk::from_image(&without_the_list(&house.disk));
    let open = |read_only| {
        let world = World { dir: Dir::new(Arc::new(disk.clone())), clock: house.clock.clone() };
        Engine::open_in(world, house.options.clone().read_only(read_only))
    };
    assert!(open(false).is_err(), "the log is damaged");
    let engine = open(true).expect("opens");
    let reported = engine.damage().iter().filter(|error| error.to_string().contains("is lost"));
    assert_eq!(reported.count(), 2, "{:?}", engine.damage());
    let left = read(&engine);
    let of = |name: &[u8]| {
        let (_, rows) = left.iter().find(|(known, _)| known == name).expect("is listed");
        rows.iter().map(|(sequence, body)| (*sequence, body.as_slice())).collect::<Vec<_>>()
    };
    assert_eq!(of(b"room"), [(2, b"one, edited".as_slice()), (3, b"three")]);
    assert_eq!(of(b"a"), [(1, b"two, edited".as_slice())]);
    assert_eq!(of(b"b"), [(1, b"two, edited".as_slice())]);
}

#[test]
fn a_salvage_without_the_list_keeps_what_a_record_names_and_says_so() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(strandline::clock::ManualClock::at(1_700_000_000_000));
    let open = |read_only| {
        let world = World { dir: Dir::new(Arc::new(disk.clone())), clock: clock.clone() };
        Engine::open_in(world, two_stores::options().read_only(read_only))
    };
    let engine = open(false).expect("opens");
    let store = engine.store("messages").expect("a store");
    let list = list_of(&engine, &store);
    for number in 0..4 {
        engine.commit(message(&store, &list, format!("{number}").as_bytes())).expect("commits");
    }
    let image = without_the_list(&disk);
    drop((engine, store));
    let (from, to) = (SimulatedDisk::from_image(&image), SimulatedDisk::new());
    let [source, target] = [&from, &to].map(|disk| Dir::new(Arc::new(disk.clone())));
    let salvage = salvage_in(&source, &target, &[]).expect("salvages");
    let phrase = "the list of its targets";
    let said = salvage.findings.iter().filter(|found| found.what.contains(phrase)).count();
    assert_eq!(said, 3, "{:?}", salvage.findings);
    let world = World { dir: target, clock: clock.clone() };
    let engine = Engine::open_in(world, two_stores::options()).expect("opens");
    let left = read(&engine);
    let room: Vec<u64> = left
        .iter()
        .filter(|(name, _)| name == b"room")
        .flat_map(|(_, entries)| entries.iter().map(|(sequence, _)| *sequence))
        .collect();
    assert_eq!(room, [2, 3, 4]);
}
