//! Stores that are kept twice (P5, P6): whatever happens to one copy of a file, every read returns
//! the same as before; a check names the damage and repairs it byte for byte, and so does a merge.

use std::collections::BTreeMap;

use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SECTOR_BYTES, SimulatedDisk};
use strandline::{
    Batch, Copies, Engine, Entry, Limit, Options, StoreOptions, Trim, restore_in, salvage_in,
};

use crate::two_stores;
use crate::world::{House, soon};

const STORE: &str = "ledgers";

fn options() -> Options {
    two_stores::options().memory_budget_bytes(1024 * 1024).wal_file_bytes(64 * 1024)
}

fn names() -> Vec<String> {
    (0..40).map(|number| format!("l/{number:02}")).collect()
}

/// Two segments of forty timelines, with shared and own bodies, edits, removals, ids and a timeline
/// of many blocks, after a clean stop.
fn fill(engine: &Engine, store: &str) {
    let store = engine.store(store).expect("a store");
    for half in 0..2 {
        let all = names();
        for round in 0..8 {
            let body = format!("shared {half} {round} {}", "word ".repeat(60));
            let targets = all.iter().skip(round).step_by(3).map(|name| (&store, name.as_bytes()));
            engine
                .submit(Batch::new().fan_out(body.as_bytes(), targets))
                .expect("queued")
                .wait()
                .expect("is");
        }
        for (number, name) in all.iter().enumerate() {
            let batch = Batch::new().append(
                &store,
                name.as_bytes(),
                format!("own {number}").repeat(9).as_bytes(),
            );
            engine
                .submit(batch.id(format!("id {half}").as_bytes()))
                .expect("queued")
                .wait()
                .expect("is");
        }
        let long = (0..30).fold(Batch::new(), |batch, number: usize| {
            let body: Vec<u8> = (0..1500).map(|at| (at * (number + 3) % 253) as u8).collect();
            batch.append(&store, b"long", &body)
        });
        engine.submit(long).expect("queued").wait().expect("committed");
        if half == 1 {
            assert!(store.edit(b"l/00", 1, b"edited").expect("edits"));
            assert_eq!(store.delete(b"l/03", &[2]).expect("deletes"), 1);
            store.trim(b"l/06", Trim::Before(3)).expect("trims");
        }
        engine.flush().expect("flushes");
    }
}

fn kept_twice() -> (House, Contents) {
    let house = House::with(options());
    let engine = house.engine();
    engine
        .create_store_with(STORE, StoreOptions::default().copies(Copies::Twice))
        .expect("is made");
    fill(&engine, STORE);
    let contents = contents(&engine, STORE).expect("reads");
    engine.close().expect("closes");
    drop(engine);
    (house, contents)
}

type Contents = BTreeMap<Vec<u8>, (Vec<Entry>, u64)>;

fn contents(engine: &Engine, store: &str) -> strandline::Result<Contents> {
    let store = engine.store(store)?;
    let mut contents = Contents::new();
    for name in store.list(b"", None, 1000)? {
        let page = store.range(&name, .., Limit::entries(1000))?;
        assert_eq!(store.info(&name)?.count, page.entries.len() as u64);
        contents.insert(name, (page.entries, page.last));
    }
    Ok(contents)
}

fn on(image: &Image) -> House {
    House { disk: SimulatedDisk::from_image(image), ..House::with(options()) }
}

/// The current files of the store's segments.
fn segments(image: &Image) -> BTreeMap<String, Vec<u8>> {
    let files = image.files.iter().filter(|(name, _)| name.starts_with("segment-"));
    files.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// The kinds of damage to one file, and what is left of it.
fn damages(name: &str, bytes: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut all = vec![("gone".into(), None), ("empty".into(), Some(Vec::new()))];
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        Some(bytes)
    };
    for at in (0..bytes.len())
        .filter(|at| *at < 96 || at + 96 > bytes.len() || at % 331 == name.len() % 7)
    {
        all.push((format!("byte {at}"), with(&|bytes| bytes[at] ^= 1 << (at % 8))));
    }
    for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
        let end = bytes.len().min(at + SECTOR_BYTES);
        all.push((format!("sector {at}"), with(&|bytes| bytes[at..end].fill(0))));
    }
    for len in [1, 79, 80, bytes.len() / 2, bytes.len() - 1] {
        all.push((format!("cut to {len}"), with(&|bytes| bytes.truncate(len))));
    }
    all.push(("longer".into(), with(&|bytes| bytes.extend([7; 700]))));
    all.retain(|(_, left)| left.as_deref() != Some(bytes));
    all
}

