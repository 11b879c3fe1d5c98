//! Prepares the next file ahead of need: it is filled with zeros and synced, so that the commit
//! path does not wait for it and its later syncs need not move the end of a file.
//!
//! Preparation writes the log's bytes a second time, so it starts only after the current file has
//! seen durable commits. It is done in pieces, each synced, so that a commit's own sync never waits
//! for many megabytes of zeros.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::error::Result;
use crate::vfs::{Dir, File};

/// The prepared file's name until it is used. An open removes a leftover.
pub const PREPARED_NAME: &str = "wal-next.tmp";

const PIECE_BYTES: usize = 1024 * 1024;

/// Makes prepared files, one at a time, on a thread of its own.
pub struct Preparer {
    dir: Dir,
    /// The number of zero bytes written.
    written: Arc<AtomicU64>,
    state: Mutex<PreparerState>,
}

#[derive(Default)]
struct PreparerState {
    worker: Option<Worker>,
    /// A file was requested and not taken. A file is requested once per log file, so that a full
    /// disk is not filled again and again.
    asked: bool,
    discarded: bool,
}

struct Worker {
    wanted: SyncSender<u64>,
    prepared: Receiver<Option<File>>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(dir: Dir, written: Arc<AtomicU64>) -> io::Result<Worker> {
        let (wanted, requests) = sync_channel::<u64>(1);
        let (done, prepared) = sync_channel(1);
        let work = move || {
            while let Ok(file_bytes) = requests.recv() {
                // Not reported as an error: the commit path creates its own file, and returns the
                // error itself if there still is one.
                let file = prepare(&dir, file_bytes, &written).inspect_err(|error| {
                    tracing::warn!(%error, "could not prepare the next wal file");
                    let _ = dir.remove(PREPARED_NAME);
                });
                if done.send(file.ok()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("strandline-prepare".into()).spawn(work)?;
        Ok(Worker { wanted, prepared, thread })
    }
}

impl PreparerState {
    /// The worker's result, if it is ready.
    fn answer(&self) -> Result<Option<File>, TryRecvError> {
        self.worker.as_ref().ok_or(TryRecvError::Empty)?.prepared.try_recv()
    }
}

impl Preparer {
    /// Its thread is started with the first request: an engine that writes nothing needs no thread.
    pub fn new(dir: Dir) -> Preparer {
        Preparer { dir, written: Arc::default(), state: Mutex::default() }
    }

    /// The number of zero bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Requests a file of `file_bytes`, unless one was requested since the last one was taken, or
    /// the disk has less than four times that space free: a file that only improves speed must not
    /// use the last space.
    pub fn ask(&self, file_bytes: u64) {
        let mut state = self.state.lock();
        if state.asked || self.dir.free_bytes().is_ok_and(|free| free < 4 * file_bytes) {
            return;
        }
        if state.worker.is_none() {
            let started =
                Worker::start(self.dir.clone(), self.written.clone()).inspect_err(|error| {
                    tracing::warn!(%error, "cannot start the thread that prepares wal files");
                });
            state.worker = started.ok();
        }
        // Without a worker nothing is prepared from here on, which costs speed only.
        state.asked =
            state.worker.as_ref().is_none_or(|worker| worker.wanted.try_send(file_bytes).is_ok());
    }

    /// The prepared file, if it is ready.
    pub fn take(&self) -> Option<File> {
        let mut state = self.state.lock();
        let answer = state.answer().ok();
        if answer.is_some() || std::mem::take(&mut state.discarded) {
            state.asked = false;
        }
        answer.flatten()
    }

    /// Frees the space of a prepared file because it is needed elsewhere. True if there was such a
    /// file.
    pub fn discard(&self) -> bool {
        let mut state = self.state.lock();
        let Ok(answer) = state.answer() else { return false };
        state.discarded = true;
        answer.is_some() && self.dir.remove(PREPARED_NAME).is_ok()
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if let Some(Worker { wanted, prepared: _taken, thread }) =
            self.state.get_mut().worker.take()
        {
            drop(wanted);
            // Its channel has room for the result, so it ends.
            let _ = thread.join();
        }
        let _ = self.dir.remove(PREPARED_NAME);
    }
}

fn prepare(dir: &Dir, file_bytes: u64, written: &AtomicU64) -> Result<File> {
    let _ = dir.remove(PREPARED_NAME);
    let file = dir.create(PREPARED_NAME)?;
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
