//! What an embedder can measure: metrics for the recorder of the [`metrics`] facade, and
//! spans for a [`tracing`] subscriber.
//!
//! [`METRICS`] and [`SPANS`] are the tables of all names; docs/operations.md shows them, and a test
//! compares. The fields of `Counters` come from the same list as [`METRICS`]: a counter without a
//! row does not compile.
//!
//! * An engine registers its metrics when it is opened, with the recorder that the opening thread
//!   has at that moment: install the recorder first. Later increments look nothing up. Without a
//!   recorder an increment is one atomic addition and one branch.
//! * Metrics have no labels. Several engines in a process add to the same metrics; a gauge has the
//!   value of the engine that set it last. [`Engine::stats`](crate::Engine::stats) has the values
//!   of one engine, and its current sizes, such as those of the memtables and the cache.
//! * A counter of the recorder continues when an engine is opened again; the figures of the new
//!   engine start at 0.
//!
//! This file does not know who counts, and which recorder or subscriber is installed.
//!
//! ```
//! use strandline::metrics::{METRICS, MetricKind, SPANS};
//! let bytes = METRICS.iter().find(|metric| metric.name == "strandline_wal_written_bytes_total");
//! assert!(bytes.is_some_and(|metric| metric.kind == MetricKind::Counter));
//! assert!(SPANS.iter().any(|span| span.name == "flush"));
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Key, KeyName, Level, Metadata, NoopRecorder, Recorder, SharedString, Unit};

use crate::stats::RecentTimes;

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name at the recorder.
    pub name: &'static str,
    /// How its values are combined.
    pub kind: MetricKind,
    /// The unit of its values.
    pub unit: MetricUnit,
    /// The figure of [`Stats`](crate::Stats) that counts the same since the open, if there is one.
    pub figure: Option<&'static str>,
    /// Its meaning, in one sentence of markdown.
    pub meaning: &'static str,
}

/// How the values of a metric are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// The last value.
    Gauge,
    /// The distribution of single values.
    Histogram,
}

/// The unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricUnit {
    /// A number of things, which the name says.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds, with a fraction.
    Seconds,
}

impl MetricUnit {
    fn of_facade(self) -> Unit {
        match self {
            MetricUnit::Count => Unit::Count,
            MetricUnit::Bytes => Unit::Bytes,
            MetricUnit::Seconds => Unit::Seconds,
        }
    }
}

/// One kind of span. The targets of all spans begin with `strandline::`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanInfo {
    /// Its name.
    pub name: &'static str,
    /// Its level.
    pub level: tracing::Level,
    /// The names of its fields; those that are known only at the end are recorded then.
    pub fields: &'static [&'static str],
    /// The work during which it is entered, in one sentence of markdown.
    pub meaning: &'static str,
}

/// Something that the engine counts and passes on to a recorder.
trait Measure: Sized {
    const KIND: MetricKind;

    /// Registers and describes it.
    fn register(metric: &Metric, recorder: &dyn Recorder) -> Self;
}

const METADATA: Metadata<'static> =
    Metadata::new("strandline", Level::INFO, Some("strandline::metrics"));

type Description = (KeyName, Option<Unit>, SharedString);

fn description(metric: &Metric) -> Description {
    let name = KeyName::from_const_str(metric.name);
    (name, Some(metric.unit.of_facade()), metric.meaning.into())
}

/// A sum since the engine was opened.
#[derive(Debug)]
pub(crate) struct Counter {
    sum: AtomicU64,
    handle: metrics::Counter,
}

impl Measure for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn register(metric: &Metric, recorder: &dyn Recorder) -> Counter {
        let (name, unit, meaning) = description(metric);
        recorder.describe_counter(name, unit, meaning);
        let key = Key::from_static_name(metric.name);
        Counter { sum: AtomicU64::new(0), handle: recorder.register_counter(&key, &METADATA) }
    }
}

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.sum.fetch_add(amount, Ordering::Relaxed);
        self.handle.increment(amount);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// The time of the last event of a kind: Unix milliseconds here, seconds at the recorder.
#[derive(Debug)]
pub(crate) struct LastTime {
    time_ms: AtomicU64,
    handle: metrics::Gauge,
}

impl Measure for LastTime {
    const KIND: MetricKind = MetricKind::Gauge;

    fn register(metric: &Metric, recorder: &dyn Recorder) -> LastTime {
        let (name, unit, meaning) = description(metric);
        recorder.describe_gauge(name, unit, meaning);
        let key = Key::from_static_name(metric.name);
        LastTime { time_ms: AtomicU64::new(0), handle: recorder.register_gauge(&key, &METADATA) }
    }
}

impl LastTime {
    /// Raises it to `time_ms`, if it is lower.
    pub fn raise_to(&self, time_ms: u64) {
        let before_ms = self.time_ms.fetch_max(time_ms, Ordering::Relaxed);
        self.handle.set(before_ms.max(time_ms) as f64 / 1000.0);
    }

