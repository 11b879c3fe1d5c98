//! The checks of a batch while it is filled: its first error is reported when it is submitted.
//!
//! This file does not know how an operation is encoded.

use std::ops::Range;

use super::Batch;
use crate::error::Error;
use crate::ids::{StoreKey, TimelineRef};
use crate::options::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_BODY_BYTES};
use crate::timeline::check_name;

impl Batch {
    /// Adds a body to the tail, unless it is too long.
    pub(super) fn body(&mut self, body: &[u8]) -> Option<Range<usize>> {
        if body.len() > MAX_BODY_BYTES {
            self.refuse(Error::TooLarge {
                what: "a body",
                actual: body.len(),
                limit: MAX_BODY_BYTES,
            });
            return None;
        }
        Some(self.tail.body(body))
    }

    /// A timeline that the batch names, unless there is an error in it or in the batch.
    pub(super) fn timeline<'a>(
        &mut self,
        store: impl Into<StoreKey>,
        name: &'a [u8],
    ) -> Option<TimelineRef<'a>> {
        let StoreKey { instance, id: store } = store.into();
        if *self.engine.get_or_insert(instance) != instance {
            self.refuse(Error::invalid(
                "a batch is committed by one engine, but its stores belong to several: make a \
                 batch for each",
            ));
        }
        if let Err(error) = check_name(name) {
            self.refuse(error);
        }
        self.wrong.is_none().then_some(TimelineRef { store, name })
    }

    /// Refuses the batch if it has too many operations with `more` of them.
    pub(super) fn check_count(&mut self, more: usize) {
        let actual = self.operations() + more;
        if actual > MAX_BATCH_OPERATIONS {
            self.refuse(Error::TooManyOperations { actual, limit: MAX_BATCH_OPERATIONS });
        }
    }

    pub(super) fn check_size(&mut self) {
        self.check_count(0);
        let listed = self.list.as_ref().map_or(0, |listed| listed.list.bytes().len());
        let actual = self.tail.byte_count() + listed;
        if actual > MAX_BATCH_BYTES {
            self.refuse(Error::TooLarge { what: "a batch", actual, limit: MAX_BATCH_BYTES });
        }
    }

    pub(super) fn refuse(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }
}
