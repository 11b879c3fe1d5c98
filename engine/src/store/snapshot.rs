//! Snapshots: one moment of all stores, for reads that must be consistent with each other.

use std::sync::Arc;

use super::Store;
use crate::error::{Error, Result};
use crate::running::Running;
use crate::state::moment::HeldMoment;

/// A moment of an engine, from [`Engine::snapshot`](crate::Engine::snapshot). Reads through
/// [`Store::at`](crate::Store::at) see every batch that was committed before it completely, and
/// nothing of later batches.
///
/// A snapshot keeps memtables and segment files that are otherwise not needed any more. If
/// snapshots keep more flushed memtables than their share of the memory budget (an eighth, but at
/// least 64 KiB and at most 1 GiB), the oldest snapshots are revoked: from then on their reads
/// return [`Error::SnapshotTooOld`](crate::Error::SnapshotTooOld).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use strandline::{Batch, Engine, Options};
/// let engine = Engine::open(dir.path(), Options::default())?;
/// let rooms = engine.create_store("rooms", None)?;
/// let users = engine.create_store("users", None)?;
/// let before = engine.snapshot();
/// engine.commit(Batch::new().append(&rooms, b"r", b"hi").append(&users, b"u", b"hi"))?;
/// assert_eq!(before.store("rooms")?.end(b"r")?.0, 0);
/// let after = engine.snapshot();
/// assert_eq!((rooms.at(&after).end(b"r")?.0, users.at(&after).end(b"u")?.0), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) running: Arc<Running>,
    pub(crate) held: Arc<HeldMoment>,
}

impl Snapshot {
    /// A store of now as of the snapshot: all methods that read show that moment. The same as
    /// [`Store::at`].
    pub fn store(&self, name: &str) -> Result<Store> {
        let stores = self.running.state.stores.read();
        let found = stores.iter().find(|store| store.name == name);
        let id = found.map(|store| store.id).ok_or_else(|| Error::NoStore { name: name.into() })?;
        let (running, at) = (self.running.clone(), Some(self.held.clone()));
        Ok(Store { running, id, name: name.into(), at })
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Snapshot")
    }
}