fn with_file(image: &Image, name: &str, content: Option<Vec<u8>>) -> Image {
    let mut image = image.clone();
    image.files.remove(name);
    image.files.extend(content.map(|content| (name.to_string(), content)));
    image
}

#[test]
fn each_file_is_kept_twice_and_reads_cost_no_more() {
    let (house, _) = kept_twice();
    let files = segments(&house.disk.contents());
    assert_eq!(files.len(), 8, "{:?}", files.keys());
    for (name, bytes) in files.iter().filter(|(name, _)| !name.contains(".twin")) {
        assert_eq!(files.get(&format!("{name}.twin")), Some(bytes), "{name}");
    }
    let engine = house.engine();
    assert!(
        engine.stores().iter().any(|store| store.name == STORE && store.copies == Copies::Twice)
    );
    let bytes: usize = files.values().map(Vec::len).sum();
    assert_eq!(engine.stats().segment_bytes, bytes as u64);
    contents(&engine, STORE).expect("reads");
    assert_eq!(engine.stats().open_segment_files, 4, "no twin is opened unless it is needed");
}

#[test]
fn damage_to_one_copy_is_read_around_named_and_repaired_byte_for_byte() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let whole = segments(&image);
    let mut checked = 0;
    for (name, bytes) in &whole {
        for (number, (what, content)) in damages(name, bytes).into_iter().enumerate() {
            let house = on(&with_file(&image, name, content));
            let engine = house.engine();
            let found =
                contents(&engine, STORE).unwrap_or_else(|error| panic!("{name} {what}: {error}"));
            assert!(found == expected, "{name} {what}: other contents");
            match number % 4 {
                // A merge reads the good copy, and writes both copies again.
                0 => {
                    engine.compact().unwrap_or_else(|error| panic!("{name} {what}: {error}"));
                    assert!(
                        contents(&engine, STORE).expect("reads") == expected,
                        "{name} {what}: merged"
                    );
                }
                1 => {
                    let repair =
                        engine.repair().unwrap_or_else(|error| panic!("{name} {what}: {error}"));
                    assert_eq!(
                        (repair.mended, repair.left),
                        (vec![name.clone()], 0),
                        "{name} {what}"
                    );
                }
                _ => {
                    let found = engine.verify(|_, _| ()).expect("verifies");
                    let is_named = |finding: &strandline::Finding| {
                        finding.path.ends_with(name)
                            && finding.what.contains("its other copy is good")
                    };
                    assert!(
                        found.findings.iter().any(is_named),
                        "{name} {what}: {:?}",
                        found.findings
                    );
                    assert!(
                        found.findings.iter().all(is_named),
                        "{name} {what}: {:?}",
                        found.findings
                    );
                    assert_eq!(
                        found.mended.as_slice(),
                        std::slice::from_ref(name),
                        "{name} {what}"
                    );
                }
            }
            let after = engine.verify(|_, _| ()).expect("verifies");
            assert_eq!(after.findings, [], "{name} {what}: it is whole again");
            assert_eq!(engine.stats().damaged_segments, 0, "{name} {what}");
            if number % 4 != 0 {
                assert!(segments(&house.disk.contents()) == whole, "{name} {what}: byte for byte");
            }
            assert!(
                contents(&engine, STORE).expect("reads") == expected,
                "{name} {what}: after all"
            );
            checked += 1;
        }
    }
    assert!(checked > 1000, "{checked} kinds of damage");
}

#[test]
fn exchanged_files_are_read_around_and_repaired() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let whole = segments(&image);
    for one in whole.keys().filter(|name| !name.contains(".twin")) {
        for other in whole.keys().filter(|other| *other > one && **other != format!("{one}.twin")) {
            let exchanged = with_file(&image, one, Some(whole[other].clone()));
            let house = on(&with_file(&exchanged, other, Some(whole[one].clone())));
            let engine = house.engine();
            assert!(contents(&engine, STORE).expect("reads") == expected, "{one} and {other}");
            let mut mended = engine.verify(|_, _| ()).expect("verifies").mended;
            mended.sort();
            assert_eq!(mended, [one.clone(), other.clone()]);
            assert!(segments(&house.disk.contents()) == whole, "{one} and {other}");
        }
    }
}

