//! The stores that a new directory begins with (P2, P6), as `Options::stores` lists them.

use std::collections::BTreeSet;
use std::path::Path;

use strandline::format::header::{FileHeader, file_header};
use strandline::format::manifest::{Live, decode};
use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::{
    Engine, Error, Limit, MAX_STORES, NewStore, Options, StoreInfo, salvage, salvage_in,
};

use crate::two_stores;
use crate::world::House;

fn with(stores: &[(&str, u64)]) -> House {
    let new = |(name, ttl_ms): &(&str, u64)| NewStore::new(*name, two_stores::ttl(*ttl_ms));
    let house = House::new();
    House { options: house.options.stores(stores.iter().map(new)), ..house }
}

/// The manifest of a disk that has one.
fn manifest(image: &Image) -> Live {
    let name = image.files.keys().rfind(|name| name.starts_with("manifest-")).expect("has one");
    let bytes = &image.files[name];
    let header = FileHeader::decode(bytes, Path::new(name)).expect("reads");
    decode(&bytes[file_header::BYTES..], &header).expect("reads")
}

/// The id, name, TTL and generation of each store in a manifest.
fn records(image: &Image) -> Vec<(u32, String, u64, u64)> {
    let stores = manifest(image).stores.into_iter();
    stores.map(|store| (store.id.0, store.name, store.ttl_ms, store.generation)).collect()
}

fn names(engine: &Engine) -> Vec<String> {
    engine.stores().into_iter().map(|StoreInfo { name, .. }| name).collect()
}

#[test]
fn an_engine_has_no_stores_unless_the_options_name_some() {
    let house = House { options: Options::default(), ..with(&[]) };
    let engine = house.engine();
    assert_eq!(engine.stores(), []);
    assert!(matches!(engine.store("messages"), Err(Error::NoStore { .. })));
    engine.flush().expect("there is nothing to flush");
    engine.close().expect("closes");
    let engine = house.engine();
    let store = engine.create_store("messages", None).expect("is created");
    assert_eq!(store.append(b"t", b"x").expect("appends"), 1);
    drop((engine, store));
    let (engine, store) = house.open();
    assert_eq!(names(&engine), ["messages"]);
    assert_eq!(store.get(b"t", 1).expect("reads").expect("is there").body, "x");
}

#[test]
fn first_stores_are_in_the_first_manifest_in_their_order() {
    let house = with(&[("z", 0), ("a.b", 7_000), ("m_1", 0), ("x-2", 0)]);
    let engine = house.engine();
    let first = [(1, "z", 0), (2, "a.b", 7_000), (3, "m_1", 0), (4, "x-2", 0)];
    let expected = first.map(|(id, name, ttl_ms)| (id, name.to_string(), ttl_ms, 0));
    let mut model = Model::default();
    let mut numbers = BTreeSet::new();
    for op in house.disk.log() {
        model.apply(&op, None);
        for cut in [Cut::Lost, Cut::Kept] {
            let image = model.power_cut(cut, &mut Dice::new(0));
            let is_manifest = |name: &&String| name.starts_with("manifest-");
            // A new name may reach the disk before the bytes, but not here: they are synced first.
            if let Some(name) = image.files.keys().rfind(is_manifest) {
                assert_eq!(records(&image), expected, "{name}");
                numbers.insert(name.clone());
            }
        }
    }
    assert!(numbers.contains("manifest-000000000001"), "{numbers:?}");
    assert_eq!(engine.store("a.b").expect("is there").ttl(), two_stores::ttl(7_000));
    for (_, name, _) in first {
        assert_eq!(engine.store(name).expect("is there").epoch(), engine.epoch(), "{name}");
    }
}

#[test]
fn a_store_that_is_created_later_has_an_id_after_the_first_stores() {
    let first: Vec<String> = (1..=9).map(|number| format!("first-{number}")).collect();
    let first: Vec<(&str, u64)> = first.iter().map(|name| (name.as_str(), 0)).collect();
    let house = with(&first);
    let engine = house.engine();
    engine.create_store("later", None).expect("is created");
    let ids: Vec<u32> = records(&house.disk.contents()).iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids[..9], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(ids.len() == 10 && ids[9] > 9, "{ids:?}");
}

#[test]
fn a_first_store_is_dropped_as_any_other_and_stays_dropped() {
    let house = with(&[("messages", 0), ("sync", 1_000), ("box", 0)]);
    let (engine, store) = house.open();
    store.append(b"t", b"x").expect("appends");
    let epoch = store.epoch();
    assert!(matches!(engine.drop_store("messages", false), Err(Error::Invalid { .. })));
    for name in ["messages", "sync", "box"] {
        engine.drop_store(name, true).expect("is dropped");
    }
    assert!(matches!(store.append(b"t", b"x"), Err(Error::StoreDropped)));
    assert_eq!(engine.stores(), []);
    drop((engine, store));
    // The log has entries of the store with the id 1.
    let engine = house.engine();
    assert_eq!(engine.stores(), [], "the options of a directory that exists are ignored");
    let again = engine.create_store("messages", None).expect("is created");
    assert_ne!(again.epoch(), epoch);
    assert!(records(&house.disk.contents())[0].0 > 3, "an id is not used twice");
    assert_eq!(again.append(b"t", b"y").expect("appends"), 1);
}

