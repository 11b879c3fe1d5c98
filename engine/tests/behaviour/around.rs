//! Reads around damage (P4, P5): one damaged sector of a segment removes only its own content, and
//! everything removed is reported.
//!
//! Three timelines with shared and own bodies, edits and removals in three segments, and a long one
//! with a run table, each with an entry in the log on top. Each sector of each file is damaged in
//! turn. For each entry, a read around the damage returns it unchanged, or without its body and
//! reported as lost, or inside a range that is reported as lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use strandline::vfs::simulated::{Image, SECTOR_BYTES, SimulatedDisk};
use strandline::vfs::{Dir, RawDirectory, RawFile};
use strandline::{Batch, Engine, Entry, Error, Limit, Options, Page, Store, Trim, Verdict, World};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use crate::disks::as_the_disk;
use crate::two_stores;
use crate::world::House;

const NAMES: [&str; 4] = ["a", "b", "c", "long"];

/// The content of a timeline: time and body by sequence.
type Entries = BTreeMap<u64, (u64, Vec<u8>)>;

fn options() -> Options {
    two_stores::options().memory_budget_bytes(8 * 1024 * 1024).wal_file_bytes(64 * 1024)
}

fn body(number: usize, bytes: usize) -> Vec<u8> {
    let mut body = format!("body {number} ").into_bytes();
    body.extend((0..bytes).map(|at| (at * (number + 7) % 251) as u8));
    body
}

fn commit(engine: &Engine, batch: Batch) {
    engine.commit(batch).expect("committed");
}

/// The files, and their content.
struct Shape {
    image: Image,
    whole: BTreeMap<&'static str, Entries>,
    /// Bodies before they were edited, and entries that were removed: a damaged index may bring
    /// them back.
    former: BTreeMap<&'static str, BTreeMap<u64, Vec<u8>>>,
}

fn shape(with_changes: bool) -> Shape {
    let house = House::with(options());
    let engine = house.engine();
    let store = engine.store("messages").expect("a store");
    let mut former: BTreeMap<&'static str, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    let mut number = 0;
    for third in 0..3 {
        for round in 0..30 {
            house.clock.pass(10);
            number += 1;
            let targets = NAMES[..3].iter().map(|name| (&store, name.as_bytes()));
            commit(&engine, Batch::new().fan_out(body(number, 300), targets));
            if round % 3 == 0 {
                number += 1;
                commit(&engine, Batch::new().append(&store, b"b", body(number, 500)));
            }
        }
        let mut long = Batch::new();
        for _ in 0..300 {
            number += 1;
            long = long.append(&store, b"long", body(number, 1000));
        }
        commit(&engine, long);
        if with_changes && third > 0 {
            for (name, sequence) in [("a", 20 * third), ("c", 29 * third)] {
                let entry =
                    store.get(name.as_bytes(), sequence).expect("reads").expect("it is there");
                former.entry(name).or_default().insert(sequence, entry.body.to_vec());
                assert!(store.edit(name.as_bytes(), sequence, b"edited").expect("edits"));
            }
            let entry = store.get(b"b", 7 * third).expect("reads").expect("it is there");
            former.entry("b").or_default().insert(7 * third, entry.body.to_vec());
            assert_eq!(store.delete(b"b", &[7 * third]).expect("deletes"), 1);
        }
        engine.flush().expect("flushes");
    }
    for name in NAMES {
        store.append(name.as_bytes(), b"in the log").expect("appends");
    }
    let whole = NAMES.map(|name| (name, entries(&all(&store, name).entries))).into();
    drop((store, engine));
    Shape { image: house.disk.contents(), whole, former }
}

fn all(store: &Store, name: &str) -> Page {
    store.range(name.as_bytes(), .., Limit::entries(10_000)).expect("reads")
}

fn entries(found: &[Entry]) -> Entries {
    found.iter().map(|entry| (entry.sequence, (entry.time_ms, entry.body.to_vec()))).collect()
}

fn engine_on(image: &Image) -> (House, Engine) {
    let house = House { disk: SimulatedDisk::from_image(image), ..House::with(options()) };
    let engine = house.engine();
    (house, engine)
}

