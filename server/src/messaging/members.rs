//! Creating conversations, joining and leaving them, and listing their members.
//!
//! A join or a leave is an event of the conversation, like a message. The same frame is in the
//! conversation's ledger and in the user's ledger, so periods begin and end at exactly its
//! sequence.

use bytes::Bytes;
use strandline::{Batch, Limit, Sequence, Store, TimeMs};

use super::conversation::{Conversation, History, Mode, Settings, created_record, member_records};
use super::decision::Decision;
use super::event::{Event, Kind, PULLS};
use super::ledger::Ledger;
use super::send::Audience;
use super::trouble::{Result, Trouble};
use super::{Messaging, names, valid_once};

/// The requested settings and members of a conversation.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// How events reach members.
    pub mode: Mode,
    /// What members see of the time before they joined.
    pub history: History,
    /// The first members.
    pub members: Vec<Bytes>,
}

/// The facts of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The number of members now.
    pub members: usize,
    /// How events reach members.
    pub mode: Mode,
    /// What members see of the time before they joined.
    pub history: History,
    /// The lowest sequence that can be read; `last + 1` if there is none.
    pub first: Sequence,
    /// The highest sequence.
    pub last: Sequence,
    /// When it was created.
    pub created_ms: TimeMs,
}

/// A change of membership.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    Join,
    Leave,
}

impl Messaging {
    /// Creates a conversation. False if it was created before with the same settings. Waits for the
    /// disk.
    pub fn create(&self, conv: &[u8], new: &NewConversation) -> Result<bool> {
        let mut members = valid_once(&new.members)?;
        let conv = names::valid(conv)?;
        if members.len() > self.options.max_members {
            return Err(Trouble::TooManyMembers { limit: self.options.max_members });
        }
        members.sort();
        let founders = names::founders_digest(&members);
        let ledger_name = names::conversation_ledger(&conv);
        let decide = || {
            self.conversations.read(&ledger_name, |ledger| {
                if let Some(known) = &ledger.state.settings {
                    let same = (known.mode, known.history, known.founders)
                        == (new.mode, new.history, founders);
                    return if same {
                        Ok(Decision::Known(false))
                    } else {
                        Err(Trouble::OtherSettings)
                    };
                }
                let batch = self.creation(&conv, new, founders, &members)?;
                let batch = batch.if_last_of(&self.state, &ledger_name, ledger.version);
                Ok(Decision::on(&conv, ledger.version, batch))
            })
        };
        self.settle(decide, |_| true)
    }

    fn creation(
        &self,
        conv: &Bytes,
        new: &NewConversation,
        founders: u64,
        members: &[Bytes],
    ) -> Result<Batch> {
        // The timeline may have entries already, if a client appended to it directly.
        let (last, _) = self.messages.end(names::conversation(conv))?;
        self.check_ledgers(&names::conversation_ledger(conv))?;
        let pulls = match new.mode {
            Mode::Push => false,
            Mode::Pull => true,
            Mode::Auto => members.len() > self.options.push_members,
        };
        let settings = Settings { mode: new.mode, history: new.history, founders, created_ms: 0 };
        let lists = member_records(members.iter());
        let name = names::conversation_ledger(conv);
        let records = [created_record(conv, &settings, pulls)].into_iter().chain(lists);
        let batch = records
            .fold(Batch::new(), |batch, record| batch.append(&self.state, &name, record.encode()));
        let added = Event {
            sequence: last + 1,
            flags: new.history.flag() | if pulls { PULLS } else { 0 },
            ..Event::new(Kind::Added, conv, &Bytes::new())
        };
        let ledgers: Vec<Vec<u8>> = members.iter().map(|user| names::user_ledger(user)).collect();
        Ok(batch.fan_out(added.encode(), ledgers.iter().map(|name| (&self.state, name.as_slice()))))
    }

    /// Makes users members. Returns how many were not members before. Each is decided and committed
    /// separately, in this order. Waits for the disk.
    pub fn join(&self, conv: &[u8], users: &[Bytes]) -> Result<usize> {
        self.moves(conv, users, Move::Join)
    }

