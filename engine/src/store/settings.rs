//! The settings of a store, as a caller gives them and reads them.
//!
//! This file does not know how they are stored: see `format/manifest.rs`.

use std::time::Duration;

use crate::format::manifest::Copies;

/// A store's name and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Its name.
    pub name: String,
    /// The TTL of entries; `None`: they live for ever.
    pub ttl: Option<Duration>,
    /// The number of copies of its files.
    pub copies: Copies,
}

/// The settings of a new store, made by calls in a row:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use strandline::{Copies, Engine, Options, StoreOptions};
/// let engine = Engine::open(dir.path(), Options::default())?;
/// let precious = StoreOptions::default().copies(Copies::Twice);
/// assert_eq!(engine.create_store_with("ledger", precious)?.ttl(), None);
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) copies: Copies,
}

impl StoreOptions {
    /// The TTL of entries; `None`, the default: they live for ever. It is counted in whole
    /// milliseconds: a fraction is rounded up, and more than `u64::MAX` milliseconds are that many.
    /// Zero is refused when the store is created.
    #[must_use]
    pub fn ttl(self, ttl: Option<Duration>) -> StoreOptions {
        StoreOptions { ttl, ..self }
    }

    /// The number of copies of its files. Default: [`Copies::Once`].
    #[must_use]
    pub fn copies(self, copies: Copies) -> StoreOptions {
        StoreOptions { copies, ..self }
    }
}
