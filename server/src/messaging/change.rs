//! Edits and recalls. One batch changes the stored message and adds an event for every member who
//! may see the message.
//!
//! 1. The message is looked up where any of it is kept (`content`). A user who may not change it
//!    gets an error that names the reason.
//! 2. The stored body changes, in the conversation and in all copies at once (`rewrite`). The edit
//!    before this one loses its body in the same way; edits before that one have none already.
//!    Before a copy is shown, the newest change of its message is looked up (`became`).
//! 3. The event goes to the conversation and, in push mode, to the members who may see the message.
//! 4. The ledgers of changes get their record.
//!
//! Changes of a conversation are serialized with each other and with joins and leaves. Otherwise
//! only one of many concurrent decisions on the same ledger could commit, and the others would be
//! computed again each time.

use bytes::Bytes;
use strandline::{Batch, Sequence};

use super::became::{Became, NewestChange};
use super::content::Content;
use super::conversation::{Conversation, History};
use super::decision::Decision;
use super::event::{Event, Kind};
use super::ledger::Ledger;
use super::send::Audience;
use super::trouble::{Result, Trouble};
use super::{Messaging, names};

/// A requested change of a message.
struct RequestedChange<'a> {
    conv: &'a Bytes,
    user: &'a Bytes,
    sequence: Sequence,
    kind: Kind,
    body: &'a Bytes,
}

impl Messaging {
    /// Replaces the body of a message. Only its sender may. Waits for the disk.
    pub fn edit(&self, conv: &[u8], user: &[u8], sequence: Sequence, body: &Bytes) -> Result<()> {
        self.change(conv, user, sequence, Kind::Edit, body).map(drop)
    }

    /// Recalls a message, which removes its body. Only its sender may. False if it was recalled
    /// before. Waits for the disk.
    pub fn recall(&self, conv: &[u8], user: &[u8], sequence: Sequence) -> Result<bool> {
        self.change(conv, user, sequence, Kind::Recall, &Bytes::new())
    }

    fn change(
        &self,
        conv: &[u8],
        user: &[u8],
        sequence: Sequence,
        kind: Kind,
        body: &Bytes,
    ) -> Result<bool> {
        let conv = names::valid(conv)?;
        self.check_exists(&conv)?;
        let user = names::valid(user)?;
        let wanted = RequestedChange { conv: &conv, user: &user, sequence, kind, body };
        let turn = self.turn(&conv).lock();
        let changed = self.settle(|| self.decide_change(&wanted), |_| true)?;
        drop(turn);
        if changed {
            self.shorten_changes(&conv, sequence);
        }
        Ok(changed)
    }

    fn decide_change(&self, wanted: &RequestedChange<'_>) -> Result<Decision<bool>> {
        let RequestedChange { conv, user, sequence, kind, .. } = *wanted;
        let ledger = self.conversations.snapshot(&names::conversation_ledger(conv))?;
        if ledger.state.settings.is_none() {
            return Err(Trouble::NotFound);
        }
        let newest = self.newest_change(conv)?;
        let content =
            self.content(&ledger.state, conv, user, sequence, kind)?.ok_or(Trouble::NoMessage)?;
        let is_recalled = content.message.kind == Kind::Recall;
        if is_recalled && kind == Kind::Edit {
            return Err(Trouble::NoMessage);
        }
        if !ledger.state.has(user) {
            return Err(Trouble::NoPermission);
        }
        if content.message.user != *user {
            return Err(Trouble::NotTheSender);
        }
        if is_recalled {
            return Ok(Decision::Known(false));
        }
        let window_ms = self.options.change_window_ms;
        // The refusal uses the sure time: a clock that jumps ahead does not close the window.
        if window_ms > 0
            && self.engine.sure_now_ms() >= content.when.start_ms.saturating_add(window_ms)
        {
            return Err(Trouble::TooLate { window_ms });
        }
        let batch = self.changing(wanted, &content, &ledger, &newest)?;
        Ok(Decision::on(conv, ledger.version, batch))
    }