    /// Ends memberships. Returns how many there were. Waits for the disk.
    pub fn leave(&self, conv: &[u8], users: &[Bytes]) -> Result<usize> {
        self.moves(conv, users, Move::Leave)
    }

    fn moves(&self, conv: &[u8], users: &[Bytes], way: Move) -> Result<usize> {
        let conv = names::valid(conv)?;
        let limit = self.options.max_members;
        let users = self.conversation(&conv, |ledger| {
            let users = valid_once(users)?;
            // Checked before the first user joins: a command that cannot do everything does
            // nothing.
            let joining =
                users.iter().filter(|user| way == Move::Join && !ledger.state.has(user)).count();
            let fits = joining == 0 || ledger.state.member_count() + joining <= limit;
            if fits { Ok(users) } else { Err(Trouble::TooManyMembers { limit }) }
        })?;
        let mut count = 0;
        for user in users {
            let turn = self.turn(&conv).lock();
            let decide = || self.conversation(&conv, |ledger| self.step(&conv, &user, way, ledger));
            let moved = self.settle(decide, |_| true)?;
            drop(turn);
            count += usize::from(moved);
            self.users.shorten(&self.engine, &names::user_ledger(&user));
        }
        self.conversations.shorten(&self.engine, &names::conversation_ledger(&conv));
        Ok(count)
    }

    fn step(
        &self,
        conv: &Bytes,
        user: &Bytes,
        way: Move,
        ledger: &Ledger<Conversation>,
    ) -> Result<Decision<bool>> {
        let conversation = &ledger.state;
        let Some(settings) = &conversation.settings else { return Err(Trouble::NotFound) };
        if conversation.has(user) == (way == Move::Join) {
            return Ok(Decision::Known(false));
        }
        let limit = self.options.max_members;
        if way == Move::Join && conversation.member_count() >= limit {
            return Err(Trouble::TooManyMembers { limit });
        }
        let kind = if way == Move::Join { Kind::Join } else { Kind::Leave };
        let event = Event {
            flags: settings.history.flag(),
            about: settings.created_ms,
            ..Event::new(kind, conv, user)
        };
        let audience =
            Audience { conversation, joiner: (way == Move::Join).then_some(user), only: None };
        let also: [(&Store, Vec<u8>); 2] = [
            (&self.state, names::conversation_ledger(conv)),
            (&self.state, names::user_ledger(user)),
        ];
        let batch = self.post(Batch::new(), event, &audience, ledger, &also);
        Ok(Decision::on(conv, ledger.version, batch))
    }

    /// Refuses a user who is not a member of a conversation now. There is no other answer for a
    /// conversation that does not exist, so that this cannot be found out.
    pub fn check_member(&self, conv: &[u8], user: &[u8]) -> Result<()> {
        let is_member =
            self.conversation(&names::valid(conv)?, |ledger| Ok(ledger.state.has(user)));
        match is_member {
            Ok(true) => Ok(()),
            Ok(false) | Err(Trouble::NotFound) => Err(Trouble::NoPermission),
            Err(trouble) => Err(trouble),
        }
    }

    /// The members after a user, in byte order.
    pub fn members(&self, conv: &[u8], after: &[u8], count: usize) -> Result<Vec<Bytes>> {
        let after = Bytes::copy_from_slice(after);
        self.conversation(&names::valid(conv)?, |ledger| {
            Ok(ledger.state.members_after(&after).take(count).cloned().collect())
        })
    }

    /// The facts of a conversation.
    pub fn info(&self, conv: &[u8]) -> Result<Info> {
        let conv = names::valid(conv)?;
        self.conversation(&conv, |ledger| {
            let Some(settings) = &ledger.state.settings else { return Err(Trouble::NotFound) };
            let page = self.messages.read_after(
                names::conversation(&conv),
                0,
                Limit::NOTHING.around_damage(),
            )?;
            Ok(Info {
                members: ledger.state.member_count(),
                mode: settings.mode,
                history: settings.history,
                first: page.first,
                last: page.last,
                created_ms: settings.created_ms,
            })
        })
    }
}
