//! One append with options: the batch that a single append needs, without writing a batch.
//!
//! This file does not know how a batch is committed.

use std::time::Duration;

use crate::entry::Receipt;
use crate::error::Result;
use crate::ids::Sequence;
use crate::store::Store;
use crate::write::batch::{Batch, Durability};

/// The options of one append, made by calls in a row: see [`Store::append_with`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AppendOptions {
    lifetime: Option<Duration>,
    durability: Durability,
    id: Option<Vec<u8>>,
    if_last: Option<Sequence>,
}

impl AppendOptions {
    /// A lifetime of its own for the entry, as for [`Batch::lifetime`]. Default: only the store's
    /// TTL applies.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> AppendOptions {
        AppendOptions { lifetime: Some(lifetime), ..self }
    }

    /// The meaning of a success. Default: [`Durability::Disk`].
    #[must_use]
    pub fn durability(self, durability: Durability) -> AppendOptions {
        AppendOptions { durability, ..self }
    }

    /// A client's id, which makes a retry harmless, as for [`Batch::id`]. Default: none.
    #[must_use]
    pub fn id(self, id: impl AsRef<[u8]>) -> AppendOptions {
        AppendOptions { id: Some(id.as_ref().to_vec()), ..self }
    }

    /// Appends only if the last sequence of the timeline is this one, as for [`Batch::if_last`].
    /// Default: no condition.
    #[must_use]
    pub fn if_last(self, last: Sequence) -> AppendOptions {
        AppendOptions { if_last: Some(last), ..self }
    }

    fn batch(self) -> Batch {
        let mut batch = Batch::new().lifetime(self.lifetime).durability(self.durability);
        if let Some(id) = self.id {
            batch = batch.id(id);
        }
        if let Some(last) = self.if_last {
            batch = batch.if_last(last);
        }
        batch
    }
}

impl Store {
    /// Appends one body with options, and waits until it is durable as they ask.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use strandline::{AppendOptions, Engine, Options};
    /// let engine = Engine::open(dir.path(), Options::default())?;
    /// let rooms = engine.create_store("rooms", None)?;
    /// let once = AppendOptions::default().id(b"ann-1");
    /// let first = rooms.append_with(b"r", b"hello", once.clone())?;
    /// let again = rooms.append_with(b"r", b"hello", once)?;
    /// assert_eq!((first.duplicate, again.duplicate), (false, true));
    /// assert_eq!(first.sequences, again.sequences);
    /// # Ok::<(), strandline::Error>(())
    /// ```
    pub fn append_with(
        &self,
        timeline: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
        options: AppendOptions,
    ) -> Result<Receipt> {
        self.running.commit(options.batch().append(self, timeline, body))
    }
}
