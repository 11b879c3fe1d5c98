//! Changes the stored form of an event in its conversation and in all copies at once. All of them
//! were committed with one shared body, which the engine replaces by reference, whatever the number
//! of members. So no TL command shows a body that was recalled.
//!
//! A pulled event has no copies. An event of an earlier version, which has no shared body, is
//! changed in its conversation only; before a copy of it is shown, the newest change of its message
//! is looked up (`became`).
//!
//! It does not know why the event changes, nor who may see it.

use bytes::Bytes;
use strandline::{Batch, BodyKey};

use super::around::none_if_hidden;
use super::content::CopyPosition;
use super::event::Event;
use super::trouble::Result;
use super::{Messaging, names};

impl Messaging {
    /// Adds the new stored form of an event to a batch. `copy`: where a copy is, if the
    /// conversation does not have the event any more; otherwise the sync timeline of `user` is
    /// searched for one.
    pub(super) fn rewrite(
        &self,
        batch: Batch,
        (user, copy): (&Bytes, Option<&CopyPosition>),
        now: &Event,
    ) -> Result<Batch> {
        let (own, stored) = (names::conversation(&now.conv), now.encode());
        let key = match none_if_hidden(self.messages.body_of(&own, now.sequence))?.flatten() {
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

    fn body_of_copy(
        &self,
        user: &Bytes,
        copy: Option<&CopyPosition>,
        now: &Event,
    ) -> Result<Option<BodyKey>> {
        let found = match copy {
            Some(CopyPosition { user, place }) => Some((user.clone(), *place)),
            None => self
                .copy_of(user, &now.conv, now.sequence)?
                .map(|(place, ..)| (user.clone(), place)),
        };
        let Some((user, place)) = found else { return Ok(None) };
        Ok(none_if_hidden(self.sync.body_of(names::inbox(&user), place))?.flatten())
    }
}

#[cfg(test)]
mod tests {
    use crate::messaging::moments::Table;
    use crate::messaging::{Mode, names};

    /// All bodies in the conversation's timeline and in the users' sync timelines, as TL commands
    /// show them.
    fn stored(table: &Table, users: &[&str]) -> Vec<String> {
        let messaging = &table.messaging;
        let inboxes = users.iter().map(|user| (&messaging.sync, names::inbox(user.as_bytes())));
        let all = inboxes.chain([(&messaging.messages, names::conversation(b"room"))]);
        let read = |(store, name): (&strandline::Store, Vec<u8>)| {
            let page = store.range(&name, .., strandline::Limit::entries(1000)).expect("reads");
            page.entries
                .into_iter()
                .map(|entry| String::from_utf8_lossy(&entry.body).into_owned())
                .collect::<Vec<_>>()
        };
        all.flat_map(read).collect()
    }

    fn edit(table: &Table, body: &'static str) {
        table.messaging.edit(b"room", b"ann", 1, &body.into()).expect("it is ann's");
    }

    #[test]
    fn after_a_change_no_timeline_has_the_old_body() {
        const USERS: [&str; 3] = ["ann", "bob", "carl"];
        for (flushes, trims) in [(false, false), (true, false), (true, true)] {
            let table = Table::new();
            table.create("room", Mode::Push, &USERS);
            let settle = || {
                if flushes {
                    table.engine.flush().expect("flushes");
                }
            };
            let has = |what: &str| {
                stored(&table, &USERS).iter().filter(|body| body.contains(what)).count()
            };
            table.send("room", "secret one");
            table.send("room", "secret two");
            assert_eq!(has("secret"), 8);
            settle();
            if trims {
                let own = names::conversation(b"room");
                table.messaging.messages.trim(&own, strandline::Trim::Before(3)).expect("trims");
            }
            edit(&table, "an edit");
            // The message and the edit, each in four timelines; a conversation that was trimmed has
            // the edit only.
            let in_place = usize::from(!trims);
            assert_eq!(
                (has("secret one"), has("an edit")),
                (0, 7 + in_place),
                "flushes {flushes}, trims {trims}"
            );
            settle();
            edit(&table, "another");
            assert_eq!(
                (has("an edit"), has("another")),
                (0, 7 + in_place),
                "flushes {flushes}, trims {trims}"
            );
            assert!(table.messaging.recall(b"room", b"ann", 1).expect("it is ann's"));
            assert!(table.messaging.recall(b"room", b"ann", 2).expect("it is ann's"));
            assert_eq!((has("another"), has("secret")), (0, 0), "flushes {flushes}, trims {trims}");
            settle();
            table.engine.compact().expect("merges");
            assert_eq!(
                (has("another"), has("secret")),
                (0, 0),
                "merged, flushes {flushes}, trims {trims}"
            );
        }
    }
}