/// All segment files with one sector damaged.
fn damaged(image: &Image) -> Vec<(String, usize, Image)> {
    let mut all = Vec::new();
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
            let mut image = image.clone();
            let byte = (at + at / SECTOR_BYTES % SECTOR_BYTES).min(bytes.len() - 1);
            image.files.get_mut(name).expect("it is there")[byte] ^= 0x10;
            all.push((name.clone(), at, image));
        }
    }
    assert!(all.len() > 500, "{} places", all.len());
    all
}

/// A complete read in pages.
fn paged(mut read: impl FnMut(Option<u64>) -> Page) -> (Vec<Entry>, Vec<(u64, u64)>) {
    let (mut entries, mut lost, mut next) = (Vec::new(), Vec::new(), None);
    loop {
        let page = read(next);
        assert!(page.entries.len() <= 7);
        entries.extend(page.entries);
        lost.extend(page.lost.iter().map(|lost| (lost.first, lost.last)));
        next = Some(page.next);
        if !page.more {
            return (entries, lost);
        }
    }
}

/// Checks that the result is complete except for what is reported. Returns how much is lost.
fn check(shape: &Shape, name: &str, found: &[Entry], lost: &[(u64, u64)], where_: &str) -> u64 {
    let is_lost =
        |sequence: &u64| lost.iter().any(|(first, last)| (first..=last).contains(&sequence));
    let none = BTreeMap::new();
    let edited = shape.former.get(name).unwrap_or(&none);
    let former = if where_.contains("index") { edited } else { &none };
    let mut before = (0, 0);
    for entry in found {
        assert!(
            before.0 < entry.sequence && before.1 <= entry.time_ms,
            "{where_}: order at {}",
            entry.sequence
        );
        before = (entry.sequence, entry.time_ms);
        match shape.whole[name].get(&entry.sequence) {
            Some((time_ms, body)) if !is_lost(&entry.sequence) => {
                let is_former =
                    former.get(&entry.sequence).is_some_and(|former| *former == entry.body);
                assert!(
                    *body == entry.body || is_former,
                    "{where_}: a wrong body at {}",
                    entry.sequence
                );
                // The time of an edited entry is stored with its former body.
                let may_be_earlier =
                    edited.contains_key(&entry.sequence) && entry.time_ms < *time_ms;
                let is_right = *time_ms == entry.time_ms || may_be_earlier;
                assert!(is_right, "{where_}: a wrong time at {}", entry.sequence);
            }
            Some((time_ms, _)) => {
                assert!(entry.body.is_empty(), "{where_}: lost, but not empty");
                assert!(entry.time_ms <= *time_ms, "{where_}: a time above the true one");
            }
            None => assert!(
                former.contains_key(&entry.sequence),
                "{where_}: {} never was",
                entry.sequence
            ),
        }
    }
    for sequence in shape.whole[name].keys() {
        let is_there = found.iter().any(|entry| entry.sequence == *sequence);
        assert!(is_there || is_lost(sequence), "{where_}: {sequence} is missing without a word");
    }
    shape.whole[name].keys().filter(|sequence| is_lost(sequence)).count() as u64
}

#[test]
fn around_one_damaged_sector_no_loss_is_silent() {
    let shape = shape(true);
    let mut lost_in_all = 0;
    for (file, at, image) in damaged(&shape.image) {
        let (_house, engine) = engine_on(&image);
        let store = engine.store("messages").expect("a store");
        let mut lost_here = 0;
        for name in NAMES {
            let where_ = format!("{file} at {at}: {name}");
            let (key, limit) = (name.as_bytes(), Limit::entries(10_000).around_damage());
            let page =
                store.range(key, .., limit).unwrap_or_else(|error| panic!("{where_}: {error}"));
            let lost: Vec<_> = page.lost.iter().map(|lost| (lost.first, lost.last)).collect();
            for lost in &page.lost {
                let text = lost.error.to_string();
                let names = format!("(timeline messages:{name}");
                assert!(text.contains(&file) && text.contains(&names), "{where_}: {text}");
            }
            lost_here += check(&shape, name, &page.entries, &lost, &where_);
            if store.range(key, .., Limit::entries(10_000)).is_ok() {
                assert_eq!(lost, [], "{where_}: a read that does not go around says nothing of it");
            }
            // The same in pages, in each direction, and for a client that catches up.
            let seven = Limit::entries(7).around_damage();
            let up = paged(|next| {
                store.range(key, next.map_or(0, |next| next + 1).., seven).expect("reads")
            });
            assert_eq!(up.0, page.entries, "{where_}: in pages");
            check(&shape, name, &up.0, &up.1, &where_);
            let after =
                paged(|next| store.read_after(key, next.unwrap_or(0), seven).expect("reads"));
            assert_eq!(after.0, up.0, "{where_}: catching up");
            check(&shape, name, &after.0, &after.1, &where_);
            let mut back = paged(|next| match next {
                None => store.range_back(key, .., seven).expect("reads"),
                Some(next) => store.range_back(key, ..next, seven).expect("reads"),
            });
            back.0.reverse();
            assert_eq!(back.0, up.0, "{where_}: back and forth differ");
            check(&shape, name, &back.0, &back.1, &where_);
            assert_eq!(store.append(key, b"after").expect("appends"), page.last + 1, "{where_}");
        }
        lost_in_all += lost_here;
    }
    assert!(lost_in_all > 1000, "{lost_in_all} entries were lost, all in all");
}