    /// Its value; 0: there was no such event.
    pub fn get(&self) -> u64 {
        self.time_ms.load(Ordering::Relaxed)
    }
}

/// The distribution of a value, which only the recorder keeps.
#[derive(Debug)]
pub(crate) struct Distribution(metrics::Histogram);

impl Measure for Distribution {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(metric: &Metric, recorder: &dyn Recorder) -> Distribution {
        let (name, unit, meaning) = description(metric);
        recorder.describe_histogram(name, unit, meaning);
        let key = Key::from_static_name(metric.name);
        Distribution(recorder.register_histogram(&key, &METADATA))
    }
}

impl Distribution {
    /// Adds a number.
    pub fn add(&self, number: u64) {
        self.0.record(number as f64);
    }

    /// Adds the time from `start` to `end`, both of the monotonic clock.
    pub fn add_time(&self, start: Duration, end: Duration) {
        self.0.record(end.saturating_sub(start).as_secs_f64());
    }
}

/// The durations of fsyncs, with their sum, maximum and percentile.
#[derive(Debug)]
pub(crate) struct SyncTimes {
    recent: RecentTimes,
    distribution: Distribution,
}

impl Measure for SyncTimes {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(metric: &Metric, recorder: &dyn Recorder) -> SyncTimes {
        let distribution = Distribution::register(metric, recorder);
        SyncTimes { recent: RecentTimes::default(), distribution }
    }
}

impl SyncTimes {
    /// Adds an fsync from `start` to `end`, both of the monotonic clock.
    pub fn add(&self, start: Duration, end: Duration) {
        self.recent.add(end, end.saturating_sub(start));
        self.distribution.add_time(start, end);
    }

    /// The sum, the maximum, and the 99th percentile of recent values, in microseconds.
    pub fn sum_most_and_p99_us(&self, now: Duration) -> (u64, u64, u64) {
        self.recent.sum_most_and_p99_us(now)
    }
}

/// Declares `METRICS` and `Counters` from one list.
macro_rules! measures {
    (@metric $measure:ident $name:literal $unit:ident $figure:expr, $meaning:literal) => {
        Metric {
            name: $name,
            kind: <$measure as Measure>::KIND,
            unit: MetricUnit::$unit,
            figure: $figure,
            meaning: $meaning,
        }
    };
    ($(
        $field:ident: $measure:ident $name:literal $unit:ident $figure:expr, $meaning:literal;
    )*) => {
        /// All metrics. A name that is listed here keeps its meaning; new ones may be added.
        pub const METRICS: &[Metric] = &[
            $(measures!(@metric $measure $name $unit $figure, $meaning)),*
        ];

        /// What is counted since the engine was opened.
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(#[doc = $meaning] pub $field: $measure,)*
        }

        impl Counters {
            fn register(recorder: &dyn Recorder) -> Counters {
                Counters { $($field: {
                    let metric = measures!(@metric $measure $name $unit $figure, $meaning);
                    Measure::register(&metric, recorder)
                },)* }
            }
        }
    };
}