#[test]
fn two_copies_damaged_at_different_positions_complete_each_other() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let whole = segments(&image);
    for (name, bytes) in whole.iter().filter(|(name, _)| !name.contains(".twin")) {
        let twin = format!("{name}.twin");
        // Far enough apart to be in different blocks.
        for (one, other) in
            [(10, bytes.len() - 10), (bytes.len() - 10, 10), (600, bytes.len() - 400)]
        {
            let flipped = |at: usize| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x10;
                Some(bytes)
            };
            let house =
                on(&with_file(&with_file(&image, name, flipped(one)), &twin, flipped(other)));
            let engine = house.engine();
            assert!(contents(&engine, STORE).expect("reads") == expected, "{name}: {one}, {other}");
            let mended = engine.repair().expect("repairs");
            assert_eq!((mended.mended, mended.left), (vec![name.clone(), twin.clone()], 0));
            assert!(segments(&house.disk.contents()) == whole, "{name}: {one}, {other}");
        }
    }
}

#[test]
fn damage_in_both_copies_is_named_and_left_as_it_is() {
    let (house, _) = kept_twice();
    let image = house.disk.contents();
    let name =
        segments(&image).into_keys().find(|name| name.contains(".data")).expect("there is one");
    let twin = format!("{name}.twin");
    let flipped = |name: &str, places: &[usize]| {
        let mut bytes = image.files[name].clone();
        places.iter().for_each(|at| bytes[*at] ^= 0x10);
        Some(bytes)
    };
    let last = image.files[&name].len() - 10;
    let damaged = with_file(&image, &name, flipped(&name, &[300]));
    let house = on(&with_file(&damaged, &twin, flipped(&twin, &[300, last])));
    let engine = house.engine();
    let repair = engine.repair().expect("repairs what it can");
    assert_eq!((repair.mended, repair.left), (vec![twin.clone()], 2));
    let after = house.disk.contents();
    assert!(
        after.files[&name] == damaged.files[&name] && after.files[&twin] == damaged.files[&name]
    );
    assert_eq!(engine.stats().damaged_segments, 1);
    assert!(contents(&engine, STORE).is_err(), "reads name it");
}

#[test]
fn a_read_only_engine_serves_reads_and_repairs_nothing() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let name = segments(&image).into_keys().next().expect("there is one");
    let image = with_file(&image, &name, None);
    let house = House { options: options().read_only(true), ..on(&image) };
    let engine = house.engine();
    assert!(contents(&engine, STORE).expect("reads") == expected);
    let found = engine.verify(|_, _| ()).expect("verifies");
    assert!(!found.findings.is_empty() && found.mended.is_empty());
    engine.repair().expect_err("it is read-only");
    assert!(house.disk.contents() == image);
}

#[test]
fn a_power_cut_at_every_call_of_a_repair_leaves_the_state_before_or_after() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let whole = segments(&image);
    let mut damaged = image.clone();
    for (number, (name, bytes)) in whole.iter().enumerate() {
        // The original of one pair, the twin of the next.
        if name.contains(".twin") == (number / 2 % 2 == 0) {
            damaged.files.get_mut(name).expect("it is there")[bytes.len() / 2] ^= 0x10;
        }
    }
    let house = on(&damaged);
    let engine = house.engine();
    let from = house.disk.log_len();
    let repair = engine.repair().expect("repairs");
    assert_eq!((repair.mended.len(), repair.left), (4, 0));
    let log = house.disk.log();
    let mut model = Model::from_image(&damaged);
    let (mut cuts, mut mended) = (0, 0);
    for (at, op) in log.iter().enumerate() {
        model.apply(op, None);
        if at < from {
            continue;
        }
        for (cut, seed) in Cut::ALL.into_iter().flat_map(|cut| (0..4).map(move |seed| (cut, seed)))
        {
            let left = model.power_cut(cut, &mut Dice::new(seed));
            for (name, bytes) in segments(&left).iter().filter(|(name, _)| !name.contains(".tmp")) {
                assert!(
                    *bytes == whole[name] || *bytes == damaged.files[name],
                    "{name} after call {at}, {cut:?}"
                );
                mended += u64::from(*bytes != damaged.files[name]);
            }
            let house = on(&left);
            let engine = house.engine();
            assert!(
                contents(&engine, STORE).expect("reads") == expected,
                "after call {at}, {cut:?}"
            );
            assert!(!house.disk.contents().files.keys().any(|name| name.contains(".tmp")));
            engine.repair().expect("repairs");
            assert!(segments(&house.disk.contents()) == whole, "after call {at}, {cut:?}");
            cuts += 1;
        }
    }
    assert!(cuts > 100 && mended > 100, "{cuts} power cuts, {mended} mended files");
    assert!(log[from..].iter().any(|op| matches!(op, Op::SyncDir { .. })));
}

