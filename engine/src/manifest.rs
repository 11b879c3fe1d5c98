//! The manifest (P1, P5, P6): the list of live files.
//!
//! ```text
//!  manifest-…04        the previous manifest; removed once 5 is durable
//!  manifest-…05        the current manifest: the highest number counts
//!  manifest.tmp        incomplete; removed by open
//! ```
//!
//! A manifest is never edited: each change writes a complete new one.
//! 1. Write it under another name and sync it;
//! 2. rename it to its number;
//! 3. sync the directory;
//! 4. remove the previous one.
//!
//! Files that the change made obsolete are removed only after step 3. A file gets its number when
//! it is complete, so the manifest with the highest number is authoritative: if it cannot be read,
//! that is damage, and an older one is no substitute, since files that it names may be gone.
//!
//! This file does not know the content of the files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Failure, Result};
use crate::format::header::{EngineId, FileHeader, FileKind, VERSION, file_header};
use crate::format::manifest::{Live, StoreRecord, decode, encode};
use crate::ids::{FileNumber, Lsn, StoreId};
use crate::vfs::Dir;

/// The name of a manifest until all of it is durable.
pub const TEMPORARY_NAME: &str = "manifest.tmp";

/// The name of a manifest.
pub fn file_name(number: FileNumber) -> String {
    format!("manifest-{number:012}")
}

