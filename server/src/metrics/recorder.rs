//! The recorder that the engine gets when the server opens it: keeps what the engine's figures do
//! not have, which is the histograms and the counters without a figure. All other metrics of the
//! engine are read from its figures, so nothing is counted twice.
//!
//! It belongs to one server: nothing here is shared by the servers of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{
    Counter as CounterHandle, Gauge, Histogram as HistogramHandle, HistogramFn, Key, KeyName,
    Metadata, Recorder, SharedString, Unit,
};
use strandline::metrics::{METRICS, MetricKind, MetricUnit};

use super::{Distribution, Histogram};
use crate::observe::{LatencyEvent, LatencyEvents};

/// The engine's metrics that have no figure.
#[derive(Debug)]
pub struct EngineMetrics {
    histograms: Vec<(&'static str, Arc<EngineHistogram>)>,
    counters: Vec<(&'static str, Arc<AtomicU64>)>,
}

/// A histogram of the engine: whole numbers, or seconds, which are kept as microseconds.
#[derive(Debug)]
struct EngineHistogram {
    values: Histogram,
    unit: MetricUnit,
    event: Option<(LatencyEvent, Arc<LatencyEvents>)>,
}

impl EngineMetrics {
    /// No values yet. Long commits and fsyncs are noted in `events`.
    pub fn new(events: &Arc<LatencyEvents>) -> EngineMetrics {
        let of_kind = |kind| METRICS.iter().filter(move |metric| metric.kind == kind);
        let event = |name| match name {
            "strandline_commit_duration_seconds" => Some(LatencyEvent::Commit),
            "strandline_wal_fsync_duration_seconds" => Some(LatencyEvent::Fsync),
            _ => None,
        };
        let histogram = |metric: &strandline::metrics::Metric| EngineHistogram {
            values: Histogram::default(),
            unit: metric.unit,
            event: event(metric.name).map(|event| (event, Arc::clone(events))),
        };
        EngineMetrics {
            histograms: of_kind(MetricKind::Histogram)
                .map(|metric| (metric.name, Arc::new(histogram(metric))))
                .collect(),
            counters: of_kind(MetricKind::Counter)
                .filter(|metric| metric.figure.is_none())
                .map(|metric| (metric.name, Arc::default()))
                .collect(),
        }
    }

    /// The values of a histogram, in microseconds or whole numbers.
    pub fn histogram(&self, name: &str) -> Option<Distribution> {
        found(&self.histograms, name).map(|histogram| histogram.values.read())
    }

    /// The value of a counter that has no figure.
    pub fn counter(&self, name: &str) -> Option<u64> {
        found(&self.counters, name).map(|counter| counter.load(Ordering::Relaxed))
    }
}

fn found<'a, T>(all: &'a [(&'static str, Arc<T>)], name: &str) -> Option<&'a Arc<T>> {
    all.iter().find(|(known, _)| *known == name).map(|(_, one)| one)
}

impl HistogramFn for EngineHistogram {
    #[allow(clippy::cast_sign_loss, reason = "durations and numbers are not negative")]
    fn record(&self, value: f64) {
        let value = match self.unit {
            // Rounded up, so that no value is counted below a bound that it exceeds.
            MetricUnit::Seconds => (value * 1e6).ceil() as u64,
            _ => value as u64,
        };
        self.values.add(value);
        if let Some((event, events)) = &self.event {
            events.note(*event, value);
        }
    }
}

impl Recorder for EngineMetrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> CounterHandle {
        found(&self.counters, key.name()).map_or_else(CounterHandle::noop, |counter| {
            CounterHandle::from_arc(Arc::clone(counter))
        })
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> HistogramHandle {
        found(&self.histograms, key.name()).map_or_else(HistogramHandle::noop, |histogram| {
            HistogramHandle::from_arc(Arc::clone(histogram))
        })
    }
}

#[cfg(test)]
mod tests {
    use strandline::{Batch, Engine, NewStore, Options};

    use super::*;

    #[test]
    fn an_engine_fills_the_histograms_and_the_counters_that_have_no_figure() {
        let events = Arc::new(LatencyEvents::new(0));
        let metrics = EngineMetrics::new(&events);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let options = Options::default().stores([NewStore::new("messages", None)]);
        let open = || Engine::open(folder.path(), options);
        let engine = ::metrics::with_local_recorder(&metrics, open).expect("opens");
        let store = engine.store("messages").expect("is there");
        engine.commit(Batch::new().append(&store, b"t", b"x")).expect("commits");
        engine.flush().expect("flushes");
        let count = |name: &str| metrics.histogram(name).expect("it is there").count();
        assert_eq!(count("strandline_commit_group_entries"), 1);
        assert!(count("strandline_commit_duration_seconds") > 0);
        assert!(count("strandline_wal_fsync_duration_seconds") > 0);
        assert_eq!(count("strandline_flush_duration_seconds"), 1);
        assert!(metrics.counter("strandline_wal_file_changes_total").is_some());
        assert_eq!(metrics.counter("strandline_commit_batches_total"), None, "it has a figure");
        assert!(!events.history(LatencyEvent::Fsync).is_empty(), "everything is over 0 µs");
    }
}