    /// Steps 2 to 4 of the heading.
    fn changing(
        &self,
        wanted: &RequestedChange<'_>,
        content: &Content,
        ledger: &Ledger<Conversation>,
        newest: &NewestChange,
    ) -> Result<Batch> {
        let RequestedChange { conv, user, sequence, kind, body } = *wanted;
        let history =
            ledger.state.settings.as_ref().map_or(History::All, |settings| settings.history);
        let left_ms = content
            .message
            .expires_at_ms(content.when.start_ms)
            .map_or(0, |at_ms| at_ms.saturating_sub(self.engine.now_ms()).max(1));
        let (last, _) = self.messages.end(names::conversation(conv))?;
        let event = Event {
            about: sequence,
            flags: history.flag(),
            lifetime_ms: left_ms,
            run: newest.run_up_to(last),
            body: body.clone(),
            ..Event::new(kind, conv, user)
        };
        let record = Became::record(content.became.as_ref(), &event, content.when, newest).encode();
        let witnesses = match history {
            History::All => None,
            History::Joined => Some(self.witnesses(conv, &ledger.state, sequence)?),
        };
        let audience =
            Audience { conversation: &ledger.state, joiner: None, only: witnesses.as_deref() };
        let batch = self.post(Batch::new(), event, &audience, ledger, &[]);
        let (of_all, of_it) = (names::changes_ledger(conv), names::message_ledger(conv, sequence));
        // The record of a change does not expire: copies of the message may outlive the original.
        let batch = batch
            .lifetime(None)
            .fan_out(&record, [(&self.state, of_all.as_slice()), (&self.state, of_it.as_slice())])
            .if_last_of(&self.state, &of_all, newest.last);
        self.change_bodies(batch, wanted, content)
    }

    /// The members who may see a message.
    fn witnesses(
        &self,
        conv: &Bytes,
        conversation: &Conversation,
        sequence: Sequence,
    ) -> Result<Vec<Bytes>> {
        let mut witnesses = Vec::new();
        for member in conversation.members() {
            let sees = self.users.read(&names::user_ledger(member), |ledger| {
                Ok(ledger
                    .state
                    .membership(conv)
                    .is_some_and(|membership| membership.may_see(sequence)))
            });
            match sees {
                Ok(true) => witnesses.push(member.clone()),
                // A member whose rights cannot be read is shown nothing. A sync of that user is
                // refused until its ledger is rebuilt.
                Ok(false) => {}
                Err(trouble) if trouble.is_damage() => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(witnesses)
    }

    /// Removes the bodies that a change replaces: that of the message, and that of the edit before.
    fn change_bodies(
        &self,
        batch: Batch,
        wanted: &RequestedChange<'_>,
        content: &Content,
    ) -> Result<Batch> {
        let RequestedChange { conv, user, sequence, kind, body } = *wanted;
        let edited = content.became.as_ref().map_or(0, |became| became.edited);
        let (kind, about) = match kind {
            Kind::Edit => (Kind::Message, edited + 1),
            _ => (Kind::Recall, 0),
        };
        let now = Event { sequence, kind, about, body: body.clone(), ..content.message.clone() };
        let mut batch = batch;
        if content.is_in_place || content.copy.is_some() {
            batch = self.rewrite(batch, (user, content.copy.as_ref()), &now)?;
        }
        let Some((edit, _)) = content.became.as_ref().and_then(|became| became.edit) else {
            return Ok(batch);
        };
        // An edit that cannot be read shows no body.
        Ok(match self.stored_at(&names::conversation(conv), edit)? {
            Some((_, before)) => {
                let emptied = Event { body: Bytes::new(), ..before };
                self.rewrite(batch, (user, None), &emptied)?
            }
            None => batch,
        })
    }
}
