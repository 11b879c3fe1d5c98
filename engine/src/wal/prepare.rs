//! The next file, ready ahead of need, so that the commit path does not wait for it and its later
//! syncs need not move the end of a file.
//!
//! It has one of two sources:
//! * a log file that is not needed any more (`reuse`), which costs no bytes;
//! * zeros, which are written and synced here. They cost the bytes of the log a second time, so
//!   they are written only until files become free for reuse.
//!
//! Neither is done before durable commits have half filled the current file: only they profit.
//! Zeros are written in pieces, each synced, so that a commit's own sync never waits for many
//! megabytes of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::{NEXT_NAME, WalFile, file_name, reuse};
use crate::error::Result;
use crate::vfs::{Dir, File};

const PIECE_BYTES: usize = 1024 * 1024;

/// A file under [`NEXT_NAME`].
pub struct NextFile {
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Whether it was a log file before.
    pub was_used: bool,
}

/// Has the next file ready, at most one. Zeros are written on a thread of its own.
pub struct Preparer {
    shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

struct Shared {
    dir: Dir,
    /// The number of zero bytes written.
    written: AtomicU64,
    slot: Mutex<Preparing>,
}

impl Shared {
    /// A file that only improves speed must not use the last space: there must be four times its
    /// size.
    fn is_short_of(&self, bytes: u64) -> bool {
        self.dir.free_bytes().is_ok_and(|free| free < 4 * bytes)
    }
}

#[derive(Default)]
struct Preparing {
    next: Next,
    /// The size of the last request; 0: nobody needs a file.
    wanted: u64,
    /// Files of this size become free: no zeros are written.
    reuses: bool,
}

#[derive(Default)]
enum Next {
    #[default]
    None,
    /// It is being made.
    Coming,
    Ready(NextFile),
    /// It was taken and does not have its own name yet: no other file may have this one.
    Taken,
    /// There was one, but its space was needed elsewhere, or it could not be made. Until a file is
    /// asked for again after the next change, none is made: a full disk is not filled again and
    /// again.
    Gone,
}

struct Worker {
    requests: SyncSender<u64>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Its thread writes zeros.
    fn start(shared: Arc<Shared>) -> io::Result<Worker> {
        let (requests, received) = sync_channel::<u64>(1);
        let work = move || {
            while let Ok(bytes) = received.recv() {
                // Not reported as an error: the commit path creates its own file, and returns the
                // error itself if there still is one.
                let file = prepare(&shared.dir, bytes, &shared.written).inspect_err(|error| {
                    tracing::warn!(%error, "could not prepare the next wal file");
                    let _ = shared.dir.remove(NEXT_NAME);
                });
                let ready = |file| Next::Ready(NextFile { file, bytes, was_used: false });
                shared.slot.lock().next = file.map_or(Next::Gone, ready);
            }
        };
        let thread = std::thread::Builder::new().name("strandline-prepare".into()).spawn(work)?;
        Ok(Worker { requests, thread })
    }
}

impl Preparer {
    /// Its thread is started when zeros are written for the first time: an engine that writes
    /// little needs no thread.
    pub fn new(dir: Dir) -> Preparer {
        let (written, slot) = (AtomicU64::new(0), Mutex::default());
        Preparer { shared: Arc::new(Shared { dir, written, slot }), worker: Mutex::default() }
    }

    /// The number of zero bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Requests a file of `bytes`. Zeros are written, unless log files become free for reuse.
    pub fn ask(&self, bytes: u64) {
        let mut slot = self.shared.slot.lock();
        slot.wanted = bytes;
        if slot.reuses || !matches!(slot.next, Next::None) || self.shared.is_short_of(bytes) {
            return;
        }
        slot.next = Next::Coming;
        drop(slot);
        if !self.write_zeros(bytes) {
            // Without a worker no zeros are written from here on, which costs speed only.
            self.shared.slot.lock().next = Next::Gone;
        }
    }

    fn write_zeros(&self, bytes: u64) -> bool {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            let started = Worker::start(self.shared.clone()).inspect_err(|error| {
                tracing::warn!(%error, "cannot start the thread that prepares wal files");
            });
            *worker = started.ok();
        }
        worker.as_ref().is_some_and(|worker| worker.requests.try_send(bytes).is_ok())
    }

    /// Takes over a log file that is not needed any more, if it can be the next one. The caller has
    /// made durable that it is not needed. False: the file is left to the caller.
    pub fn keep(&self, file: WalFile) -> bool {
        let Some((old, bytes)) = self.to_reuse(file) else { return false };
        let taken = reuse::take_over(&self.shared.dir, file.number).inspect_err(|error| {
            tracing::warn!(%error, "an old log file could not be kept for reuse");
            let _ = self.shared.dir.remove(NEXT_NAME);
            let _ = self.shared.dir.remove(&file_name(file.number));
        });
        let ready = |()| Next::Ready(NextFile { file: old, bytes, was_used: true });
        self.shared.slot.lock().next = taken.map_or(Next::Gone, ready);
        true
    }

    /// The file and its length, if there is no next one and it is as large as the last request.
    fn to_reuse(&self, file: WalFile) -> Option<(File, u64)> {
        let old = self.shared.dir.open_to_write(&file_name(file.number)).ok()?;
        let bytes = old.len().ok()?;
        let mut slot = self.shared.slot.lock();
        slot.reuses = slot.wanted != 0 && bytes >= slot.wanted;
        let is_taken =
            slot.reuses && matches!(slot.next, Next::None) && !self.shared.is_short_of(bytes);
        if is_taken {
            slot.next = Next::Coming;
        }
        is_taken.then_some((old, bytes))
    }

    /// The next file, if it is ready and has at least `needed` bytes. The caller gives it its own
    /// name or removes it, and then calls [`Preparer::was_named`].
    pub fn take(&self, needed: u64) -> Option<NextFile> {
        let mut slot = self.shared.slot.lock();
        if matches!(slot.next, Next::Coming) {
            return None;
        }
        match std::mem::take(&mut slot.next) {
            Next::Ready(next) if next.bytes >= needed => {
                slot.next = Next::Taken;
                Some(next)
            }
            Next::Ready(_) => {
                let _ = self.shared.dir.remove(NEXT_NAME);
                None
            }
            _ => None,
        }
    }

    /// The file that was taken does not have the name of the next one any more.
    pub fn was_named(&self) {
        self.shared.slot.lock().next = Next::None;
    }

    /// Removes the next file because its space is needed elsewhere, or what it held must leave the
    /// disk. True if there was such a file.
    pub fn discard(&self) -> bool {
        let mut slot = self.shared.slot.lock();
        if !matches!(slot.next, Next::Ready(_)) {
            return false;
        }
        slot.next = Next::Gone;
        self.shared.dir.remove(NEXT_NAME).is_ok()
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if let Some(Worker { requests, thread }) = self.worker.get_mut().take() {
            drop(requests);
            let _ = thread.join();
        }
        let _ = self.shared.dir.remove(NEXT_NAME);
    }
}

fn prepare(dir: &Dir, file_bytes: u64, written: &AtomicU64) -> Result<File> {
    let _ = dir.remove(NEXT_NAME);
    let file = dir.create(NEXT_NAME)?;
    let zeros = vec![0; PIECE_BYTES.min(file_bytes as usize)];
    let mut at = 0;
    while at < file_bytes {
        let piece = &zeros[..zeros.len().min((file_bytes - at) as usize)];
        file.write(at, piece)?;
        file.sync()?;
        at += piece.len() as u64;
        written.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(file)
}