/// The number in a manifest's name.
pub fn is_file(name: &str) -> Option<FileNumber> {
    let number = name.strip_prefix("manifest-")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The live files and the manifest file that lists them.
#[derive(Debug)]
pub struct Manifest {
    dir: Dir,
    engine_id: EngineId,
    writer_epoch: u64,
    /// The number of the current manifest; 0 if none was written yet.
    number: FileNumber,
    next_file: Arc<AtomicU64>,
    live: Live,
    /// The reason why no more changes are possible: the engine was closed and another may own the
    /// directory, or it is unknown which manifest is current.
    ended: Option<Failure>,
}

impl Manifest {
    /// The manifest of a directory that has none. Nothing is written yet.
    pub fn new(dir: Dir, engine_id: EngineId, live: Live) -> Manifest {
        let next_file = Arc::new(AtomicU64::new(live.next_file.max(1)));
        Manifest { dir, engine_id, writer_epoch: 0, number: 0, next_file, live, ended: None }
    }

    /// The current manifest among `names`; `None` if there is none.
    pub fn load(dir: &Dir, names: &[String]) -> Result<Option<Manifest>> {
        let Some(number) = names.iter().filter_map(|name| is_file(name)).max() else {
            return Ok(None);
        };
        let file = dir.open(&file_name(number))?;
        let bytes = file.read(0, file.len()? as usize)?;
        let header = FileHeader::decode(&bytes, file.path())?;
        let header = header.expect(FileKind::Manifest, header.engine_id, number, file.path())?;
        let payload = bytes.get(file_header::BYTES..).unwrap_or_default();
        let live = decode(payload, &header)
            .map_err(|what| Error::corrupt(file.path(), file_header::BYTES as u64, what))?;
        Ok(Some(Manifest {
            dir: dir.clone(),
            engine_id: header.engine_id,
            writer_epoch: header.writer_epoch,
            number,
            next_file: Arc::new(AtomicU64::new(live.next_file)),
            live,
            ended: None,
        }))
    }

    /// The name of the current file.
    pub fn name(&self) -> String {
        file_name(self.number)
    }

    /// Everything that is live.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Merges used changes of the log up to some lsn: without these changes their segments are not
    /// complete. Fails if the log ends before that lsn.
    pub fn check_changes(&self, log_end: Lsn) -> Result<()> {
        let changes_to = self.live.changes_to;
        if changes_to <= log_end {
            return Ok(());
        }
        let what = format!(
            "segments were merged with changes of the log up to {changes_to}, but the log ends at \
             {log_end}: restore its files, \
             or salvage the directory"
        );
        Err(Error::corrupt(self.dir.path_of(&self.name()), 0, what))
    }

    /// The id of the engine that the files belong to.
    pub fn engine_id(&self) -> EngineId {
        self.engine_id
    }

    /// The writer epoch in which the manifest was written.
    pub fn writer_epoch(&self) -> u64 {
        self.writer_epoch
    }

    /// The same manifest in another writer epoch.
    pub fn in_epoch(self, writer_epoch: u64) -> Manifest {
        Manifest { writer_epoch, ..self }
    }

    /// Begins a new writer epoch, which later manifests contain.
    pub fn begin_epoch(&mut self) {
        self.writer_epoch += 1;
    }

    /// The source of file numbers, shared by everything that creates files.
    pub fn next_file(&self) -> Arc<AtomicU64> {
        self.next_file.clone()
    }

    /// A number for a new file. It is never given again in this directory.
    pub fn take_file_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for a new store. It is never given again in this directory, not even after the store
    /// is dropped: the next change of the manifest stores the counter, which is that of files.
    /// `None` if the ids are used up.
    pub fn take_store_id(&self) -> Option<StoreId> {
        self.live.stores.iter().for_each(|store| self.keep_above(store));
        u32::try_from(self.take_file_number()).ok().map(StoreId)
    }

    /// Ensures that no later store gets the id or the generation of this one. Ids from before the
    /// counter existed may be above it.
    pub fn keep_above(&self, store: &StoreRecord) {
        let highest = u64::from(store.id.0).max(store.generation);
        self.next_file.fetch_max(highest + 1, Ordering::Relaxed);
    }

    /// Refuses all changes from now on.
    pub fn close(&mut self) {
        let what = "the engine is closed: nothing can be changed";
        self.ended.get_or_insert(Failure::Refused(Error::Closed { what }));
    }

    /// Changes the live set. On success the change is durable. If it is refused, nothing changed.
    /// If it is poisoned, it is unknown which of the two manifests a crash would find, and both
    /// must stay valid.
    pub fn commit(&mut self, edit: impl FnOnce(&mut Live)) -> Result<(), Failure> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let mut live = self.live.clone();
        edit(&mut live);
        live.next_file = self.next_file.load(Ordering::Relaxed);
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Manifest,
            engine_id: self.engine_id,
            writer_epoch: self.writer_epoch,
            number: self.number + 1,
            first: 0,
            second: 0,
            third: 0,
        };
        self.write(&encode(&live, header)).map_err(|error| {
            let _ = self.dir.remove(TEMPORARY_NAME);
            Failure::before(error)
        })?;
        self.dir.rename(TEMPORARY_NAME, &file_name(header.number)).map_err(Failure::before)?;
        self.dir.sync().map_err(|error| {
            let unknown = Failure::Poisoned(error);
            self.ended = Some(unknown.clone());
            unknown
        })?;
        self.live = live;
        let before = std::mem::replace(&mut self.number, header.number);
        if before != 0
            && let Err(error) = self.dir.remove(&file_name(before))
        {
            // It is superseded; the next open removes it.
            tracing::warn!(%error, "an old manifest stays until the next open");
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        let _ = self.dir.remove(TEMPORARY_NAME);
        let file = self.dir.create(TEMPORARY_NAME)?;
        file.write(0, bytes)?;
        file.sync()
    }

    /// Whether a name is that of a superseded manifest that a crash left.
    pub fn is_older(&self, name: &str) -> bool {
        is_file(name).is_some_and(|number| number < self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Lsn;
    use crate::vfs::simulated::{Cut, Dice, Model, SimulatedDisk};

    fn load(dir: &Dir) -> Result<Option<Manifest>> {
        Manifest::load(dir, &dir.list()?)
    }

    #[test]
    fn a_power_cut_at_any_point_leaves_the_old_or_the_new_one() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let mut manifest = Manifest::new(dir, EngineId([1; 16]), Live::default());
        for checkpoint in 1..=3 {
            manifest.commit(|live| live.checkpoint = Lsn(checkpoint)).expect("commits");
            disk.mark(checkpoint);
        }
        let mut model = Model::default();
        let mut durable = 0;
        for op in disk.log() {
            model.apply(&op, None);
            if let crate::vfs::simulated::Op::Mark(mark) = op {
                durable = mark;
            }
            for cut in Cut::ALL {
                let image = model.power_cut(cut, &mut Dice::new(durable));
                let dir = Dir::new(Arc::new(SimulatedDisk::from_image(&image)));
                let found = load(&dir).expect("opens").map_or(0, |found| found.live().checkpoint.0);
                assert!(
                    found == durable || found == durable + 1,
                    "{found} after {durable} was acknowledged"
                );
            }
        }
    }

    #[test]
    fn a_damaged_manifest_is_named_and_no_older_one_is_used() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk));
        let mut manifest = Manifest::new(dir.clone(), EngineId([1; 16]), Live::default());
        manifest.commit(|live| live.checkpoint = Lsn(1)).expect("commits");
        dir.create(&file_name(2)).expect("create").write(0, &[0; 16]).expect("write");
        let error = load(&dir).expect_err("damage");
        assert!(error.to_string().contains("manifest-000000000002"), "{error}");
    }
}
