//! The state of a conversation's ledger: its settings, its members, and the users who left last,
//! since their sync timelines may have the last copy of an event. The periods of membership are in
//! the users' ledgers.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::OnceLock;

use bytes::Bytes;
use strandline::{TargetList, TimeMs};

use super::event::{Event, HISTORY_JOINED, Kind, PULLS, Parts, put_name, put_number};
use super::ledger::{State, list_records};

/// The number of former members that are remembered.
const MOST_FORMER: usize = 16;

/// How events reach members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Push up to `push_members` members, pull above.
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
    /// Everything, also from before it joined.
    #[default]
    All = 1,
    /// Only the periods in which it is a member.
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

    /// The flag in events.
    pub fn flag(self) -> u8 {
        if self == History::Joined { HISTORY_JOINED } else { 0 }
    }

    /// The history that the flags of an event state.
    pub fn of_flags(flags: u8) -> History {
        if flags & HISTORY_JOINED != 0 { History::Joined } else { History::All }
    }
}

/// The settings of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How events reach members.
    pub mode: Mode,
    /// What members see of the time before they joined.
    pub history: History,
    /// A digest of the sorted list of its first members.
    pub founders: u64,
    /// When it was created.
    pub created_ms: TimeMs,
}

/// A conversation.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// `None`: there is no conversation of that name.
    pub settings: Option<Settings>,
    /// Whether members must read its timeline for events that are not pushed.
    pub pulls: bool,
    members: BTreeSet<Bytes>,
    former: VecDeque<Bytes>,
    /// The sync timelines of the members, once they were needed.
    inboxes: OnceLock<TargetList>,
    bytes: usize,
}

impl Conversation {
    /// Whether a user is a member.
    pub fn has(&self, user: &[u8]) -> bool {
        self.members.contains(user)
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Its members, in byte order.
    pub fn members(&self) -> impl Iterator<Item = &Bytes> {
        self.members.iter()
    }

    /// Its members after one, in byte order.
    pub fn members_after<'a>(&'a self, after: &Bytes) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        self.members.range((Bound::Excluded(after.clone()), Bound::Unbounded))
    }

    /// The sync timelines of the members as a list, which `make` makes if the members have changed.
    pub fn inboxes<E>(
        &self,
        make: impl FnOnce() -> Result<TargetList, E>,
    ) -> Result<&TargetList, E> {
        if let Some(list) = self.inboxes.get() {
            return Ok(list);
        }
        let list = make()?;
        Ok(self.inboxes.get_or_init(|| list))
    }

    /// The users who left last, the latest first.
    pub fn former(&self) -> impl Iterator<Item = &Bytes> {
        self.former.iter().rev()
    }

    /// Copies the user: a slice would keep the whole record alive.
    fn add(&mut self, user: &[u8]) {
        if let Some(at) = self.former.iter().position(|former| former == user) {
            self.former.remove(at);
            self.bytes -= member_bytes(user);
        }
        if self.members.insert(Bytes::copy_from_slice(user)) {
            self.inboxes.take();
            self.bytes += member_bytes(user);
        }
    }

    /// Adds first: a snapshot has leave records of users who are not members in it.
    fn remove(&mut self, user: &[u8]) {
        self.add(user);
        self.inboxes.take();
        self.former.extend(self.members.take(user));
        if self.former.len() > MOST_FORMER {
            let forgotten = self.former.pop_front();
            self.bytes -= forgotten.map_or(0, |user| member_bytes(&user));
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
            self.add(&parts.name()?);
        }
        Some(())
    }
}

/// The memory that a member takes, in bytes, with its part of the list of sync timelines.
fn member_bytes(user: &[u8]) -> usize {
    2 * user.len() + 120
}

/// The record of a conversation's creation.
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

/// Records that list members.
pub fn member_records<'a>(members: impl Iterator<Item = &'a Bytes>) -> Vec<Event> {
    list_records(Kind::Members, members, |user, list| put_name(list, user))
}

impl State for Conversation {
    fn apply(&mut self, record: &Event, time_ms: TimeMs) -> bool {
        match record.kind {
            Kind::Created => return self.created(record, time_ms).is_some(),
            Kind::Members => return self.listed(&record.body).is_some(),
            Kind::Join => self.add(&record.user),
            Kind::Leave => self.remove(&record.user),
            Kind::Pulls => self.pulls = true,
            _ => return false,
        }
        true
    }

    fn records(&self) -> Vec<Event> {
        let settings = self.settings.iter();
        let created = settings.map(|settings| created_record(&Bytes::new(), settings, self.pulls));
        let left = |user: &Bytes| Event::new(Kind::Leave, &Bytes::new(), user);
        let former = self.former.iter().map(left);
        created.chain(member_records(self.members.iter())).chain(former).collect()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_members_take_the_memory_of_a_few() {
        let (mut conversation, conv) = (Conversation::default(), Bytes::from_static(b"c"));
        let mut happens = |kind, user: &str| {
            let record = Event::new(kind, &conv, &Bytes::copy_from_slice(user.as_bytes()));
            assert!(conversation.apply(&record, 0));
            (conversation.count(), conversation.bytes())
        };
        let (_, alone) = happens(Kind::Join, "ann");
        let few = alone + MOST_FORMER * member_bytes(b"user-999");
        for number in (0..1000).chain((0..1000).rev()) {
            assert_eq!(happens(Kind::Join, &format!("user-{number}")).0, 2);
            let (count, bytes) = happens(Kind::Leave, &format!("user-{number}"));
            assert!(count == 1 && bytes <= few, "{count} members in {bytes} bytes after {number}");
        }
        let again =
            conversation.records().iter().fold(Conversation::default(), |mut again, record| {
                assert!(again.apply(record, 0));
                again
            });
        assert!(again.former().eq(conversation.former()), "a snapshot has them all");
        assert_eq!(again.bytes(), conversation.bytes());
        for number in 0..1000 {
            conversation.add(format!("user-{number}").as_bytes());
        }
        assert_eq!(conversation.former().count(), 0, "who is back");
    }
}
