//! What a conversation's ledger says: how it was made, and who is a member, and was when.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::event::{Event, HISTORY_JOINED, Kind, PULLS, Parts, put_name, put_number};
use super::ledger::{State, list_records};
use super::periods::Periods;

/// How messages reach members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Push up to the threshold, pull above.
    #[default]
    Auto = 1,
    /// A copy in each member's sync timeline.
    Push = 2,
    /// Members read the conversation's timeline.
    Pull = 3,
}

/// What a member sees of the time before it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum History {
    /// Everything.
    #[default]
    All = 1,
    /// Only its own periods.
    Joined = 2,
}

impl Mode {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Push => "push",
            Mode::Pull => "pull",
        }
    }
}

impl History {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            History::All => "all",
            History::Joined => "joined",
        }
    }

    /// Its flag in events.
    pub fn flag(self) -> u8 {
        if self == History::Joined { HISTORY_JOINED } else { 0 }
    }

    /// What an event's flags say.
    pub fn of_flags(flags: u8) -> History {
        if flags & HISTORY_JOINED != 0 { History::Joined } else { History::All }
    }
}

/// How a conversation was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How messages reach members.
    pub mode: Mode,
    /// What new members see.
    pub history: History,
    /// Stands for the sorted list of its first members.
    pub founders: u64,
    /// When.
    pub created_ms: TimeMs,
}

/// A conversation.
#[derive(Debug, Default)]
pub struct Conversation {
    /// `None`: there is none of that name.
    pub settings: Option<Settings>,
    /// Whether members must look into its timeline for what they lack.
    pub pulls: bool,
    members: BTreeMap<Bytes, Periods>,
    member_count: usize,
    bytes: usize,
}

impl Conversation {
    /// Whether a user is a member now.
    pub fn has(&self, user: &[u8]) -> bool {
        self.members.get(user).is_some_and(Periods::is_member)
    }

    /// How many members it has now.
    pub fn member_count(&self) -> usize {
        self.member_count
    }

    /// Its members now, in byte order.
    pub fn members(&self) -> impl Iterator<Item = &Bytes> {
        self.members.iter().filter(|(_, periods)| periods.is_member()).map(|(user, _)| user)
    }

    /// Its members now behind one, in byte order.
    pub fn members_after<'a>(&'a self, after: &Bytes) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let bounds = (std::ops::Bound::Excluded(after.clone()), std::ops::Bound::Unbounded);
        self.members.range(bounds).filter(|(_, periods)| periods.is_member()).map(|(user, _)| user)
    }

    fn change(&mut self, user: &Bytes, change: impl FnOnce(&mut Periods)) {
        let bytes = &mut self.bytes;
        let periods = self.members.entry(user.clone()).or_insert_with(|| {
            *bytes += user.len() + 120;
            Periods::default()
        });
        let before = periods.is_member();
        change(periods);
        match (before, periods.is_member()) {
            (false, true) => self.member_count += 1,
            (true, false) => self.member_count -= 1,
            _ => {}
        }
    }

    fn created(&mut self, record: &Event, time_ms: TimeMs) -> Option<()> {
        let mut parts = Parts::new(&record.body);
        let mode = match parts.byte()? {
            1 => Mode::Auto,
            2 => Mode::Push,
            3 => Mode::Pull,
            _ => return None,
        };
        let founders = parts.number()?;
        let created_ms = if record.about == 0 { time_ms } else { record.about };
        let history = History::of_flags(record.flags);
        self.settings = Some(Settings { mode, history, founders, created_ms });
        self.pulls = record.flags & PULLS != 0;
        Some(())
    }

    fn listed(&mut self, list: &Bytes) -> Option<()> {
        let mut parts = Parts::new(list);
        while !parts.is_empty() {
            // An own copy: a slice would keep the whole list alive.
            let user = Bytes::copy_from_slice(&parts.name()?);
            let listed = Periods::decode(&mut parts)?;
            self.change(&user, |periods| *periods = listed);
        }
        Some(())
    }
}

/// The record of how a conversation was made.
pub fn created_record(conv: &Bytes, settings: &Settings, pulls: bool) -> Event {
    let mut body = vec![settings.mode as u8];
    put_number(&mut body, settings.founders);
    let flags = settings.history.flag() | if pulls { PULLS } else { 0 };
    Event {
        flags,
        about: settings.created_ms,
        body: body.into(),
        ..Event::new(Kind::Created, conv, &Bytes::new())
    }
}

/// Records that list members with their periods.
pub fn member_records<'a>(members: impl Iterator<Item = (&'a Bytes, &'a Periods)>) -> Vec<Event> {
    list_records(Kind::Members, members, |(user, periods), list| {
        put_name(list, user);
        periods.encode(list);
    })
}

impl State for Conversation {
    fn apply(&mut self, record: &Event, time_ms: TimeMs) -> bool {
        let sequence: Sequence = record.sequence;
        let user = Bytes::copy_from_slice(&record.user);
        match record.kind {
            Kind::Created => return self.created(record, time_ms).is_some(),
            Kind::Members => return self.listed(&record.body).is_some(),
            Kind::Join => self.change(&user, |periods| periods.begin(sequence)),
            Kind::Leave => self.change(&user, |periods| periods.end(sequence)),
            Kind::Pulls => self.pulls = true,
            _ => return false,
        }
        true
    }

    fn records(&self) -> Vec<Event> {
        let settings = self.settings.iter();
        let created = settings.map(|settings| created_record(&Bytes::new(), settings, self.pulls));
        created.chain(member_records(self.members.iter())).collect()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        self.members.len()
    }
}