#[test]
fn damaged_timelines_can_be_trimmed_and_dropped_and_continue_to_count() {
    let shape = shape(false);
    let mut met = 0;
    for (file, at, image) in damaged(&shape.image).into_iter().step_by(5) {
        for (number, name) in NAMES.into_iter().enumerate() {
            let (_house, engine) = engine_on(&image);
            let store = engine.store("messages").expect("a store");
            let where_ = format!("{file} at {at}: {name}");
            let (key, whole) = (name.as_bytes(), &shape.whole[name]);
            let last = *whole.last_key_value().expect("it has entries").0;
            met += u64::from(store.range(key, .., Limit::entries(10_000)).is_err());
            let (trim, removed) = match (at / SECTOR_BYTES + number) % 4 {
                0 => (Trim::Before(last / 2), last / 2 - 1),
                1 => (Trim::Keep(5), last - 5),
                2 => (Trim::Keep(0), last),
                _ => (Trim::Older(whole[&(last / 2)].0), 0),
            };
            let counted =
                store.trim(key, trim).unwrap_or_else(|error| panic!("{where_}: {trim:?}: {error}"));
            let older = |time_ms| whole.values().filter(|(of, _)| *of < time_ms).count() as u64;
            match trim {
                // An entry whose time cannot be read may be young: it stays.
                Trim::Older(time_ms) => assert!(counted <= older(time_ms), "{where_}: {trim:?}"),
                _ => assert_eq!(counted, removed, "{where_}: {trim:?}"),
            }
            let page =
                store.read_after(key, 0, Limit::entries(10_000).around_damage()).expect("reads");
            assert_eq!(page.first, counted + 1, "{where_}: {trim:?}");
            assert_eq!(store.append(key, b"after").expect("appends"), last + 1, "{where_}");
            assert!(store.drop_timeline(key).expect("drops"), "{where_}");
            assert_eq!(
                store.range(key, .., Limit::entries(1)).expect("reads").entries,
                [],
                "{where_}"
            );
            assert_eq!(store.append(key, b"a new one").expect("appends"), last + 2, "{where_}");
            let found = store.range(key, .., Limit::entries(10)).expect("reads").entries;
            assert_eq!(
                found.iter().map(|entry| entry.sequence).collect::<Vec<_>>(),
                [last + 2],
                "{where_}"
            );
        }
    }
    assert!(met > 100, "{met} timelines were damaged");
}

