//! The form in which an event is shown to a user now.
//!
//! Every entry about a message shows the newest body, earlier edits included; entries about a
//! recalled message show none. Text that was written after the end of the user's last membership is
//! not shown: the body is empty then, and `edited` shows the reason.
//!
//! Whether an event reaches a user at all is decided by `Membership::gets`.

use bytes::Bytes;

use super::Messaging;
use super::copies::Found;
use super::event::{Event, Kind, When};
use super::trouble::Result;
use super::user::Membership;

impl Messaging {
    /// An event of a conversation's own timeline in its current form, and how often its message was
    /// edited; `None` if the current form cannot be known.
    pub(super) fn shown_to(
        &self,
        user: &Bytes,
        membership: Option<&Membership>,
        event: Event,
        when: When,
    ) -> Result<(Option<Event>, u64)> {
        let is_over = membership.is_some_and(|membership| !membership.periods.is_member());
        // Messages are stored in their current form.
        if event.kind == Kind::Message && !is_over && !self.engine.has_damage() {
            let edited = event.about;
            return Ok((Some(event), edited));
        }
        self.copy_shown_to(user, membership, event, when)
    }

    /// The same for an event in the form in which it was committed.
    pub(super) fn copy_shown_to(
        &self,
        user: &Bytes,
        membership: Option<&Membership>,
        event: Event,
        when: When,
    ) -> Result<(Option<Event>, u64)> {
        let Some(became) = self.became_of(&event, when)? else {
            let edited = if event.kind == Kind::Message { event.about } else { 0 };
            return Ok((Some(event), edited));
        };
        let edited = if became.kind == Kind::Edit { became.edited } else { 0 };
        if edited > 0 && membership.is_some_and(|membership| !membership.may_read(became.sequence))
        {
            return Ok((Some(Event { body: Bytes::new(), ..event }), edited));
        }
        match self.as_changed(user, event, when, &became)? {
            Found::Event(_, event) => Ok((Some(event), edited)),
            Found::Lost(..) | Found::Nothing => Ok((None, edited)),
        }
    }
}
