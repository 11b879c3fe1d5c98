//! Frees file descriptors when the process has none left (P7).
//!
//! ```text
//!  open, create, list ──too many open files──>
//!    1. close half of the files that are open for speed only; call again
//!    2. if there are none: release a spare descriptor; call again
//!    3. if there is none either: Error::TooManyFiles
//! ```
//!
//! The engines of one process do not know each other: an engine that has no file to close cannot
//! make another one close its files. For that case each engine holds spare descriptors, as many as
//! a flush, a log file and a manifest need, and takes them again after a call that found a
//! descriptor at once.
//!
//! This file does not know which files are open for speed.

use std::fmt;
use std::io;

use parking_lot::Mutex;

use super::RawDirectory;
use crate::error::is_out_of_descriptors;

/// Two for the files of a segment that is written, one for the next log file, one for a manifest.
const SPARES: usize = 4;

/// A million open files are closed after 20 halvings; with the spares that is 24 attempts. More are
/// needed only if other threads take the descriptors that become free.
const MOST_TRIES: usize = 32;

/// Closes some of the files that are open for speed only. False when there are none.
pub type CloseSome = Box<dyn Fn() -> bool + Send + Sync>;

/// The descriptors that one engine can release.
pub(super) struct Descriptors {
    close_some: CloseSome,
    spares: Mutex<Vec<Box<dyn Send + Sync>>>,
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Descriptors({} spare)", self.spares.lock().len())
    }
}

impl Descriptors {
    /// Takes the spares from `raw`, as many as there are.
    pub fn new(close_some: CloseSome, raw: &dyn RawDirectory) -> Descriptors {
        let descriptors = Descriptors { close_some, spares: Mutex::default() };
        descriptors.take_spares(raw);
        descriptors
    }

    /// Makes a call that needs a descriptor; repeats it as long as there is none and something can
    /// be released.
    pub fn call<T>(
        &self,
        raw: &dyn RawDirectory,
        call: &mut dyn FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let is_short = |outcome: &io::Result<T>| outcome.as_ref().is_err_and(is_out_of_descriptors);
        let mut outcome = call();
        if !is_short(&outcome) {
            self.take_spares(raw);
            return outcome;
        }
        for _ in 0..MOST_TRIES {
            if !is_short(&outcome) || !self.give_up() {
                break;
            }
            outcome = call();
        }
        outcome
    }

    fn give_up(&self) -> bool {
        (self.close_some)() || self.spares.lock().pop().is_some()
    }

    fn take_spares(&self, raw: &dyn RawDirectory) {
        let mut spares = self.spares.lock();
        while spares.len() < SPARES {
            let Ok(spare) = raw.spare_descriptor() else { return };
            spares.push(spare);
        }
    }
}
