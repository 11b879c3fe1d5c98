//! The options of an engine. The defaults are right for a server; tests use small values.

use std::collections::HashSet;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{MAX_STORES, whole_ms};

/// The options for opening an engine, made by calls in a row:
///
/// ```
/// use strandline::{NewStore, Options};
/// let options = Options::default()
///     .memory_budget_bytes(64 << 20)
///     .stores([NewStore::new("messages", None)]);
/// # let dir = tempfile::tempdir()?;
/// let engine = strandline::Engine::open(dir.path(), options)?;
/// assert_eq!(engine.store("messages")?.append(b"c/room", b"hello")?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An option out of its bounds is refused when the engine is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    pub(crate) memory_budget_bytes: usize,
    pub(crate) wal_file_bytes: u64,
    pub(crate) max_body_bytes: usize,
    pub(crate) id_window_ms: u64,
    pub(crate) stores: Vec<NewStore>,
    pub(crate) compress_recent: bool,
    pub(crate) wakers: Wakers,
    pub(crate) compact_bytes_per_second: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) max_open_files: usize,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
}

/// Each option with its default and its bounds.
impl Options {
    /// Memory for everything that grows with data: memtables, decoded blocks, groups in progress,
    /// flushes and merges. In bytes, above 0; less than 1 MiB makes an engine slow. Default
    /// 512 MiB.
    #[must_use]
    pub fn memory_budget_bytes(self, memory_budget_bytes: usize) -> Options {
        Options { memory_budget_bytes, ..self }
    }

    /// The size at which a WAL file is full. In bytes, above 0; less than 64 KiB makes an engine
    /// slow. Default 64 MiB.
    #[must_use]
    pub fn wal_file_bytes(self, wal_file_bytes: u64) -> Options {
        Options { wal_file_bytes, ..self }
    }

    /// The largest body, in bytes; at most [`MAX_BODY_BYTES`]. Default 1 MiB.
    #[must_use]
    pub fn max_body_bytes(self, max_body_bytes: usize) -> Options {
        Options { max_body_bytes, ..self }
    }

    /// The time for which a client's id is remembered, in whole milliseconds: a fraction is rounded
    /// up. Any duration. Default one day.
    #[must_use]
    pub fn id_window(self, id_window: Duration) -> Options {
        Options { id_window_ms: whole_ms(id_window), ..self }
    }

    /// The stores that a new directory begins with. They are in its first manifest: after a crash
    /// the directory has all of them or is still new. An existing engine keeps its own stores, but
    /// names that no store can have, equal names, and a TTL of zero are always refused. At most
    /// [`MAX_STORES`]. Default: none; [`Engine::create_store`] creates stores later.
    ///
    /// [`Engine::create_store`]: crate::Engine::create_store
    #[must_use]
    pub fn stores(self, stores: impl IntoIterator<Item = NewStore>) -> Options {
        Options { stores: stores.into_iter().collect(), ..self }
    }

    /// Whether recent data is compressed too: data that was flushed, or merged once. Fewer bytes
    /// are written, and a read of a block of 16 KiB that is not cached takes some twenty
    /// microseconds more. Data that was merged twice or more is always compressed. Default on.
    #[must_use]
    pub fn compress_recent(self, compress_recent: bool) -> Options {
        Options { compress_recent, ..self }
    }

    /// What the wakers of tickets do. Default: [`Wakers::Any`].
    #[must_use]
    pub fn wakers(self, wakers: Wakers) -> Options {
        Options { wakers, ..self }
    }

    /// The maximum number of bytes that merging writes per second; 0: no limit. Merging that is far
    /// behind ignores the limit. Default 64 MiB: a disk that syncs the log at the same time keeps
    /// most of its time for that, and a load of 20 MB a second can be merged indefinitely.
    #[must_use]
    pub fn compact_bytes_per_second(self, compact_bytes_per_second: u64) -> Options {
        Options { compact_bytes_per_second, ..self }
    }

    /// The maximum size of the reserve that is used to reclaim space on a full disk, in bytes; 0:
    /// no reserve. A small directory keeps less, a sixteenth of its size. Default 64 MiB, the size
    /// of a flushed memtable of the default budget.
    #[must_use]
    pub fn reserve_bytes(self, reserve_bytes: u64) -> Options {
        Options { reserve_bytes, ..self }
    }

    /// The maximum number of open segment files, so that a read need not open them. Default 256,
    /// the files of 128 segments; at least [`LEAST_OPEN_FILES`]. The engine closes them when the
    /// process has no file descriptor left, so a number above the limit of the process (`ulimit
    /// -n`) does not stop the engine; it affects other parts of the process that open files. In
    /// addition an engine has up to 20 descriptors: the directory, its lock, the log, the next log
    /// file, four in reserve, and those that a flush, a merge and each read hold temporarily.
    #[must_use]
    pub fn max_open_files(self, max_open_files: usize) -> Options {
        Options { max_open_files, ..self }
    }

