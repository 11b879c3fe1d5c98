//! Limits the rate at which merging writes: after each piece the thread rests for the rest of the
//! time that the piece should have taken.
//!
//! No lock that appends or reads take is held during a rest. There is no rest while commits wait
//! for merging.
//!
//! This file does not know what is written.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::state::State;

/// The number of bytes after which the pace is checked: large enough that a rest is not too short.
const PIECE_BYTES: u64 = 256 * 1024;

/// A rest is taken in steps; after each it is checked whether the rest is over.
const STEP: Duration = Duration::from_millis(200);

/// The pace of one merge.
pub struct Pace<'a> {
    state: &'a State,
    /// There is no limit.
    is_urgent: bool,
    /// The number of bytes that were paced so far.
    paced: u64,
    since: Duration,
}

impl<'a> Pace<'a> {
    /// Starts the pace of a merge.
    pub fn start(state: &'a State, is_urgent: bool) -> Pace<'a> {
        Pace { state, is_urgent, paced: 0, since: state.clock.monotonic() }
    }

    /// Reports that `bytes` were written since the start. Rests if that was too fast; fails if the
    /// engine is closing.
    pub fn written(&mut self, bytes: u64) -> Result<()> {
        let piece = bytes.saturating_sub(self.paced);
        if piece < PIECE_BYTES {
            return Ok(());
        }
        self.check()?;
        self.paced = bytes;
        if !self.is_urgent {
            self.rest(piece);
            self.since = self.state.clock.monotonic();
            self.check()?;
        }
        Ok(())
    }

    /// Rests until a piece has taken as long as it should, but not while commits wait for the
    /// merge. The limit may change meanwhile.
    fn rest(&self, piece: u64) {
        let State { merging, progress, clock, .. } = self.state;
        let mut taken = clock.monotonic().saturating_sub(self.since);
        while !merging.lag.hurries() && !self.state.is_closing() {
            let rate = merging.bytes_per_second();
            let due = match rate {
                0 => Duration::ZERO,
                _ => Duration::from_secs_f64(piece as f64 / rate as f64),
            };
            let step = due.saturating_sub(taken).min(STEP);
            if step.is_zero() {
                break;
            }
            progress.rest(step);
            taken += step;
        }
    }

    /// Fails if the engine is closing.
    pub fn check(&self) -> Result<()> {
        if self.state.is_closing() {
            return Err(Error::Closed { what: "the engine is closing: the merge is abandoned" });
        }
        Ok(())
    }
}