/// How many states of power cuts have damage in a file that the manifest names. With `lying`, syncs
/// of twins do nothing.
fn damaged_by_power_cuts(log: &[Op], lying: bool) -> (usize, usize) {
    let (mut model, mut names) = (Model::default(), BTreeMap::new());
    let (mut cuts, mut damaged) = (0, 0);
    for op in log {
        if let Op::Create { name, file } = op {
            names.insert(*file, name.contains(".twin"));
        }
        if !(lying && matches!(op, Op::Sync { file, .. } if names.get(file) == Some(&true))) {
            model.apply(op, None);
        }
        for cut in Cut::ALL {
            let engine = on(&model.power_cut(cut, &mut Dice::new(cuts as u64))).engine();
            damaged +=
                usize::from(!engine.verify(|_, _| ()).expect("verifies").findings.is_empty());
            cuts += 1;
        }
    }
    (cuts, damaged)
}

#[test]
fn whenever_the_manifest_names_a_twin_it_is_durable() {
    let house = House::with(options());
    let engine = house.engine();
    let store = engine
        .create_store_with(STORE, StoreOptions::default().copies(Copies::Twice))
        .expect("is made");
    for number in 0..3 {
        store.append(b"t", format!("entry {number}").repeat(200).as_bytes()).expect("appends");
        engine.flush().expect("flushes");
    }
    engine.compact().expect("merges");
    let log = house.disk.log();
    let (cuts, damaged) = damaged_by_power_cuts(&log, false);
    assert!(cuts > 300, "{cuts} power cuts");
    assert_eq!(damaged, 0, "of {cuts} power cuts");
    assert!(
        damaged_by_power_cuts(&log, true).1 > 0,
        "a sync of a twin that is left out is noticed"
    );
}

#[test]
fn an_existing_store_gets_its_copies_and_a_power_cut_in_between_harms_nothing() {
    let house = House::with(options());
    let engine = house.engine();
    fill(&engine, "messages");
    let expected = contents(&engine, "messages").expect("reads");
    engine.close().expect("closes");
    drop(engine);
    let image = house.disk.contents();
    let house = on(&image);
    let engine = house.engine();
    let from = house.disk.log_len();
    engine.set_store_copies("messages", Copies::Twice).expect("copies");
    assert!(
        engine
            .stores()
            .iter()
            .any(|store| store.name == "messages" && store.copies == Copies::Twice)
    );
    let twins = |image: &Image| image.files.keys().filter(|name| name.contains(".twin")).count();
    assert_eq!(twins(&house.disk.contents()), 4);
    assert_eq!(engine.verify(|_, _| ()).expect("verifies").findings, []);
    let log = house.disk.log();
    let mut model = Model::from_image(&image);
    for (at, op) in log.iter().enumerate() {
        model.apply(op, None);
        for cut in Cut::ALL.into_iter().filter(|_| at >= from) {
            let house = on(&model.power_cut(cut, &mut Dice::new(at as u64)));
            let engine = house.engine();
            assert!(
                contents(&engine, "messages").expect("reads") == expected,
                "after call {at}, {cut:?}"
            );
            assert_eq!(
                engine.verify(|_, _| ()).expect("verifies").findings,
                [],
                "after call {at}, {cut:?}"
            );
            engine.set_store_copies("messages", Copies::Twice).expect("copies");
            engine.repair().expect("repairs");
            assert_eq!(twins(&house.disk.contents()), 4, "after call {at}, {cut:?}");
        }
    }
    // They are as good as twins that were written with their originals.
    for name in segments(&house.disk.contents()).into_keys().filter(|name| !name.contains(".twin"))
    {
        let house = on(&with_file(&house.disk.contents(), &name, None));
        assert!(
            contents(&house.engine(), "messages").expect("reads") == expected,
            "without {name}"
        );
    }
    // A merge uses the current setting of the store.
    engine.set_store_copies("messages", Copies::Once).expect("is changed");
    engine.compact().expect("merges");
    soon("the twins go", || twins(&house.disk.contents()) == 0);
    assert!(contents(&engine, "messages").expect("reads") == expected);
}