#[test]
fn expired_entries_are_no_loss_and_entries_that_may_live_are_not_hidden() {
    const TTL_MS: u64 = 64_000;
    let house = House::with(options());
    let engine = house.engine();
    let store = engine.create_store("brief", two_stores::ttl(TTL_MS)).expect("is made");
    for number in 0..60 {
        house.clock.pass(1000);
        let targets = [b"a".as_slice(), b"b"].map(|name| (&store, name));
        commit(&engine, Batch::new().fan_out(body(number, 400), targets));
        if number % 20 == 19 {
            engine.flush().expect("flushes");
        }
    }
    for name in [b"a", b"b"] {
        store.append(name, b"in the log").expect("appends");
    }
    let now_ms = strandline::clock::Clock::now_ms(&*house.clock) + TTL_MS - 25_000;
    drop((store, engine));
    let image = house.disk.contents();
    let at_that_time = |image: &Image| {
        let house = House { disk: SimulatedDisk::from_image(image), ..House::with(options()) };
        house.clock.set(now_ms);
        let engine = house.engine();
        let store = engine.store("brief").expect("a store");
        [b"a", b"b"].map(|name| {
            let limit = Limit::entries(1000).around_damage();
            store.read_after(name, 0, limit).expect("reads around damage")
        })
    };
    let whole = at_that_time(&image);
    assert_eq!(whole[0].entries.len(), 26);
    assert!(whole.iter().all(|page| page.verdict == Verdict::Trimmed && page.lost.is_empty()));
    let (mut lost, mut unharmed) = (0, 0);
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        for at in (0..bytes.len()).step_by(SECTOR_BYTES / 2) {
            let mut image = image.clone();
            image.files.get_mut(name).expect("it is there")[at] ^= 0x10;
            for (page, whole) in at_that_time(&image).iter().zip(&whole) {
                let where_ = format!("{name} at {at}");
                for entry in &whole.entries {
                    let found = page.entries.iter().find(|found| found.sequence == entry.sequence);
                    let is_lost = page.lost_at(entry.sequence).is_some();
                    assert!(
                        is_lost || found == Some(entry),
                        "{where_}: {} is missing",
                        entry.sequence
                    );
                }
                for found in
                    page.entries.iter().filter(|found| page.lost_at(found.sequence).is_none())
                {
                    assert!(
                        whole.entries.contains(found),
                        "{where_}: {} had expired",
                        found.sequence
                    );
                }
                let is_reported = page.verdict == whole.verdict || !page.lost.is_empty();
                assert!(is_reported && page.last == whole.last, "{where_}: {:?}", page.verdict);
                lost += page.lost.len();
                unharmed += usize::from(page == whole);
            }
        }
    }
    assert!(lost > 50 && unharmed > 50, "{lost} lost, {unharmed} pages unharmed");
}

#[test]
fn a_page_of_a_run_table_hides_the_blocks_that_it_leads_to_and_no_others() {
    const ENTRIES: u64 = 900;
    let house = House::with(two_stores::options().memory_budget_bytes(256 * 1024 * 1024));
    let engine = house.engine();
    let store = engine.store("messages").expect("a store");
    // Each body fills a block, so that the run table has several pages.
    for number in 0..ENTRIES / 10 {
        let ten = (0..10).fold(Batch::new(), |batch, at| {
            batch.append(&store, b"long", body((10 * number + at) as usize, 16 * 1024))
        });
        commit(&engine, ten);
    }
    engine.flush().expect("flushes");
    store.append(b"long", b"in the log").expect("appends");
    let whole = all(&store, "long").entries;
    drop((store, engine));
    let image = house.disk.contents();
    let (name, bytes) =
        image.files.iter().find(|(name, _)| name.contains(".index")).expect("there is a segment");
    let mut partly = 0;
    for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
        let mut image = image.clone();
        image.files.get_mut(name).expect("it is there")[at] ^= 0x10;
        let (_house, engine) = engine_on(&image);
        let store = engine.store("messages").expect("a store");
        let limit = Limit::entries(10_000).around_damage();
        let up = store.range(b"long", .., limit).expect("reads around damage");
        let mut back = store.range_back(b"long", .., limit).expect("reads around damage");
        back.entries.reverse();
        assert_eq!((&back.entries, back.lost.len()), (&up.entries, up.lost.len()), "byte {at}");
        let ranges: u64 = up.lost.iter().map(|lost| lost.last - lost.first + 1).sum();
        assert_eq!(up.entries.len() as u64 + ranges, whole.len() as u64, "byte {at}");
        assert!(up.entries.iter().all(|entry| whole.contains(entry)), "byte {at}");
        partly += u64::from(0 < ranges && ranges < ENTRIES);
    }
    assert!(partly > 30, "{partly} sectors are of pages below a root");
}