measures! {
    batches: Counter "strandline_commit_batches_total" Count Some("batches"),
        "Batches that were committed.";
    groups: Counter "strandline_commit_groups_total" Count Some("groups"),
        "Groups of batches that were written to the log, each by one write.";
    entries: Counter "strandline_commit_entries_total" Count Some("entries"),
        "Entries that were committed.";
    body_bytes: Counter "strandline_commit_body_bytes_total" Bytes Some("body_bytes"),
        "Bodies that were committed; the body of a fan-out counts once.";
    group_entries: Distribution "strandline_commit_group_entries" Count None,
        "Entries of each group that was committed.";
    commit_times: Distribution "strandline_commit_duration_seconds" Seconds None,
        "Write, fsync if one was asked for, and publication of each group that was committed.";
    stalls: Counter "strandline_commit_stalls_total" Count Some("write_stalls"),
        "Commits that waited for a flush or for merging.";
    disk_full: Counter "strandline_disk_full_refusals_total" Count Some("disk_full_refusals"),
        "Writes that were refused because the disk was full.";
    wal_bytes: Counter "strandline_wal_written_bytes_total" Bytes Some("wal_bytes"),
        "Records written to the log.";
    wal_syncs: Counter "strandline_wal_fsyncs_total" Count Some("wal_syncs"),
        "Fsyncs of the log for commits.";
    sync_times: SyncTimes "strandline_wal_fsync_duration_seconds" Seconds None,
        "Duration of each of these fsyncs that succeeded.";
    wal_files: Counter "strandline_wal_file_changes_total" Count None,
        "Changes to the next log file.";
    vouching_groups: Counter "strandline_wal_vouching_groups_total" Count
        Some("wal_vouching_groups"),
        "Groups without records that confirm earlier ones.";
    flushes: Counter "strandline_flushes_total" Count Some("flushes"),
        "Memtables that were written to segments.";
    flush_bytes: Counter "strandline_flush_written_bytes_total" Bytes Some("flush_bytes"),
        "Segments written by flushes.";
    flush_times: Distribution "strandline_flush_duration_seconds" Seconds None,
        "Duration of each flush that succeeded.";
    merges: Counter "strandline_merges_total" Count Some("merges"),
        "Merges of neighbouring segments, and rewrites of single ones.";
    merge_bytes: Counter "strandline_merge_written_bytes_total" Bytes Some("merge_bytes"),
        "Segments written by merges.";
    merge_times: Distribution "strandline_merge_duration_seconds" Seconds None,
        "Duration of each merge that succeeded, the pauses of `compact_bytes_per_second` included.";
    merge_reclaimed_bytes: Counter "strandline_merge_reclaimed_bytes_total" Bytes
        Some("merge_reclaimed_bytes"),
        "Bytes by which merges made the segments smaller.";
    rewrite_reclaimed_bytes: Counter "strandline_rewrite_reclaimed_bytes_total" Bytes
        Some("rewrite_reclaimed_bytes"),
        "The same for rewrites and removals of single segments that were mostly dead.";
    expired_segments: Counter "strandline_expired_segments_total" Count Some("expired_segments"),
        "Segments that were dropped as a whole because all of their entries had expired.";
    expired_bytes: Counter "strandline_expired_bytes_total" Bytes Some("expired_bytes"),
        "Data of these segments.";
    expired_entries: Counter "strandline_expired_entries_total" Count Some("expired_total"),
        "Entries that expiry removed from the disk.";
    trimmed_entries: Counter "strandline_trimmed_entries_total" Count Some("trimmed_total"),
        "Entries that trims, deletes and drops removed.";
    cache_hits: Counter "strandline_cache_hits_total" Count Some("cache_hits"),
        "Blocks of segments that a read found in the cache.";
    cache_misses: Counter "strandline_cache_misses_total" Count Some("cache_misses"),
        "Blocks of segments that a read did not find in the cache.";
    block_reads: Counter "strandline_block_reads_total" Count Some("block_reads"),
        "Blocks that were read from files because they were not in the cache.";
    damaged_reads: Counter "strandline_damaged_reads_total" Count Some("damaged_reads"),
        "Reads of files that found damage, or met it again.";
    last_backup_ms: LastTime "strandline_last_backup_timestamp_seconds" Seconds None,
        "Unix time at which the last backup was completed; not set before the first one.";
}

impl Counters {
    /// Registers all metrics with the recorder of this thread.
    pub fn for_recorder() -> Counters {
        metrics::with_recorder(Counters::register)
    }
}

/// Counters that no recorder sees.
impl Default for Counters {
    fn default() -> Counters {
        Counters::register(&NoopRecorder)
    }
}

/// Declares the names of spans, for the places that open them, and `SPANS`, from one list.
macro_rules! spans {
    ($($constant:ident: $name:literal $level:ident [$($field:literal),*], $meaning:literal;)*) => {
        $(#[doc = $meaning] pub(crate) const $constant: &str = $name;)*

        /// All spans. A name that is listed here keeps its meaning; new spans and fields may be
        /// added.
        pub const SPANS: &[SpanInfo] = &[$(SpanInfo {
            name: $name,
            level: tracing::Level::$level,
            fields: &[$($field),*],
            meaning: $meaning,
        }),*];
    };
}

spans! {
    COMMIT: "commit" DEBUG ["batches", "bytes"],
        "The commit of one group, from making room to publication, on the thread that commits.";
    FSYNC: "fsync" DEBUG ["end"],
        "The fsync of the log for a group, up to the lsn `end`; inside `commit`.";
    FLUSH: "flush" INFO ["segments", "entries", "bytes"],
        "The flush of one memtable into segments.";
    MERGE: "merge" INFO ["store", "inputs", "file", "entries", "bytes"],
        "The merge of `inputs` segments of a store into the segment with the number `file`.";
    EXPIRE: "expire" INFO ["segments", "entries", "bytes"],
        "The removal of segments whose entries have all expired.";
    RECOVER: "recover" INFO ["segments", "entries"],
        "The open of a directory, with the entries that were read from the log.";
    BACKUP: "backup" INFO ["files", "entries", "bytes"],
        "A backup, with its flush.";
    VERIFY: "verify" INFO ["files", "entries", "bytes", "findings"],
        "A check of all files.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_follow_the_conventions_of_prometheus() {
        let names: HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let name = metric.name;
            let is_plain = |char: char| char.is_ascii_lowercase() || char == '_';
            assert!(name.starts_with("strandline_") && name.chars().all(is_plain), "{name}");
            let is_total = metric.kind == MetricKind::Counter;
            assert_eq!(name.ends_with("_total"), is_total, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_bytes"), metric.unit == MetricUnit::Bytes, "{name}");
            assert_eq!(base.ends_with("_seconds"), metric.unit == MetricUnit::Seconds, "{name}");
            assert!(metric.meaning.ends_with('.') && !metric.meaning.contains('|'), "{name}");
        }
        let names: HashSet<&str> = SPANS.iter().map(|span| span.name).collect();
        assert_eq!(names.len(), SPANS.len());
    }
}
