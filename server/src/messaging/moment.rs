//! Messaging at one moment: what a sync reads belongs together.
//!
//! A sync reads the user's sync timeline, the log of pulled events, and the user's conversations.
//! It reads all of them in one snapshot of the engine, so a batch is in all of them or in none.
//! What an event became since (`visible`), and what is read around damage (`copies`, `refill`),
//! comes from the newest state: it never hides an event.

use std::ops::Deref;

use strandline::Store;

use super::Messaging;

/// Messaging, with the timelines of events as they were at one moment.
pub struct Moment<'a> {
    messaging: &'a Messaging,
    /// The events of conversations.
    pub messages: Store,
    /// The users' sync timelines.
    pub sync: Store,
    /// The log of pulled events.
    pub pulled: Store,
    /// The ledgers.
    pub state: Store,
}

impl Deref for Moment<'_> {
    type Target = Messaging;

    fn deref(&self) -> &Messaging {
        self.messaging
    }
}

impl Messaging {
    /// The moment of now.
    pub(super) fn now(&self) -> Moment<'_> {
        let snapshot = self.engine.snapshot();
        let at = |store: &Store| store.at(&snapshot);
        Moment {
            messaging: self,
            messages: at(&self.messages),
            sync: at(&self.sync),
            pulled: at(&self.pulled),
            state: at(&self.state),
        }
    }
}