#[test]
fn damage_in_dropped_timelines_does_not_prevent_a_merge() {
    let shape = shape(false);
    let mut merged = 0;
    for (file, at, image) in
        damaged(&shape.image).into_iter().filter(|(file, ..)| file.contains(".data")).step_by(7)
    {
        let (_house, engine) = engine_on(&image);
        let store = engine.store("messages").expect("a store");
        let read = |name: &str| store.range(name.as_bytes(), .., Limit::entries(10_000));
        for name in NAMES.into_iter().filter(|name| read(name).is_err()) {
            store.drop_timeline(name.as_bytes()).expect("drops");
        }
        let Err(error) = engine.compact() else {
            merged += 1;
            assert_eq!(engine.verify(|_, _| ()).expect("verifies").findings, [], "{file} {at}");
            assert!(!engine.has_damage(), "{file} {at}: it went with its segment");
            continue;
        };
        // Among the blocks with ends and beginnings of several timelines, some are whole.
        assert!(error.to_string().contains(&file), "{file} {at}: {error}");
    }
    assert!(merged > 20, "{merged} were merged");
}

/// The disk does not return a file, or returns the start of it and then an I/O error: that is
/// handled like other damage.
#[test]
fn with_a_file_missing_or_unreadable_the_log_is_replayed_and_no_loss_is_silent() {
    let shape = shape(false);
    let files: Vec<&String> =
        shape.image.files.keys().filter(|name| name.starts_with("segment-")).collect();
    let mut lost = 0;
    for (file, is_gone) in files.into_iter().flat_map(|file| [(file, true), (file, false)]) {
        let mut image = shape.image.clone();
        if is_gone {
            image.files.remove(file);
        }
        let disk = Unreadable { disk: SimulatedDisk::from_image(&image), file: file.clone() };
        let dir = Dir::new(Arc::new(disk));
        let world = World { dir, clock: House::with(options()).clock };
        let engine = Engine::open_in(world, options()).expect("opens around it");
        let store = engine.store("messages").expect("a store");
        for name in NAMES {
            let where_ = format!("{file}, gone: {is_gone}, {name}");
            let limit = Limit::entries(10_000).around_damage();
            let page = store.range(name.as_bytes(), .., limit).expect("goes around");
            let ranges: Vec<(u64, u64)> =
                page.lost.iter().map(|lost| (lost.first, lost.last)).collect();
            lost += check(&shape, name, &page.entries, &ranges, &where_);
            let newest = page.entries.last().expect("the log has one");
            assert_eq!(newest.body, "in the log", "{where_}");
            let next =
                store.append(name.as_bytes(), b"next").expect("where it ended is in the log");
            assert_eq!(next, newest.sequence + 1, "{where_}");
        }
    }
    assert!(lost > 2000, "{lost} are lost");
}

/// A simulated disk that returns no byte of a file after its header.
struct Unreadable {
    disk: SimulatedDisk,
    file: String,
}

impl RawDirectory for Unreadable {
    as_the_disk!(path, lock, list, create, rename, remove, sync);

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = RawDirectory::open(&self.disk, name)?;
        Ok(if name == self.file { Arc::new(UnreadableFile { file }) } else { file })
    }
}

struct UnreadableFile {
    file: Arc<dyn RawFile>,
}

impl RawFile for UnreadableFile {
    as_the_disk!(file len, write_at, set_len, sync);

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset == 0 {
            self.file.read_at(offset, buffer)
        } else {
            Err(io::Error::from_raw_os_error(5))
        }
    }
}

#[test]
fn an_entry_without_its_body_can_be_deleted_or_edited() {
    let shape = shape(false);
    let mut lost = 0;
    for (file, at, image) in
        damaged(&shape.image).into_iter().filter(|(file, ..)| file.contains(".data")).step_by(9)
    {
        let (_house, engine) = engine_on(&image);
        let store = engine.store("messages").expect("a store");
        let read = || store.range(b"a", .., Limit::entries(1000).around_damage()).expect("reads");
        let page = read();
        let damaged: Vec<u64> = page
            .entries
            .iter()
            .map(|entry| entry.sequence)
            .filter(|at| page.lost_at(*at).is_some())
            .collect();
        let [edited, .., deleted] = damaged.as_slice() else { continue };
        assert!(store.edit(b"a", *edited, b"another").expect("edits"), "{file} {at}");
        assert_eq!(store.delete(b"a", &[*deleted]).expect("deletes"), 1, "{file} {at}");
        let after = read();
        let found =
            after.entries.iter().find(|entry| entry.sequence == *edited).expect("it is there");
        assert_eq!(found.body, "another");
        assert!(after.lost_at(*edited).is_none(), "it is whole again");
        assert!(after.entries.iter().all(|entry| entry.sequence != *deleted));
        lost += 1;
    }
    assert!(lost > 3, "{lost} places took bodies away");
}