    /// Whether an engine is created in a directory without one. Default on: the directory is
    /// created if it does not exist.
    #[must_use]
    pub fn create(self, create: bool) -> Options {
        Options { create, ..self }
    }

    /// Opens for reading the intact part, also if the WAL is damaged. Nothing in the directory is
    /// changed. Default off.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Options {
        Options { read_only, ..self }
    }
}

/// What the wakers of tickets do, and so which thread calls them. Those of watchers are always
/// called by a thread of the engine's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wakers {
    /// Anything: they may block, append, close the engine, or own its last handle. A thread of the
    /// engine's own calls them.
    #[default]
    Any,
    /// Little: each returns at once, does not use the engine, and does not own its last handle, as
    /// those of an event loop. The thread that committed calls them, up to 64 of a group, which
    /// saves a change of threads. One that blocks delays the next commits, and one may be called
    /// just after another thread has closed the engine.
    Short,
}

/// A store that a new directory begins with: see [`Options::stores`]. Its files are kept once;
/// [`Engine::set_store_copies`](crate::Engine::set_store_copies) changes that.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use strandline::{Engine, NewStore, Options};
/// let week = Duration::from_hours(7 * 24);
/// let stores = [NewStore::new("messages", None), NewStore::new("sync", Some(week))];
/// let engine = Engine::open(dir.path(), Options::default().stores(stores))?;
/// assert_eq!(engine.store("messages")?.append(b"c/room", b"hello")?, 1);
/// assert_eq!(engine.store("sync")?.ttl(), Some(week));
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewStore {
    pub(crate) name: String,
    pub(crate) ttl: Option<Duration>,
}

impl NewStore {
    /// A store with this name, 1 to 32 of a-z, 0-9, `_`, `-` and `.`, and this TTL of its entries,
    /// as for [`StoreOptions::ttl`](crate::StoreOptions::ttl).
    pub fn new(name: impl Into<String>, ttl: Option<Duration>) -> NewStore {
        NewStore { name: name.into(), ttl }
    }
}

/// The hard cap on a body, whatever the options say.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The hard cap on one batch: all its bodies and names.
pub const MAX_BATCH_BYTES: usize = 48 * 1024 * 1024;

/// The hard cap on the number of appends (one for each timeline) and changes in one batch. All
/// other commits wait while a batch is committed; one of this size takes some tenths of a second.
pub const MAX_BATCH_OPERATIONS: usize = 256 * 1024;

/// The files of four segments: those that a reader, a flush, a merge and a verify use at the same
/// time.
pub const LEAST_OPEN_FILES: usize = 8;

/// The minimum size of the reserve: a start, a manifest and a few trims need less. It is smaller if
/// log files are smaller.
const LEAST_RESERVE_BYTES: u64 = 1024 * 1024;

/// The reserve is `1/RESERVE_PART` of the segments.
const RESERVE_PART: u64 = 16;

impl Default for Options {
    fn default() -> Options {
        Options {
            memory_budget_bytes: 512 * 1024 * 1024,
            wal_file_bytes: 64 * 1024 * 1024,
            max_body_bytes: 1024 * 1024,
            id_window_ms: 24 * 3600 * 1000,
            stores: Vec::new(),
            compress_recent: true,
            wakers: Wakers::Any,
            compact_bytes_per_second: 64 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            max_open_files: 256,
            create: true,
            read_only: false,
        }
    }
}

/// The maximum size of a memtable, one gibibyte, 2^30. A larger one has no advantage: its flush
/// only takes longer, and needs more space on the disk, which is kept free for it.
const MOST_MEMTABLE_BYTES: usize = 1 << 30;

/// The number of sealed memtables that may wait for their flush before commits wait too.
pub(crate) const MAX_SEALED: usize = 2;

/// The division of the memory budget, in sixteenths. Memory that sealed memtables do not need is
/// lent to decoded blocks.
///
/// | use | sixteenths |
/// |---|--:|
/// | memtables: the active one, one that readers may still hold, each sealed one | 2 each |
/// | groups: the one that fills up, the one that is committed, its records | 2 |
/// | a flush and a merge in progress | 1 |
/// | decoded blocks | 5, and 2 for each sealed memtable that is not in use |
impl Options {
    /// Refuses values that no engine can be opened with.
    pub(crate) fn check(&self) -> Result<()> {
        if self.memory_budget_bytes == 0 || self.wal_file_bytes == 0 {
            return Err(Error::invalid(
                "memory_budget_bytes and wal_file_bytes are sizes above 0: less than 1 MiB and 64 \
                 KiB make an engine slow",
            ));
        }
        if self.max_body_bytes > MAX_BODY_BYTES {
            let what = format!(
                "max_body_bytes is {}, over the cap of {MAX_BODY_BYTES}",
                self.max_body_bytes
            );
            return Err(Error::invalid(what));
        }
        if self.max_open_files < LEAST_OPEN_FILES {
            let what = format!(
                "max_open_files is {}, and must be at least {LEAST_OPEN_FILES}",
                self.max_open_files
            );
            return Err(Error::invalid(what));
        }
        self.stores.iter().try_for_each(|store| limit_ms(store.ttl).map(drop))?;
        check_store_names(self.stores.iter().map(|store| store.name.as_str()))
    }

