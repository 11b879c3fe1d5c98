//! A recorder of metrics gets every metric of the table, each with the value of the figure that
//! counts the same.
#![allow(clippy::cast_sign_loss, reason = "the values of metrics are not negative")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use strandline::metrics::{METRICS, MetricKind, MetricUnit};
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Batch, Durability, Engine, Limit, Store, Trim};

use crate::two_stores;
use crate::world::House;

/// What a recorder got for one metric.
#[derive(Default)]
struct Value {
    sum: f64,
    count: u64,
}

#[derive(Clone, Default)]
struct Values(Arc<Mutex<Value>>);

impl Values {
    fn add(&self, value: f64) {
        let mut own = self.0.lock().expect("no panic");
        own.sum += value;
        own.count += 1;
    }
}

impl CounterFn for Values {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("the engine only increments counters");
    }
}

impl GaugeFn for Values {
    fn increment(&self, _: f64) {
        panic!("the engine only sets gauges");
    }

    fn decrement(&self, _: f64) {
        panic!("the engine only sets gauges");
    }

    fn set(&self, value: f64) {
        self.0.lock().expect("no panic").sum = value;
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

/// Keeps what it gets, by the name of the metric.
#[derive(Default)]
struct Recorded {
    values: Mutex<BTreeMap<String, (MetricKind, Values)>>,
    descriptions: Mutex<BTreeMap<String, (Option<Unit>, String)>>,
}

impl Recorded {
    fn values(&self, key: &Key, kind: MetricKind) -> Arc<Values> {
        let mut values = self.values.lock().expect("no panic");
        assert_eq!(key.labels().count(), 0, "metrics have no labels");
        let (known, values) =
            values.entry(key.name().to_owned()).or_insert((kind, Values::default()));
        assert_eq!(*known, kind);
        Arc::new(values.clone())
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, meaning: &SharedString) {
        let mut descriptions = self.descriptions.lock().expect("no panic");
        descriptions.insert(name.as_str().to_owned(), (unit, meaning.to_string()));
    }

    /// The sum of a metric whose values are whole numbers.
    fn sum(&self, name: &str) -> u64 {
        self.of(name).0 as u64
    }

    /// The sum of a metric, and the number of its values.
    fn of(&self, name: &str) -> (f64, u64) {
        let values = self.values.lock().expect("no panic");
        let value = values[name].1.0.lock().expect("no panic");
        (value.sum, value.count)
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.values(key, MetricKind::Counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.values(key, MetricKind::Gauge))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.values(key, MetricKind::Histogram))
    }
}

const TTL_MS: u64 = 100_000;

fn house() -> House {
    House::with(two_stores::options().stores(two_stores::stores(TTL_MS)))
}

/// Opens an engine whose metrics go to `recorded`.
fn open(house: &House, recorded: &Recorded) -> (Engine, Store) {
    metrics::with_local_recorder(recorded, || house.open())
}

/// Does everything that moves a metric, except for those of trouble. The recorder sees it although
/// it is not the recorder of this thread any more, nor of the engine's threads.
fn work(house: &House, engine: &Engine, store: &Store) {
    let short = engine.store("sync").expect("is there");
    for number in 0..20 {
        store.append(b"t", [b'~'; 3000]).expect("appends");
        let fan_out = Batch::new().fan_out(b"body", [(store, b"a"), (store, b"b")]);
        engine.commit(fan_out).expect("commits");
        let relaxed = Batch::new().append(&short, b"u", b"x").durability(Durability::Os);
        engine.commit(relaxed).expect("commits");
        if number % 10 == 9 {
            engine.flush().expect("flushes");
        }
    }
    engine.compact().expect("merges");
    for _ in 0..2 {
        assert_eq!(store.range(b"t", .., Limit::entries(100)).expect("reads").entries.len(), 20);
    }
    assert_eq!(store.trim(b"t", Trim::Keep(1)).expect("trims"), 19);
    store.append(b"short-lived", [b'~'; 3000]).expect("appends");
    engine.flush().expect("flushes");
    assert_eq!(store.trim(b"short-lived", Trim::Keep(0)).expect("trims"), 1);
    engine.compact().expect("removes the data of a segment, and merges");
    house.clock.pass(2 * TTL_MS);
    engine.compact().expect("drops what has expired");
    let target = House::new();
    engine.backup_in(&target.dir()).expect("backs up");
}

/// The metrics of trouble, which `work` does not make.
const TROUBLE: &[&str] = &[
    "strandline_commit_stalls_total",
    "strandline_disk_full_refusals_total",
    "strandline_damaged_reads_total",
];

/// The metrics that depend on the time between two steps of `work`.
const BY_CHANCE: &[&str] = &["strandline_wal_vouching_groups_total"];

#[test]
fn a_recorder_gets_every_metric_of_the_table_with_the_value_of_its_figure() {
    let (house, recorded) = (house(), Recorded::default());
    let (engine, store) = open(&house, &recorded);
    let names: Vec<String> = recorded.values.lock().expect("no panic").keys().cloned().collect();
    let mut listed: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    listed.sort_unstable();
    assert_eq!(names, listed, "all are registered by the open, and no other");

    work(&house, &engine, &store);
    // The engine's threads have ended when this returns.
    engine.close().expect("closes");
    for metric in METRICS {
        let (sum, count) = recorded.of(metric.name);
        if let Some(figure) = metric.figure {
            let figure = engine.stats().get(figure).expect("the table names figures that exist");
            assert_eq!(sum as u64, figure, "{}", metric.name);
        }
        let has_moved = sum > 0.0 || (metric.kind == MetricKind::Histogram && count > 0);
        if TROUBLE.contains(&metric.name) {
            assert!(!has_moved, "{}: {sum}", metric.name);
        } else if !BY_CHANCE.contains(&metric.name) {
            assert!(has_moved, "{} has not moved", metric.name);
        }
    }
}

#[test]
fn histograms_have_one_value_for_each_event_that_is_counted() {
    let (house, recorded) = (house(), Recorded::default());
    let (engine, store) = open(&house, &recorded);
    work(&house, &engine, &store);
    engine.close().expect("closes");
    let count = |name: &str| recorded.of(name).1;
    let sum = |name: &str| recorded.sum(name);
    for (histogram, counter) in [
        ("strandline_commit_duration_seconds", "strandline_commit_groups_total"),
        ("strandline_commit_group_entries", "strandline_commit_groups_total"),
        ("strandline_wal_fsync_duration_seconds", "strandline_wal_fsyncs_total"),
        ("strandline_flush_duration_seconds", "strandline_flushes_total"),
        ("strandline_merge_duration_seconds", "strandline_merges_total"),
    ] {
        assert_eq!(count(histogram), sum(counter), "{histogram}");
    }
    assert_eq!(sum("strandline_commit_group_entries"), sum("strandline_commit_entries_total"));
    let backup = recorded.of("strandline_last_backup_timestamp_seconds").0;
    let figure = engine.stats().last_backup_ms;
    assert_eq!((backup * 1000.0).round() as u64, figure);
}

#[test]
fn metrics_are_described_as_in_the_table() {
    let (house, recorded) = (house(), Recorded::default());
    drop(open(&house, &recorded));
    let descriptions = recorded.descriptions.lock().expect("no panic");
    for metric in METRICS {
        let unit = match metric.unit {
            MetricUnit::Bytes => Unit::Bytes,
            MetricUnit::Seconds => Unit::Seconds,
            _ => Unit::Count,
        };
        let expected = (Some(unit), metric.meaning.to_owned());
        assert_eq!(descriptions[metric.name], expected, "{}", metric.name);
    }
}

#[test]
fn two_engines_add_to_the_same_metrics_and_have_figures_of_their_own() {
    let recorded = Recorded::default();
    for appends in [3, 4] {
        let house = house();
        let (engine, store) = open(&house, &recorded);
        for _ in 0..appends {
            store.append(b"t", b"x").expect("appends");
        }
        assert_eq!(engine.stats().entries, appends);
    }
    assert_eq!(recorded.sum("strandline_commit_entries_total"), 7);
}

#[test]
fn a_full_disk_and_damage_move_their_metrics() {
    let (house, recorded) = (house(), Recorded::default());
    let (engine, store) = open(&house, &recorded);
    store.append(b"t", [b'~'; 3000]).expect("appends");
    engine.close().expect("flushes");
    let mut image = house.disk.contents();
    let data = image.files.iter_mut().find(|(name, _)| name.contains(".data"));
    data.expect("there is a segment").1[600] ^= 0x10;
    let disk = SimulatedDisk::from_image(&image);
    let house = House { disk, clock: house.clock.clone(), options: house.options.clone() };
    let (_engine, store) = open(&house, &recorded);
    store.range(b"t", .., Limit::entries(10)).expect_err("it is damaged");
    assert_eq!(recorded.sum("strandline_damaged_reads_total"), 1);
    house.disk.set_capacity(Some(0));
    let large = vec![b'~'; 1024 * 1024];
    let is_full = (0..20).any(|_| store.append(b"u", &large).is_err());
    assert!(is_full, "no append was refused");
    assert!(recorded.sum("strandline_disk_full_refusals_total") > 0);
}
