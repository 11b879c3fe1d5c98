//! Bodies that are changed for all their entries at once (P3, P5): by one record, wherever the
//! entries are and however many, until merges have written the changed bodies.

use std::collections::BTreeMap;

use strandline::vfs::simulated::{Cut, Dice, Model, SECTOR_BYTES, SimulatedDisk};
use strandline::{Batch, BodyKey, Engine, Limit, Options, Store, restore_in, salvage_in};

use crate::two_stores;
use crate::world::House;

const MEMBERS: usize = 12;

fn options() -> Options {
    two_stores::options().memory_budget_bytes(1024 * 1024).wal_file_bytes(64 * 1024)
}

struct Table {
    engine: Engine,
    messages: Store,
    sync: Store,
}

fn open(house: &House) -> Table {
    let engine = house.engine();
    let store = |name| engine.store(name).expect("is there");
    Table { messages: store("messages"), sync: store("sync"), engine }
}

fn member(number: usize) -> Vec<u8> {
    format!("u/{number:02}").into_bytes()
}

const ROOM: &[u8] = b"c/room";

impl Table {
    fn commit(&self, batch: Batch) -> Vec<u64> {
        self.engine.commit(batch).expect("committed").sequences.into()
    }

    fn fan_out(&self, body: &[u8], members: usize) -> Vec<u64> {
        let names: Vec<Vec<u8>> = (0..members).map(member).collect();
        let copies = names.iter().map(|name| (&self.sync, name.as_slice()));
        let targets: Vec<_> = std::iter::once((&self.messages, ROOM)).chain(copies).collect();
        self.commit(Batch::new().fan_out(body, targets))
    }

    fn key(&self, sequence: u64) -> BodyKey {
        self.messages.body_of(ROOM, sequence).expect("reads").expect("it is shared")
    }

    fn both(&self) -> [&Store; 2] {
        [&self.messages, &self.sync]
    }

    /// The bodies of the room and of all members' timelines.
    fn bodies(&self, members: usize) -> Vec<Vec<Vec<u8>>> {
        let names = (0..members).map(|number| (&self.sync, member(number)));
        let all = names.chain([(&self.messages, ROOM.to_vec())]);
        let read = |(store, name): (&Store, Vec<u8>)| {
            let page = store.range(&name, .., Limit::entries(1000)).expect("reads");
            let back = store.range_back(&name, .., Limit::entries(1000)).expect("reads");
            assert!(page.entries.iter().eq(back.entries.iter().rev()));
            page.entries.into_iter().map(|entry| entry.body.to_vec()).collect()
        };
        all.map(read).collect()
    }

    fn check(&self, expected: &[&[u8]], members: usize, place: &str) {
        for (number, found) in self.bodies(members).into_iter().enumerate() {
            assert_eq!(found, expected, "{place}, timeline {number}");
        }
        assert_eq!(self.engine.verify(|_, _| ()).expect("verifies").findings, [], "{place}");
    }
}

#[test]
fn one_change_shows_in_every_entry_wherever_it_is() {
    for flushes in [false, true] {
        let house = House::with(options());
        let mut table = open(&house);
        table.fan_out(b"one", MEMBERS);
        table.fan_out(b"two", MEMBERS);
        if flushes {
            table.engine.flush().expect("flushes");
        }
        let change = Batch::new().edit_body(table.key(1), table.both(), b"changed");
        table.commit(change);
        let expected: [&[u8]; 2] = [b"changed", b"two"];
        table.check(&expected, MEMBERS, "in memory");
        drop(table);
        table = open(&house);
        table.check(&expected, MEMBERS, "replayed");
        table.engine.flush().expect("flushes");
        table.check(&expected, MEMBERS, "flushed");
        let again = Batch::new().edit_body(table.key(1), table.both(), b"changed again");
        table.commit(again);
        let expected: [&[u8]; 2] = [b"changed again", b"two"];
        table.engine.flush().expect("flushes");
        table.check(&expected, MEMBERS, "changed again");
        table.engine.compact().expect("merges");
        table.check(&expected, MEMBERS, "merged");
        table.engine.close().expect("closes");
        drop(table);
        let table = open(&house);
        table.check(&expected, MEMBERS, "reopened");
        let names = table.sync.list(b"", None, 100).expect("lists");
        assert_eq!(names.len(), MEMBERS, "nothing else is listed");
        // The replaced body has left the disk, and its replacement is there once in each store.
        let files = house.disk.contents().files;
        let segments = || files.iter().filter(|(name, _)| name.starts_with("segment-"));
        let count = |what: &[u8]| -> usize {
            let within = |(_, bytes): (&String, &Vec<u8>)| {
                bytes.windows(what.len()).filter(|at| *at == what).count()
            };
            segments().map(within).sum()
        };
        assert_eq!((count(b"one"), count(b"changed again")), (0, 2));
    }
}

