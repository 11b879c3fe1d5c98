//! The durations of an operation, and the statistics that a caller gets.

use std::time::Duration;

use parking_lot::Mutex;

/// The buckets: values below 2^3 have a bucket each; each power of two above has 2^3 buckets, up to
/// 2^32 µs, which is 71 minutes.
const PRECISION_BITS: u32 = 3;
const HIGHEST_BIT: u32 = 31;
const BUCKETS: usize = ((HIGHEST_BIT - PRECISION_BITS + 2) << PRECISION_BITS) as usize;

/// The durations of an operation: the sum and the maximum since the open, and a percentile of the
/// last one to two minutes, which is at most an eighth too high. Takes four kilobytes, however
/// often the operation happens.
#[derive(Debug, Default)]
pub struct RecentTimes(Mutex<Recent>);

#[derive(Debug)]
struct Recent {
    minute: u64,
    current: [u32; BUCKETS],
    previous: [u32; BUCKETS],
    sum_us: u64,
    most_us: u64,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { minute: 0, current: [0; BUCKETS], previous: [0; BUCKETS], sum_us: 0, most_us: 0 }
    }
}

impl Recent {
    /// Forgets values older than the minute before this one.
    fn turn_to(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        if minute == self.minute {
            return;
        }
        let current = std::mem::replace(&mut self.current, [0; BUCKETS]);
        self.previous = if minute == self.minute + 1 { current } else { [0; BUCKETS] };
        self.minute = minute;
    }
}

impl RecentTimes {
    /// Adds a duration that ended at `now` of the monotonic clock.
    pub fn add(&self, now: Duration, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut recent = self.0.lock();
        recent.turn_to(now);
        recent.current[bucket(micros)] += 1;
        recent.sum_us = recent.sum_us.saturating_add(micros);
        recent.most_us = recent.most_us.max(micros);
    }

    /// The sum, the maximum, and the 99th percentile of recent values, in microseconds.
    pub fn sum_most_and_p99_us(&self, now: Duration) -> (u64, u64, u64) {
        let mut recent = self.0.lock();
        recent.turn_to(now);
        let counts = || {
            recent.current.iter().zip(&recent.previous).map(|(one, other)| u64::from(one + other))
        };
        let mut above = counts().sum::<u64>() / 100;
        let mut p99_us = 0;
        for (bucket, count) in counts().enumerate().rev().filter(|(_, count)| *count > 0) {
            p99_us = most_in(bucket);
            if count > above {
                break;
            }
            above -= count;
        }
        (recent.sum_us, recent.most_us, p99_us.min(recent.most_us))
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.min((2 << HIGHEST_BIT) - 1);
    let bit = micros.checked_ilog2().unwrap_or(0);
    if bit < PRECISION_BITS {
        return micros as usize;
    }
    let step = bit - PRECISION_BITS;
    ((u64::from(step) << PRECISION_BITS) + (micros >> step)) as usize
}

/// The highest value of a bucket.
fn most_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let step = (bucket >> PRECISION_BITS).saturating_sub(1);
    let lowest = bucket - (step << PRECISION_BITS);
    ((lowest + 1) << step) - 1
}

/// A type of a statistic, with its value as a number.
trait Statistic {
    /// The number; `None`: unknown.
    fn number(self) -> Option<u64>;
}

impl Statistic for u64 {
    fn number(self) -> Option<u64> {
        Some(self)
    }
}

impl Statistic for bool {
    fn number(self) -> Option<u64> {
        Some(self.into())
    }
}

impl Statistic for Option<u64> {
    fn number(self) -> Option<u64> {
        self
    }
}

/// Declares `Stats` with its figures from one list.
macro_rules! stats {
    ($($(#[doc = $meaning:literal])* $field:ident: $type:ty,)*) => {
        /// Statistics of an engine, from [`Engine::stats`](crate::Engine::stats): totals since it
        /// was opened, and current values. Fields without a unit in the name count things. A field
        /// keeps its meaning; later versions may add fields.
        ///
        /// ```
        /// # let dir = tempfile::tempdir().unwrap();
        /// # use strandline::{Engine, Options};
        /// # let engine = Engine::open(dir.path(), Options::default())?;
        /// let stats = engine.stats();
        /// assert!(stats.cache_bytes <= stats.cache_limit_bytes && !stats.poisoned);
        /// assert!(stats.figures().any(|figure| figure == ("cache_bytes", stats.cache_bytes)));
        /// # Ok::<(), strandline::Error>(())
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        #[allow(clippy::struct_excessive_bools, reason = "independent flags")]
        pub struct Stats {
            $($(#[doc = $meaning])* pub $field: $type,)*
        }

        impl Stats {
            /// All fields as names and numbers, for a caller that shows all of them. A flag is 0
            /// or 1; a value that is not known is left out.
            pub fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field.number())),*]
                    .into_iter()
                    .filter_map(|(name, number)| Some((name, number?)))
            }

            /// The number of a field by its name, for tools; `None` if there is no such field, or
            /// its value is not known.
            pub fn get(&self, name: &str) -> Option<u64> {
                self.figures().find(|(found, _)| *found == name).map(|(_, number)| number)
            }
        }
    };
}