#[test]
fn a_directory_that_exists_ignores_the_first_stores() {
    let house = with(&[("one", 0)]);
    house.engine().close().expect("closes");
    for other in [&[][..], &[("one", 5), ("two", 0)], &[("two", 0)]] {
        let other = House { disk: house.disk.clone(), ..with(other) };
        let engine = other.engine();
        assert_eq!(names(&engine), ["one"]);
        assert_eq!(engine.store("one").expect("is there").ttl(), None);
    }
    let read_only = with(&[("two", 0)]).options.read_only(true);
    let house = House { options: read_only, ..house };
    assert_eq!(names(&house.engine()), ["one"]);
}

#[test]
fn first_stores_with_names_that_cannot_be_are_refused_and_nothing_is_created() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("one/two");
    let long = "x".repeat(33);
    let many: Vec<String> = (0..=MAX_STORES).map(|number| format!("s{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        vec![""],
        vec!["ok", "Upper"],
        vec!["a b"],
        vec![&long],
        vec!["a", "b", "a"],
        many.clone(),
    ];
    for case in cases {
        let stores: Vec<(&str, u64)> = case.iter().map(|name| (*name, 0)).collect();
        let house = with(&stores);
        let is_refused = |error: &Error| match error {
            Error::TooManyStores { limit } => *limit == MAX_STORES && case.len() > MAX_STORES,
            Error::Invalid { .. } => case.len() <= MAX_STORES,
            _ => false,
        };
        let shown = &case[..case.len().min(3)];
        let refused = house.try_engine().expect_err("is refused");
        assert!(is_refused(&refused), "{shown:?}: {refused}");
        assert_eq!(house.disk.contents(), Image::default(), "{shown:?}");
        let refused = Engine::open(&path, house.options).expect_err("is refused");
        assert!(is_refused(&refused), "{shown:?}: {refused}");
        let refused = salvage(folder.path(), &path, &case).expect_err("is refused");
        assert!(is_refused(&refused), "{shown:?}: {refused}");
        assert!(!folder.path().join("one").exists(), "{shown:?}");
    }
    let engine = with(&[]).engine();
    let of_create = engine.create_store("Upper", None).expect_err("is refused");
    let of_open = with(&[("Upper", 0)]).try_engine().expect_err("is refused");
    assert_eq!(of_open.to_string(), of_create.to_string());
    let most: Vec<(&str, u64)> = many[..MAX_STORES].iter().map(|name| (*name, 0)).collect();
    let full = with(&most);
    let engine = full.engine();
    assert_eq!(engine.stores().len(), MAX_STORES);
    assert!(matches!(engine.create_store("more", None), Err(Error::TooManyStores { .. })));
}

#[test]
fn without_a_manifest_stores_get_the_names_of_the_first_stores_by_their_ids() {
    let house = with(&[("a", 9_000), ("b", 0), ("c", 0)]);
    let engine = house.engine();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate().take(2) {
        let store = engine.store(name).expect("is there");
        store.append(b"t", format!("{number}").as_bytes()).expect("appends");
    }
    engine.close().expect("closes");
    let mut image = house.disk.contents();
    let salvaged = |image: &Image, first: &[&str]| {
        let (wreck, target) = (with(&[]), with(&[]));
        let wreck = House { disk: SimulatedDisk::from_image(image), ..wreck };
        salvage_in(&wreck.dir(), &target.dir(), first).expect("salvages");
        let engine = target.engine();
        let shown = |info: StoreInfo| {
            let store = engine.store(&info.name).expect("is there");
            let page = store.range(b"t", .., Limit::entries(9)).expect("reads");
            let body = page.entries.first().map(|entry| entry.body.to_vec()).unwrap_or_default();
            (info.name, info.ttl, String::from_utf8(body).expect("is text"))
        };
        engine.stores().into_iter().map(shown).collect::<Vec<_>>()
    };
    let store = |name: &str, ttl_ms, body: &str| {
        (name.to_string(), two_stores::ttl(ttl_ms), body.to_string())
    };
    let whole = [store("a", 9_000, "0"), store("b", 0, "1"), store("c", 0, "")];
    assert_eq!(salvaged(&image, &["x", "y"]), whole, "the manifest has the names");
    image.files.retain(|name, _| !name.starts_with("manifest-"));
    let named = [store("a", 0, "0"), store("b", 0, "1"), store("c", 0, "")];
    assert_eq!(salvaged(&image, &["a", "b", "c"]), named);
    assert_eq!(salvaged(&image, &["a"]), [store("a", 0, "0"), store("store-2", 0, "1")]);
    assert_eq!(salvaged(&image, &[]), [store("store-1", 0, "0"), store("store-2", 0, "1")]);
    let taken = [store("store-2", 0, "0"), store("store-2-", 0, "1")];
    assert_eq!(salvaged(&image, &["store-2"]), taken, "no name is used twice");
}