#[test]
fn a_change_costs_the_same_for_two_entries_and_for_five_hundred() {
    let cost = |members: usize, flushes: bool| {
        let house = House::with(two_stores::options());
        let table = open(&house);
        table.fan_out(b"one", members);
        if flushes {
            table.engine.flush().expect("flushes");
        }
        let figure = |name: &str| table.engine.stats().get(name).expect("a figure");
        // A memtable that was flushed may be there for a while.
        let memory = || if flushes { 0 } else { figure("memtable_bytes") };
        // The first change begins the memory that it has in common with others.
        table.commit(Batch::new().edit_body(table.key(1), table.both(), b"at first"));
        let before = (figure("wal_bytes"), memory());
        table.commit(Batch::new().edit_body(table.key(1), table.both(), b"changed"));
        let after = (figure("wal_bytes"), memory());
        table.check(&[b"changed"], members, "changed");
        (after.0 - before.0, after.1 - before.1)
    };
    for flushes in [false, true] {
        assert_eq!(cost(500, flushes), cost(2, flushes), "bytes of the log and of memory");
    }
}

#[test]
fn an_entry_appended_alone_has_no_body_key_and_a_key_of_another_opening_is_refused() {
    let house = House::with(options());
    let table = open(&house);
    table.messages.append(ROOM, b"alone").expect("appends");
    table.fan_out(b"shared", 2);
    for flushed in [false, true] {
        assert_eq!(table.messages.body_of(ROOM, 1).expect("reads"), None, "flushed: {flushed}");
        assert_eq!(table.messages.body_of(ROOM, 9).expect("reads"), None);
        assert_eq!(table.sync.body_of(member(1), 1).expect("reads"), Some(table.key(2)));
        table.engine.flush().expect("flushes");
    }
    let old = table.key(2);
    drop(table);
    let table = open(&house);
    let refused = table.engine.submit(Batch::new().edit_body(old, table.both(), b"changed"));
    assert!(refused.is_err(), "a key belongs to an open engine");
}

#[test]
fn places_are_those_of_the_commit_also_after_a_store_was_dropped() {
    let house = House::with(options());
    let table = open(&house);
    let other = table.engine.create_store("other", None).expect("is made");
    other.append(b"t", b"x").expect("appends");
    let targets = [(&table.messages, ROOM), (&table.sync, b"u/00".as_slice())];
    let group = vec![
        Batch::new().edit(&other, b"t", 1, b"edited"),
        // For an entry that was never assigned: it has no place.
        Batch::new().edit(&other, b"t", 7, b"never"),
        Batch::new().fan_out(b"old", targets),
    ];
    let tickets = table.engine.submit_all(group);
    tickets.into_iter().for_each(|ticket| drop(ticket.expect("queued").wait().expect("committed")));
    table.commit(Batch::new().edit_body(table.key(1), table.both(), b"new"));
    table.engine.drop_store("other", true).expect("drops");
    drop((table, other));
    open(&house).check(&[b"new"], 1, "replayed without the store");
}

/// The number of the body that an entry was written with, and its own.
type Entry = (usize, Option<Vec<u8>>);

/// The expected content of each timeline: for each entry the body that it was written with, and its
/// own if it was edited individually later.
#[derive(Clone, Default)]
struct Expected {
    shared: Vec<Vec<u8>>,
    entries: BTreeMap<Vec<u8>, BTreeMap<u64, Entry>>,
}

impl Expected {
    fn append(&mut self, names: Vec<Vec<u8>>, sequences: Vec<u64>, body: &[u8]) {
        self.shared.push(body.to_vec());
        for (name, sequence) in names.into_iter().zip(sequences) {
            self.entries.entry(name).or_default().insert(sequence, (self.shared.len() - 1, None));
        }
    }

    fn change_body(&mut self, shared: usize, body: &[u8]) {
        self.shared[shared] = body.to_vec();
        // It came after every edit of an entry so far.
        let entries = self.entries.values_mut().flat_map(BTreeMap::values_mut);
        entries.filter(|(of, _)| *of == shared).for_each(|(_, own)| *own = None);
    }

