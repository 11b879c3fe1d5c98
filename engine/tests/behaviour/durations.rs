//! TTLs and lifetimes as callers give them, and the options of stores and of single appends.

use std::time::Duration;

use strandline::{
    AppendOptions, Batch, Copies, Durability, Error, NewStore, Options, StoreOptions,
};

use crate::two_stores::{self, ttl};
use crate::world::House;

const ZERO: Option<Duration> = Some(Duration::ZERO);

fn is_invalid<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Invalid { .. }))
}

#[test]
fn a_ttl_is_counted_in_whole_milliseconds() {
    let house = House::new();
    let engine = house.engine();
    let counted = [
        ("nanosecond", Duration::from_nanos(1), 1),
        ("fraction", Duration::from_micros(7_001), 8),
        ("whole", Duration::from_millis(7), 7),
        ("endless", Duration::MAX, u64::MAX),
    ];
    for (name, duration, ttl_ms) in counted {
        let store = engine.create_store(name, Some(duration)).expect("is made");
        assert_eq!(store.ttl(), ttl(ttl_ms), "{name}");
        engine.create_store(name, ttl(ttl_ms)).expect("it has the same TTL");
    }
    engine.set_store_ttl("whole", Some(Duration::from_micros(1))).expect("sets");
    engine.set_store_ttl("endless", None).expect("sets");
    drop(engine);
    let engine = house.engine();
    let found = |name| engine.stores().into_iter().find(|info| info.name == name).expect("a store");
    assert_eq!((found("whole").ttl, found("endless").ttl), (ttl(1), None));
    let figures = engine.store_figures();
    let fraction = figures.iter().find(|figures| figures.name == "fraction").expect("a store");
    assert_eq!(fraction.ttl, ttl(8));
}

#[test]
fn a_ttl_or_a_lifetime_of_zero_is_refused() {
    let house = House::new();
    let (engine, store) = house.open();
    assert!(is_invalid(&engine.create_store("new", ZERO)));
    assert!(is_invalid(&engine.create_store_with("new", StoreOptions::default().ttl(ZERO))));
    assert!(is_invalid(&engine.open_or_create_store("new", ZERO)));
    assert!(is_invalid(&engine.open_or_create_store("messages", ZERO)));
    assert!(is_invalid(&engine.set_store_ttl("messages", ZERO)));
    assert_eq!(engine.stores().len(), 2);
    let batch = Batch::new().lifetime(ZERO).append(&store, b"t", b"x");
    assert!(is_invalid(&engine.commit(batch)));
    let options = AppendOptions::default().lifetime(Duration::ZERO);
    assert!(is_invalid(&store.append_with(b"t", b"x", options)));
    assert_eq!(store.end(b"t").expect("reads").0, 0);
    let house = House::with(Options::default().stores([NewStore::new("new", ZERO)]));
    assert!(is_invalid(&house.try_engine()));
}

#[test]
fn a_store_is_opened_whatever_its_ttl_and_created_if_there_is_none() {
    let house = House::new();
    let engine = house.engine();
    let made = engine.open_or_create_store("short", ttl(5)).expect("is made");
    made.append(b"t", b"x").expect("appends");
    assert_eq!(engine.open_or_create_store("short", None).expect("is there").ttl(), ttl(5));
    assert!(is_invalid(&engine.open_or_create_store("No Store", None)));
    engine.close().expect("closes");
    let house = House { options: house.options.clone().read_only(true), ..house };
    let engine = house.engine();
    assert_eq!(engine.open_or_create_store("short", None).expect("is there").ttl(), ttl(5));
    assert!(matches!(engine.open_or_create_store("other", None), Err(Error::ReadOnly)));
}

#[test]
fn a_store_is_created_with_its_ttl_and_its_copies() {
    let engine = House::new().engine();
    let options = StoreOptions::default().ttl(ttl(9)).copies(Copies::Twice);
    engine.create_store_with("twice", options).expect("is made");
    engine.create_store("once", None).expect("is made");
    let infos = engine.stores();
    let settings = |name| {
        let info = infos.iter().find(|info| info.name == name).expect("a store");
        (info.ttl, info.copies)
    };
    assert_eq!(settings("twice"), (ttl(9), Copies::Twice));
    assert_eq!(settings("once"), (None, Copies::Once));
}

#[test]
fn one_append_takes_a_lifetime_a_durability_an_id_and_a_condition() {
    let house = House::with(two_stores::options());
    let (_engine, store) = house.open();
    let options = AppendOptions::default;
    let brief = options().lifetime(Duration::from_millis(5)).durability(Durability::Os);
    assert_eq!(store.append_with("t", "brief", brief).expect("appends").sequences, [1]);
    let once = options().id("a").if_last(1);
    let first = store.append_with("t", "once", once.clone()).expect("appends");
    let again = store.append_with("t", "once", once).expect("is a retry");
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!((&first.sequences, first.time_ms), (&again.sequences, again.time_ms));
    let other = store.append_with("t", "other", options().id(""));
    assert!(!other.expect("the empty id is another id").duplicate);
    let other = store.append_with("t", "other", options().id(""));
    assert!(other.expect("is a retry").duplicate);
    let other = store.append_with("t", "other", options().id("a"));
    assert!(matches!(other, Err(Error::IdConflict { sequence: 2 })));
    let late = store.append_with("t", "late", options().if_last(1));
    assert!(matches!(late, Err(Error::LastSequence { last: 3, .. })));
    assert_eq!(store.append_with("t", "plain", options()).expect("appends").sequences, [4]);
    house.clock.pass(5);
    let bodies: Vec<_> = store.entries("t", ..).map(|entry| entry.expect("reads").body).collect();
    assert_eq!(bodies, ["once", "other", "plain"]);
}

#[test]
fn a_client_id_is_forgotten_after_a_window_of_a_fraction_that_is_rounded_up() {
    let options = two_stores::options().id_window(Duration::from_micros(1_001));
    let house = House::with(options);
    let (_engine, store) = house.open();
    let append = || {
        let options = AppendOptions::default().id("a");
        store.append_with("t", "x", options).expect("appends").duplicate
    };
    assert!(!append());
    house.clock.pass(1);
    assert!(append());
    house.clock.pass(1);
    assert!(!append());
}