#[test]
fn twins_are_removed_with_their_originals() {
    const TTL_MS: u64 = 64_000;
    let house = House::with(options());
    let engine = house.engine();
    let brief = StoreOptions::default().copies(Copies::Twice).ttl(two_stores::ttl(TTL_MS));
    let store = engine.create_store_with("brief", brief).expect("is made");
    for number in 0..3 {
        store.append(b"t", format!("entry {number}").as_bytes()).expect("appends");
        engine.flush().expect("flushes");
    }
    let count =
        |end: &str| house.disk.contents().files.keys().filter(|name| name.ends_with(end)).count();
    let all = [".data", ".data.twin", ".index", ".index.twin"];
    assert_eq!(all.map(count), [3, 3, 3, 3]);
    engine.compact().expect("merges");
    soon("those that were merged go", || all.map(count) == [1, 1, 1, 1]);
    house.clock.pass(2 * TTL_MS);
    engine.compact().expect("drops what has expired");
    soon("the index stays, twice", || all.map(count) == [0, 0, 1, 1]);
    assert_eq!(store.append(b"t", b"next").expect("appends"), 4);
    // Files that no manifest names are removed at the next open.
    drop((store, engine));
    let mut image = house.disk.contents();
    image.files.insert("segment-000000000900.data.twin".into(), b"left over".into());
    image.files.insert("segment-000000000901.index.twin.tmp".into(), b"left over".into());
    let house = on(&image);
    drop(house.engine());
    assert!(!house.disk.contents().files.keys().any(|name| name.contains("0000000090")));
}

#[test]
fn backup_restore_and_salvage_handle_twins() {
    let (house, expected) = kept_twice();
    let image = house.disk.contents();
    let whole = segments(&image);
    let engine = house.engine();
    let (backup, restored) = (House::with(options()), House::with(options()));
    engine.backup_in(&backup.dir()).expect("a backup");
    assert!(segments(&backup.disk.contents()) == whole);
    restore_in(&backup.dir(), &restored.dir()).expect("restores");
    assert!(segments(&restored.disk.contents()) == whole);
    assert!(contents(&restored.engine(), STORE).expect("reads") == expected);
    // One copy of each pair is missing, truncated or damaged: everything is salvaged, with and
    // without the manifest.
    for (number, without_manifest) in [(0, false), (1, true), (2, false), (3, true)] {
        let mut image = image.clone();
        for (at, name) in whole.keys().filter(|name| !name.contains(".twin")).enumerate() {
            let name = if (at + number) % 2 == 0 { name.clone() } else { format!("{name}.twin") };
            let bytes = image.files.get_mut(&name).expect("it is there");
            match (at + number) % 3 {
                0 => drop(image.files.remove(&name)),
                1 => bytes.truncate(bytes.len() / 2),
                _ => bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x10),
            }
        }
        image.files.retain(|name, _| !(without_manifest && name.starts_with("manifest")));
        let target = House::with(options());
        let found = salvage_in(
            &Dir::new(std::sync::Arc::new(SimulatedDisk::from_image(&image))),
            &target.dir(),
            &two_stores::NAMES,
        );
        let found = found.expect("salvages");
        assert!(
            found.findings.iter().all(|finding| finding.timeline.is_none()),
            "{:?}",
            found.findings
        );
        let store = if without_manifest { "store-3" } else { STORE };
        assert!(contents(&target.engine(), store).expect("reads") == expected, "{number}");
        let twins =
            target.disk.contents().files.keys().filter(|name| name.contains(".twin")).count();
        assert_eq!(
            twins,
            if without_manifest { 0 } else { 2 },
            "{number}: kept as often as before"
        );
    }
}