    /// The size at which the active memtable is sealed.
    pub(crate) fn memtable_bytes(&self) -> usize {
        (self.memory_budget_bytes / 8).clamp(64 * 1024, MOST_MEMTABLE_BYTES)
    }

    /// The size of the reserve in a directory whose segments have `segment_bytes`.
    pub(crate) fn reserve_target_bytes(&self, segment_bytes: u64) -> u64 {
        let least = LEAST_RESERVE_BYTES.min(4 * self.wal_file_bytes);
        (segment_bytes / RESERVE_PART).max(least).min(self.reserve_bytes)
    }

    /// The memory for decoded blocks while `sealed` memtables wait.
    pub(crate) fn cache_bytes(&self, sealed: usize) -> usize {
        let lent = 2 * MAX_SEALED.saturating_sub(sealed);
        self.memory_budget_bytes / 16 * (5 + lent)
    }

    /// The maximum size of the group that fills up before a submit waits.
    pub(crate) fn group_bytes(&self) -> usize {
        (self.memory_budget_bytes / 24).min(MOST_MEMTABLE_BYTES / 3)
    }
}

/// A TTL or a lifetime of the interface in the form that files and the engine use: in milliseconds,
/// 0 for none. So zero itself is refused: each entry would expire at once.
pub(crate) fn limit_ms(limit: Option<Duration>) -> Result<u64> {
    match limit {
        None => Ok(0),
        Some(Duration::ZERO) => Err(Error::invalid(
            "a TTL or a lifetime is above zero, or None for entries that live for ever",
        )),
        Some(limit) => Ok(whole_ms(limit)),
    }
}

/// Refuses a name that no store can have.
pub(crate) fn check_store_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
        return Err(Error::invalid("a store's name is 1 to 32 of a-z, 0-9, _, - and ."));
    }
    Ok(())
}

/// Refuses names that one engine cannot have together.
pub(crate) fn check_store_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut known = HashSet::new();
    for name in names {
        check_store_name(name)?;
        if !known.insert(name) {
            return Err(Error::invalid(format!("two stores have the name {name:?}")));
        }
        if known.len() > MAX_STORES {
            return Err(Error::TooManyStores { limit: MAX_STORES });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::limit_of;

    #[test]
    fn sizes_of_nothing_are_refused() {
        for options in [
            Options { memory_budget_bytes: 0, ..Options::default() },
            Options { wal_file_bytes: 0, ..Options::default() },
        ] {
            assert!(matches!(options.check(), Err(Error::Invalid { .. })));
        }
        assert!(Options { memory_budget_bytes: 1, ..Options::default() }.check().is_ok());
    }

    #[test]
    fn a_budget_without_end_asks_for_no_more_room_than_a_large_memtable() {
        let options = Options { memory_budget_bytes: usize::MAX, ..Options::default() };
        assert_eq!(options.memtable_bytes(), 1 << 30);
        assert!(options.group_bytes() < options.memtable_bytes());
        assert!(
            (0..=MAX_SEALED).all(|sealed| options.cache_bytes(sealed) > options.memtable_bytes())
        );
    }

    #[test]
    fn a_limit_is_rounded_up_and_saturates_and_zero_is_refused() {
        let ms = |limit| limit_ms(Some(limit)).unwrap();
        assert_eq!(limit_ms(None).unwrap(), 0);
        assert!(matches!(limit_ms(Some(Duration::ZERO)), Err(Error::Invalid { .. })));
        assert_eq!(ms(Duration::from_nanos(1)), 1);
        assert_eq!(ms(Duration::from_millis(7)), 7);
        assert_eq!(ms(Duration::from_nanos(7_000_001)), 8);
        assert_eq!((ms(Duration::MAX), ms(Duration::from_millis(u64::MAX))), (u64::MAX, u64::MAX));
        for limit in [None, Some(Duration::from_millis(1)), Some(Duration::from_millis(u64::MAX))] {
            assert_eq!(limit_of(limit_ms(limit).unwrap()), limit);
        }
    }
}