    fn pick(&self, dice: &mut Dice) -> Option<(Vec<u8>, u64, usize)> {
        let all: Vec<_> = self
            .entries
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |at| (name, at)))
            .collect();
        let (name, (sequence, (shared, _))) =
            all.get(dice.below(all.len().max(1) as u64) as usize)?;
        Some(((*name).clone(), **sequence, *shared))
    }

    fn of(&self, name: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let shown = |(sequence, (shared, own)): (&u64, &Entry)| {
            (*sequence, own.clone().unwrap_or_else(|| self.shared[*shared].clone()))
        };
        self.entries.get(name).into_iter().flatten().map(shown).collect()
    }
}

impl Table {
    fn store_of(&self, name: &[u8]) -> &Store {
        if name.starts_with(b"c/") { &self.messages } else { &self.sync }
    }

    /// A random call, on the engine and on the expected content.
    fn step(&self, dice: &mut Dice, expected: &mut Expected, number: u64) {
        let kind = dice.below(10);
        let body = format!("body {number}").into_bytes();
        if kind < 4 {
            let mut names = vec![format!("c/{}", dice.below(3)).into_bytes()];
            names.extend((0..6).filter(|_| dice.below(2) == 0).map(member));
            let targets: Vec<_> =
                names.iter().map(|name| (self.store_of(name), name.as_slice())).collect();
            let sequences = self.commit(Batch::new().fan_out(&body, targets));
            return expected.append(names, sequences, &body);
        }
        let Some((name, sequence, shared)) = expected.pick(dice) else { return };
        let store = self.store_of(&name);
        match kind {
            4..=6 => {
                // Without a key it was appended alone, and is edited individually.
                let batch = match store.body_of(&name, sequence).expect("reads") {
                    Some(key) => Batch::new().edit_body(key, self.both(), &body),
                    None => Batch::new().edit(store, &name, sequence, &body),
                };
                self.commit(batch);
                expected.change_body(shared, &body);
            }
            7 | 8 => {
                assert!(store.edit(&name, sequence, &body).expect("edits"));
                expected.entries.entry(name).or_default().insert(sequence, (shared, Some(body)));
            }
            _ => {
                assert_eq!(store.delete(&name, &[sequence]).expect("deletes"), 1);
                expected.entries.entry(name).or_default().remove(&sequence);
            }
        }
    }

    fn agrees(&self, expected: &Expected, place: &str) {
        for name in expected.entries.keys() {
            let page = self.store_of(name).range(name, .., Limit::entries(10_000)).expect("reads");
            let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
            let found = page.entries.iter().map(|entry| (entry.sequence, text(&entry.body)));
            let wanted =
                expected.of(name).into_iter().map(|(sequence, body)| (sequence, text(&body)));
            assert_eq!(
                found.collect::<Vec<_>>(),
                wanted.collect::<Vec<_>>(),
                "{place}: {}",
                name.escape_ascii()
            );
        }
    }
}

#[test]
fn the_last_change_of_a_body_or_an_entry_is_shown() {
    for seed in 0..60 {
        let (house, mut dice, mut expected) =
            (House::with(options()), Dice::new(seed), Expected::default());
        let mut table = open(&house);
        for number in 0..120 {
            // Over several partitions of time, and none of them expires.
            house.clock.pass(dice.below(3_600_000));
            table.step(&mut dice, &mut expected, number);
            match dice.below(24) {
                0 | 1 => table.engine.flush().expect("flushes"),
                2 => table.engine.compact().expect("merges"),
                3 => {
                    drop(table);
                    table = open(&house);
                }
                4 => table.agrees(&expected, &format!("seed {seed}, step {number}")),
                _ => {}
            }
        }
        for (place, step) in [("end", None), ("flushed", Some(false)), ("merged", Some(true))] {
            match step {
                None => {}
                Some(false) => table.engine.flush().expect("flushes"),
                Some(true) => table.engine.compact().expect("merges"),
            }
            table.agrees(&expected, &format!("seed {seed}, {place}"));
            assert_eq!(
                table.engine.verify(|_, _| ()).expect("verifies").findings,
                [],
                "seed {seed}, {place}"
            );
        }
    }
}