#[test]
fn ends_appends_and_conditions_need_no_block_of_data() {
    let shape = shape(true);
    let mut image = shape.image.clone();
    let data = image.files.iter_mut().filter(|(name, _)| name.contains(".data"));
    data.for_each(|(_, bytes)| bytes.iter_mut().skip(80).for_each(|byte| *byte ^= 0x10));
    // Nothing is in memory that could answer.
    let (house, engine) = engine_on(&image);
    engine.close().expect("closes");
    drop(engine);
    let engine = house.engine();
    let store = engine.store("messages").expect("a store");
    for name in NAMES {
        let last = *shape.whole[name].last_key_value().expect("it has entries").0;
        let key = name.as_bytes();
        assert_eq!(store.end(key).expect("no block is needed").0, last);
        commit(&engine, Batch::new().if_last_of(&store, key, last).append(&store, key, b"next"));
        assert_eq!(
            store.last(key).expect("it is in memory").map(|entry| entry.sequence),
            Some(last + 1)
        );
    }
}

/// Collects the log lines of one thread.
#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<String>>>, ThreadId);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if std::thread::current().id() != self.1 {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("no panic").push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_damaged_block_is_counted_and_logged_once_and_read_once() {
    let shape = shape(false);
    let mut image = shape.image.clone();
    let (file, bytes) = image
        .files
        .iter_mut()
        .find(|(name, _)| name.contains(".data"))
        .expect("there is a segment");
    bytes[600] ^= 0x10;
    let file = file.clone();
    let lines = Lines(Arc::default(), std::thread::current().id());
    tracing::subscriber::set_global_default(lines.clone()).expect("there is no other");
    let figure = |engine: &Engine, name: &str| engine.stats().get(name).expect("a figure");
    let (_house, engine) = engine_on(&image);
    let store = engine.store("messages").expect("a store");
    assert_eq!(figure(&engine, "damaged_segments"), 0, "nobody has read it yet");
    let error = store.range(b"a", .., Limit::entries(10)).expect_err("the first body is damaged");
    assert!(error.to_string().contains("(timeline messages:a, sequences 1 to 1)"), "{error}");
    assert_eq!(figure(&engine, "damaged_segments"), 1);
    let reads = figure(&engine, "block_reads");
    for _ in 0..20 {
        let again = store.range(b"a", .., Limit::entries(10)).expect_err("still");
        assert_eq!(again.to_string(), error.to_string());
        store.range(b"c", 1..3, Limit::entries(10)).expect_err("shares the body");
        let page =
            store.range(b"a", 1..3, Limit::entries(10).around_damage()).expect("goes around");
        assert_eq!(page.lost.len(), 2);
    }
    // The runs of `c` were not read before.
    assert!(figure(&engine, "block_reads") <= reads + 1, "the damaged block was read again");
    assert_eq!(figure(&engine, "damaged_segments"), 1);
    let logged = lines.0.lock().expect("no panic").clone();
    let [line] = logged.as_slice() else { panic!("{logged:#?}") };
    for part in [file.as_str(), "at byte", "messages:a", "sequences 1 to 1"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // A check finds the same, and returns it to its caller.
    let found = engine.verify(|_, _| ()).expect("verifies").findings;
    assert!(found.iter().any(|finding| finding.path.ends_with(&file)), "{found:?}");
    assert_eq!(lines.0.lock().expect("no panic").len(), 1, "the log has it already");
}

#[test]
fn a_merge_or_a_check_that_meets_damage_counts_it() {
    let shape = shape(false);
    let mut image = shape.image.clone();
    let (_, bytes) = image
        .files
        .iter_mut()
        .find(|(name, _)| name.contains(".data"))
        .expect("there is a segment");
    bytes[600] ^= 0x10;
    for by_merge in [true, false] {
        let (_house, engine) = engine_on(&image);
        if by_merge {
            assert!(matches!(engine.compact(), Err(Error::Corrupt { .. })));
        } else {
            assert!(!engine.verify(|_, _| ()).expect("verifies").findings.is_empty());
        }
        assert_eq!(engine.stats().damaged_segments, 1, "by a merge: {by_merge}");
    }
}