stats! {
    /// Batches that were committed.
    batches: u64,
    /// Groups of batches that were written to the log, each by one write.
    groups: u64,
    /// Entries that were committed.
    entries: u64,
    /// Bodies that were committed; the body of a fan-out counts once.
    body_bytes: u64,
    /// Records written to the log.
    wal_bytes: u64,
    /// Zeros written ahead of the log.
    wal_prepared_bytes: u64,
    /// Fsyncs of the log for commits.
    wal_syncs: u64,
    /// The time of these fsyncs, in microseconds.
    wal_sync_us_total: u64,
    /// The longest of these fsyncs, in microseconds.
    wal_sync_us_max: u64,
    /// The 99th percentile of these fsyncs in the last one to two minutes, in microseconds; at
    /// most an eighth too high.
    wal_sync_us_p99: u64,
    /// Files of the log.
    wal_files: u64,
    /// Groups without records that confirm earlier ones.
    wal_vouching_groups: u64,
    /// Bytes at the end of the log that the open cut off: a write that a crash interrupted.
    torn_tail_bytes: u64,
    /// [`Options::memory_budget_bytes`](crate::Options).
    memory_budget_bytes: u64,
    /// The memory of all memtables.
    memtable_bytes: u64,
    /// The limit of [`Stats::memtable_bytes`].
    memtable_limit_bytes: u64,
    /// Memtables that wait for their flush.
    sealed_memtables: u64,
    /// The memory of the cache: decoded blocks, and index entries of timelines that were read.
    cache_bytes: u64,
    /// The current limit of [`Stats::cache_bytes`]: it is lower while memtables wait.
    cache_limit_bytes: u64,
    /// Blocks of segments that a read found in the cache.
    cache_hits: u64,
    /// Blocks of segments that a read did not find in the cache.
    cache_misses: u64,
    /// Memtables that were written to segments.
    flushes: u64,
    /// Segments written by flushes.
    flush_bytes: u64,
    /// Segments that are live.
    segments: u64,
    /// The files of all segments, second copies included.
    segment_bytes: u64,
    /// The timelines of each segment, summed: a timeline counts once for each segment it is in.
    segment_timelines: u64,
    /// Entries of all segments.
    segment_entries: u64,
    /// Segments in which damage was found, and not repaired since.
    damaged_segments: u64,
    /// Blocks that were read from files because they were not in the cache.
    block_reads: u64,
    /// Files of segments that are open.
    open_segment_files: u64,
    /// Reads of files that found damage, or met it again.
    damaged_reads: u64,
    /// Merges of neighbouring segments, and rewrites of single ones.
    merges: u64,
    /// Segments written by merges.
    merge_bytes: u64,
    /// Bytes by which merges made the segments smaller.
    merge_reclaimed_bytes: u64,
    /// The same for rewrites and removals of single segments that were mostly dead.
    rewrite_reclaimed_bytes: u64,
    /// Bytes written by the log, flushes and merges, per 100 bytes of bodies.
    write_amplification_percent: u64,
    /// Bytes that merges still have to read.
    compaction_debt_bytes: u64,
    /// Whether merges wait for space on the disk.
    merges_wait_for_space: bool,
    /// Segments that were dropped as a whole because all of their entries had expired.
    expired_segments: u64,
    /// Data of these segments.
    expired_bytes: u64,
    /// Entries that expiry removed from the disk.
    expired_total: u64,
    /// Entries that trims, deletes and drops removed.
    trimmed_total: u64,
    /// Whether expiry waits because the wall clock jumped ahead.
    expiry_held_by_clock: bool,
    /// Damage of the log that a read-only open skipped.
    damaged_log_places: u64,
    /// Commits that waited for a flush or for merging.
    write_stalls: u64,
    /// Writes that were refused because the disk was full.
    disk_full_refusals: u64,
    /// The size of the reserve that expiry and trims use on a full disk.
    reserve_bytes: u64,
    /// Whether the reserve is released, so that appends are refused.
    reserve_is_out: bool,
    /// When the last backup was completed, Unix milliseconds; 0: none since the open.
    last_backup_ms: u64,
    /// Whether an earlier write or fsync failed, so that all writes are refused.
    poisoned: bool,
    /// Free space of the file system; `None` if it does not report it.
    disk_free_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_a_bucket_that_ends_at_most_an_eighth_above_it() {
        for power in 0..32 {
            for micros in [1 << power, (1 << power) + 1, (2 << power) - 1] {
                let most = most_in(bucket(micros));
                assert!(micros <= most && most - micros <= micros / 8, "{micros}: {most}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn the_percentile_covers_the_last_minutes_and_the_maximum_everything() {
        let times = RecentTimes::default();
        let at = Duration::from_secs;
        for micros in std::iter::repeat_n(100, 98).chain([5_000, 9_000]) {
            times.add(at(59), Duration::from_micros(micros));
        }
        let (sum, most, p99) = times.sum_most_and_p99_us(at(61));
        assert_eq!((sum, most), (98 * 100 + 14_000, 9_000));
        assert!((5_000..5_632).contains(&p99), "{p99}");
        times.add(at(119), Duration::from_micros(200));
        let (_, most, p99) = times.sum_most_and_p99_us(at(125));
        assert_eq!(most, 9_000);
        assert!((200..=225).contains(&p99), "{p99}: what is two minutes old is forgotten");
        assert_eq!(times.sum_most_and_p99_us(at(600)).2, 0);
    }
}