#[test]
fn a_backup_and_a_salvage_have_the_current_bodies() {
    for seed in 0..30 {
        let (house, mut dice, mut expected) =
            (House::with(options()), Dice::new(seed), Expected::default());
        let table = open(&house);
        for number in 0..80 {
            house.clock.pass(dice.below(3_600_000));
            table.step(&mut dice, &mut expected, number);
            if dice.below(16) == 0 {
                table.engine.flush().expect("flushes");
            }
        }
        let (backup, restored) = (House::with(options()), House::with(options()));
        table.engine.backup_in(&backup.dir()).expect("a backup");
        restore_in(&backup.dir(), &restored.dir()).expect("restores");
        open(&restored).agrees(&expected, &format!("seed {seed}, restored"));
        drop(table);
        let mut image = house.disk.contents();
        for with_manifest in [true, false] {
            image.files.retain(|name, _| with_manifest || !name.starts_with("manifest"));
            let (wreck, saved) = (
                House { disk: SimulatedDisk::from_image(&image), ..House::with(options()) },
                House::with(options()),
            );
            let found = salvage_in(&wreck.dir(), &saved.dir(), &two_stores::NAMES)
                .expect("salvages")
                .findings;
            // Without a manifest, files that were about to be removed are parts like others.
            let is_whole = found.iter().all(|finding| finding.timeline.is_none());
            assert!(is_whole || !with_manifest, "{found:?}");
            open(&saved)
                .agrees(&expected, &format!("seed {seed}, salvaged, manifest: {with_manifest}"));
        }
    }
}

#[test]
fn a_power_cut_leaves_a_change_in_all_entries_or_in_none() {
    let house = House::with(options());
    let table = open(&house);
    table.fan_out(b"one", 3);
    table.engine.flush().expect("flushes");
    table.fan_out(b"two", 3);
    let from = house.disk.log_len();
    let change = |sequence, body: &[u8]| {
        let batch = Batch::new().edit_body(table.key(sequence), table.both(), body);
        table.commit(batch.append(&table.messages, b"c/told", body));
    };
    change(1, b"uno");
    change(2, b"due");
    table.engine.flush().expect("flushes");
    change(1, b"un");
    table.engine.compact().expect("merges");
    table.engine.close().expect("closes");
    drop(table);
    let (mut model, mut seen) = (Model::default(), std::collections::BTreeSet::new());
    for (at, op) in house.disk.log().iter().enumerate() {
        model.apply(op, None);
        for cut in Cut::ALL.into_iter().filter(|_| at >= from) {
            let disk = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(at as u64)));
            let house = House { disk, ..House::with(options()) };
            let table = open(&house);
            let last = table.messages.info(b"c/told").expect("reads").last;
            let expected: [&[u8]; 2] = match last {
                0 => [b"one", b"two"],
                1 => [b"uno", b"two"],
                2 => [b"uno", b"due"],
                _ => [b"un", b"due"],
            };
            table.check(&expected, 3, &format!("after call {at}, {cut:?}"));
            seen.insert(last);
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn around_damage_no_replaced_body_comes_back() {
    let house = House::with(options());
    let table = open(&house);
    // So many that the changed ones are no reason to rewrite the segment.
    for number in 0..100 {
        table.fan_out(format!("old {number}").as_bytes(), 3);
    }
    table.engine.flush().expect("flushes");
    for sequence in 1..=40 {
        table.commit(Batch::new().edit_body(table.key(sequence), table.both(), b"new"));
    }
    table.engine.flush().expect("flushes");
    table.engine.close().expect("closes");
    drop(table);
    let image = house.disk.contents();
    let (mut whole, mut lost) = (0, 0);
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
            let mut damaged = image.clone();
            damaged.files.get_mut(name).expect("is there")[at..]
                .iter_mut()
                .take(SECTOR_BYTES)
                .for_each(|byte| *byte ^= 0x10);
            let house =
                House { disk: SimulatedDisk::from_image(&damaged), ..House::with(options()) };
            let table = open(&house);
            for (store, timeline) in [(&table.messages, ROOM.to_vec()), (&table.sync, member(1))] {
                let Ok(page) = store.range(&timeline, .., Limit::entries(100).around_damage())
                else {
                    continue;
                };
                for entry in page.entries.iter().filter(|entry| entry.sequence <= 40) {
                    let is_lost = page.lost_at(entry.sequence).is_some();
                    assert!(
                        entry.body == "new" || (is_lost && entry.body.is_empty()),
                        "{name} at {at}: {entry:?}"
                    );
                    whole += u64::from(!is_lost);
                    lost += u64::from(is_lost);
                }
            }
        }
    }
    assert!(whole > 300 && lost > 100, "{whole} are whole, {lost} lost");
}
