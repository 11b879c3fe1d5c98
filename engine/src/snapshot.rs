//! Snapshots: one moment of all stores, for reads that belong together.

use std::sync::Arc;

use crate::running::Running;
use crate::state::moment::HeldMoment;

/// A moment of an engine, from [`Engine::snapshot`](crate::Engine::snapshot). Reads by
/// [`Store::at`](crate::Store::at) see each batch that was committed before it as a whole, and
/// nothing of later ones.
///
/// A snapshot keeps memtables and segment files that others do not need any more. When flushed
/// memtables take more than their share of the memory budget (an eighth) because snapshots keep
/// them, the oldest snapshots are revoked: their reads are
/// [`Error::SnapshotTooOld`](crate::Error::SnapshotTooOld) from then on.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use strandline::{Batch, Engine, Options};
/// let engine = Engine::open(dir.path(), Options::default())?;
/// let (rooms, users) = (engine.create_store("rooms", 0)?, engine.create_store("users", 0)?);
/// let before = engine.snapshot();
/// engine.submit(Batch::new().append(&rooms, b"r", b"hi").append(&users, b"u", b"hi"))?.wait()?;
/// assert_eq!(rooms.at(&before).end(b"r")?.0, 0);
/// let after = engine.snapshot();
/// assert_eq!((rooms.at(&after).end(b"r")?.0, users.at(&after).end(b"u")?.0), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) running: Arc<Running>,
    pub(crate) held: Arc<HeldMoment>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Snapshot")
    }
}
