//! What is stored of an event changes in its conversation and in every copy of it at once: they were committed with one body, which the
//! engine changes by reference, whatever the number of members. So no TL command shows what was taken back.
//!
//! An event that was pulled has no copies. One from before bodies could be changed so is changed in its conversation alone; who shows a
//! copy of it asks what became of the message (`became`).
//!
//! It does not know: why the event changes, and who may see it.

use bytes::Bytes;
use strandline::{Batch, BodyKey};

use super::around::told_if_hidden;
use super::content::Copied;
use super::event::Event;
use super::trouble::Result;
use super::{Messaging, names};

impl Messaging {
    /// Adds to a batch that an event is stored so from now on. `copy`: where a copy is known to be, when the conversation has it no more;
    /// `user` is asked otherwise.
    pub(super) fn rewrite(
        &self,
        batch: Batch,
        (user, copy): (&Bytes, Option<&Copied>),
        now: &Event,
    ) -> Result<Batch> {
        let (own, stored) = (names::conversation(&now.conv), now.encode());
        let key = match told_if_hidden(self.messages.body_of(&own, now.sequence))?.flatten() {
            Some(key) => Some(key),
            None if now.is_pulled() => None,
            None => self.body_of_copy(user, copy, now)?,
        };
        Ok(match key {
            Some(key) => batch.edit_body(key, [&self.messages, &self.sync], &stored),
            None if copy.is_some() => batch,
            None => batch.edit(&self.messages, &own, now.sequence, &stored),
        })
    }

    fn body_of_copy(&self, user: &Bytes, copy: Option<&Copied>, now: &Event) -> Result<Option<BodyKey>> {
        let found = match copy {
            Some(Copied { user, place }) => Some((user.clone(), *place)),
            None => self.copy_of(user, &now.conv, now.sequence)?.map(|(place, ..)| (user.clone(), place)),
        };
        let Some((user, place)) = found else { return Ok(None) };
        Ok(told_if_hidden(self.sync.body_of(&names::inbox(&user), place))?.flatten())
    }
}
