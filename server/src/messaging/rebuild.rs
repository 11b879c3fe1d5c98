//! Rebuilds lost ledgers from what is left (P5): both copies were damaged, or a salvage could not
//! save them.
//!
//! ```text
//!  a conversation's members   from the ledgers of its members; from its own joins, leaves and
//!                             senders; from the users who got copies of its events
//!  a user's conversations     from the records that can be read; for conversations that these do
//!                             not name, from the same sources
//! ```
//!
//! A ledger is lost if a record of it cannot be read or is missing, or if it does not exist
//! although its timeline has events. Not recovered are: the mode (it becomes auto), the read marks
//! and hidden messages of lost records, and first members of a pulled conversation who never sent
//! anything.
//!
//! 1. Each lost ledger of a user is replaced by what can be read of it. Ledgers of changes are
//!    rebuilt from the edits and recalls.
//! 2. For each conversation its story is read, and users get the records that they lack.
//! 3. The conversation's ledger is written last: after an interruption all this is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use strandline::{Batch, Entry, Error, Limit, MAX_SEQUENCE, Store, Trim};

use super::around::{Piece, Scan, none_if_hidden};
use super::conversation::{Mode, Settings, created_record, member_records};
use super::event::{Event, Kind};
use super::ledger::State;
use super::story::{Copied, Story};
use super::trouble::{Result, Trouble};
use super::user::{Membership, User};
use super::{Messaging, lines, names};

/// Entries read at a time.
const PAGE: Limit =
    Limit { entries: 1024, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: true };

/// Names listed at a time, and users written at a time.
const NAMES: usize = 1000;

/// The number of timelines that a start reads to learn whether there are events. Timelines with
/// such names may have other entries, if clients use them without messaging.
const LOOKED_AT: usize = 100;

/// The ledgers that are not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostLedgers {
    /// Conversations whose members and settings are not known.
    pub conversations: Vec<Bytes>,
    /// Conversations of which not all edits and recalls are known.
    pub changes: Vec<Bytes>,
    /// Users whose conversations, read marks and hidden messages are not all known.
    pub users: Vec<Bytes>,
}

/// A conversation whose members were rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The conversation.
    pub conv: Bytes,
    /// The number of members now.
    pub members: usize,
    /// Some of its events cannot be read: members may be missing, or former members may be listed.
    pub is_uncertain: bool,
}

impl Messaging {
    /// The ledgers that are lost. Reads all of them.
    pub fn lost_ledgers(&self) -> Result<LostLedgers> {
        let mut lost = LostLedgers::default();
        let mut convs: BTreeSet<Bytes> = ids(&self.messages, b"c/{", b"}")?;
        convs.extend(ids(&self.state, b"c/", b"")?);
        for conv in convs {
            if !self.has_all_changes(&conv)? {
                lost.changes.push(conv.clone());
            }
            let known = self.conversations.snapshot(&names::conversation_ledger(&conv));
            let known = known.map(|ledger| ledger.state.settings.is_some());
            if is_lost(known, || has_events(&self.messages, &conv, usize::MAX))? {
                lost.conversations.push(conv);
            }
        }
        let mut users: BTreeSet<Bytes> = ids(&self.sync, b"u/{", b"}")?;
        users.extend(ids(&self.state, b"u/", b"")?);
        for user in users {
            let known = self.users.snapshot(&names::user_ledger(&user));
            if is_lost(known.map(|ledger| ledger.version > 0), || {
                has_copies(&self.sync, &user, usize::MAX)
            })? {
                lost.users.push(user);
            }
        }
        Ok(lost)
    }

    /// Rebuilds the lost ledgers, and reports each conversation. Waits for the disk. Nothing else
    /// may use the engine.
    pub fn rebuild(&self, mut report: impl FnMut(&Rebuilt)) -> Result<LostLedgers> {
        let lost = self.lost_ledgers()?;
        for user in &lost.users {
            self.keep_readable(&names::user_ledger(user))?;
        }
        // If a conversation's own ledger is lost, its ledger of changes may be lost without a
        // trace.
        for conv in lost.changes.iter().chain(&lost.conversations).collect::<BTreeSet<_>>() {
            self.rebuild_changes(conv)?;
        }
        if !lost.conversations.is_empty() {
            // If ledgers are lost, lines may be lost too.
            lines::start_again(&self.engine, &self.pulled)?;
        }
        let lost_convs: BTreeSet<&Bytes> = lost.conversations.iter().collect();
        let convs = self.concerned(&lost)?;
        let mut copies = self.copies_by_conversation(&convs)?;
        let lost_users: BTreeSet<&Bytes> = lost.users.iter().collect();
        let claims = self.claims(&convs)?;
        for conv in &convs {
            let mut story = self.story(conv, copies.remove(conv).unwrap_or_default())?;
            if !lost_convs.contains(conv) {
                let ledger = self.conversations.snapshot(&names::conversation_ledger(conv))?;
                if ledger.state.settings.is_none() {
                    // Not a conversation: a client appended to the timeline directly.
                    continue;
                }
                let members = lost.users.iter().filter(|user| ledger.state.has(user));
                members.for_each(|user| story.was_there(user, 1));
            }
            let mut memberships: BTreeMap<Bytes, Membership> =
                story.memberships().map(|(user, membership)| (user.clone(), membership)).collect();
            for (user, claim) in claims.get(conv).into_iter().flatten() {
                let recorded = memberships.remove(user);
                let known = if lost_users.contains(user) {
                    completed(claim, recorded, story.is_whole())
                } else {
                    claim.clone()
                };
                memberships.insert(user.clone(), known);
            }
            if !lost_convs.contains(conv) {
                memberships.retain(|user, _| lost_users.contains(user));
            }
            self.add_to_users(conv, &memberships)?;
            if lost_convs.contains(conv) {
                let members: Vec<&Bytes> = memberships
                    .iter()
                    .filter(|(_, membership)| membership.periods.is_member())
                    .map(|(user, _)| user)
                    .collect();
                self.write_conversation(conv, &story, &members)?;
                let rebuilt = Rebuilt {
                    conv: conv.clone(),
                    members: members.len(),
                    is_uncertain: story.is_damaged,
                };
                report(&rebuilt);
            }
        }
        self.are_ledgers_lost.store(false, Ordering::Relaxed);
        Ok(lost)
    }

    /// The conversations of which something may be lost. A user whose ledger is lost may have been
    /// in any conversation.
    fn concerned(&self, lost: &LostLedgers) -> Result<BTreeSet<Bytes>> {
        let mut convs: BTreeSet<Bytes> = lost.conversations.iter().cloned().collect();
        if !lost.users.is_empty() {
            convs.extend(ids(&self.messages, b"c/{", b"}")?);
            convs.extend(ids(&self.state, b"c/", b"")?);
        }
        Ok(convs)
    }

    /// Step 1 of the heading: replaces a user's ledger by the records that can be read.
    fn keep_readable(&self, name: &[u8]) -> Result<()> {
        let mut user = User::default();
        let mut scan = Scan::new(&self.state, name, (1, MAX_SEQUENCE), false, PAGE);
        while let Some(pieces) = scan.next_page()? {
            for entry in pieces.iter().filter_map(Piece::entry) {
                match Event::decode(&entry.body) {
                    Some(record) if record.kind == Kind::Reset => user = User::default(),
                    Some(record) => drop(user.apply(&record, entry.time_ms)),
                    None => {}
                }
            }
        }
        self.replace(name, &user.records())
    }

    /// Rebuilds a conversation's ledgers of changes from these ledgers and from the edits and
    /// recalls, as far as they can be read.
    fn rebuild_changes(&self, conv: &Bytes) -> Result<()> {
        let timeline = names::conversation(conv);
        let mut events = Vec::new();
        let mut scan = Scan::new(&self.messages, &timeline, (1, MAX_SEQUENCE), false, PAGE);
        while let Some(pieces) = scan.next_page()? {
            for entry in pieces.iter().filter_map(Piece::entry) {
                let change = Event::for_members(&entry.body).filter(Event::is_change);
                events.extend(
                    change.map(|change| (Event { body: Bytes::new(), ..change }, entry.time_ms)),
                );
            }
        }
        let (mut changes, _) = Messaging::changes_of(events.into_iter());
        for (sequence, known) in self.changed_messages(conv)? {
            if changes.get(&sequence).is_none_or(|change| change.sequence <= known.sequence) {
                changes.insert(sequence, known);
            }
        }
        if changes.is_empty() && self.state.end(names::changes_ledger(conv))?.0 == 0 {
            return Ok(());
        }
        self.write_changes(conv, &changes)
    }

    /// Replaces the records of a ledger.
    fn replace(&self, name: &[u8], records: &[Event]) -> Result<()> {
        let (last, _) = self.state.end(name)?;
        let reset = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new());
        let batch = std::iter::once(&reset)
            .chain(records)
            .fold(Batch::new(), |batch, record| batch.append(&self.state, name, record.encode()));
        self.engine.commit(batch.if_last_of(&self.state, name, last))?;
        self.state.trim(name, Trim::Before(last + 1))?;
        Ok(())
    }

    /// The memberships in these conversations, according to the users' ledgers.
    fn claims(&self, convs: &BTreeSet<Bytes>) -> Result<BTreeMap<Bytes, Vec<(Bytes, Membership)>>> {
        let mut claims: BTreeMap<Bytes, Vec<(Bytes, Membership)>> = BTreeMap::new();
        if convs.is_empty() {
            return Ok(claims);
        }
        for user in ids(&self.state, b"u/", b"")? {
            let ledger = self.users.snapshot(&names::user_ledger(&user))?;
            for (conv, membership) in ledger.state.all().filter(|(conv, _)| convs.contains(*conv)) {
                claims.entry(conv.clone()).or_default().push((user.clone(), membership.clone()));
            }
        }
        Ok(claims)
    }

    /// The copies of these conversations in the users' sync timelines.
    fn copies_by_conversation(
        &self,
        convs: &BTreeSet<Bytes>,
    ) -> Result<BTreeMap<Bytes, BTreeMap<Bytes, Copied>>> {
        let mut copies: BTreeMap<Bytes, BTreeMap<Bytes, Copied>> = BTreeMap::new();
        if convs.is_empty() {
            return Ok(copies);
        }
        for user in ids(&self.sync, b"u/{", b"}")? {
            let name = names::inbox(&user);
            let mut scan = Scan::new(&self.sync, &name, (1, MAX_SEQUENCE), false, PAGE);
            while let Some(pieces) = scan.next_page()? {
                for entry in pieces.iter().filter_map(Piece::entry) {
                    let Some(event) = Event::for_members(&entry.body) else { continue };
                    let Some(conv) = convs.get(&event.conv) else { continue };
                    let of_conv = copies.entry(conv.clone()).or_default();
                    of_conv.entry(user.clone()).or_default().add(&user, &event, entry.time_ms);
                }
            }
        }
        Ok(copies)
    }

    fn story(&self, conv: &Bytes, copies: BTreeMap<Bytes, Copied>) -> Result<Story> {
        let (mut story, name) = (Story::default(), names::conversation(conv));
        let mut scan = Scan::new(&self.messages, &name, (1, MAX_SEQUENCE), false, PAGE);
        while let Some(pieces) = scan.next_page()? {
            for piece in pieces {
                let Piece::Whole(entry) = piece else {
                    story.is_damaged = true;
                    continue;
                };
                if let Some(event) =
                    Event::for_members(&entry.body).filter(|event| event.conv == *conv)
                {
                    story.add(&event, entry.time_ms);
                }
            }
        }
        for (user, copies) in copies {
            story.got_copies(&user, &copies);
        }
        Ok(story)
    }

    /// Step 2 of the heading: appends the memberships that differ to the users' ledgers.
    fn add_to_users(&self, conv: &Bytes, memberships: &BTreeMap<Bytes, Membership>) -> Result<()> {
        let users: Vec<(&Bytes, &Membership)> = memberships.iter().collect();
        for some in users.chunks(NAMES) {
            let mut batch = Batch::new();
            let mut is_empty = true;
            for (user, membership) in some {
                let name = names::user_ledger(user);
                let ledger = self.users.snapshot(&name)?;
                if ledger.state.membership(conv) == Some(*membership) {
                    continue;
                }
                let mut added = User::default();
                added.put(conv, (*membership).clone());
                for record in added.records() {
                    batch = batch.append(&self.state, &name, record.encode());
                    is_empty = false;
                }
            }
            if !is_empty {
                self.engine.commit(batch)?;
            }
        }
        Ok(())
    }

    /// Step 3 of the heading.
    fn write_conversation(&self, conv: &Bytes, story: &Story, members: &[&Bytes]) -> Result<()> {
        let founders = names::founders_digest(&story.founders());
        let settings = Settings {
            mode: Mode::default(),
            history: story.history,
            founders,
            created_ms: story.created_ms,
        };
        let created = created_record(conv, &settings, story.pulls_from.is_some());
        let records: Vec<Event> =
            std::iter::once(created).chain(member_records(members.iter().copied())).collect();
        self.replace(&names::conversation_ledger(conv), &records)
    }
}

/// Whether a ledger is lost: it cannot be read, or does not exist although its timeline has events.
fn is_lost(is_known: Result<bool>, has_events: impl FnOnce() -> Result<bool>) -> Result<bool> {
    match is_known {
        Ok(true) => Ok(false),
        Ok(false) => has_events(),
        Err(trouble) if trouble.is_damage() => Ok(true),
        Err(trouble) => Err(trouble),
    }
}

/// Whether a conversation's timeline has events of its own. Entries that a client appended directly
/// do not count.
fn has_events(messages: &Store, conv: &Bytes, pages: usize) -> Result<bool> {
    let is_own =
        |entry: &Entry, event: &Event| event.conv == *conv && event.sequence == entry.sequence;
    has(messages, &names::conversation(conv), pages, is_own)
}

/// Whether a user's sync timeline has copies of events.
fn has_copies(sync: &Store, user: &Bytes, pages: usize) -> Result<bool> {
    has(sync, &names::inbox(user), pages, |_, event| names::valid(&event.conv).is_ok())
}

/// Whether the first pages of a timeline have such events, or a piece that cannot be read and may
/// be one.
fn has(
    store: &Store,
    timeline: &[u8],
    pages: usize,
    is_such: impl Fn(&Entry, &Event) -> bool,
) -> Result<bool> {
    let may_be = |piece: &Piece| {
        let Some(entry) = piece.entry() else { return true };
        Event::for_members(&entry.body).is_some_and(|event| is_such(entry, &event))
    };
    let mut scan = Scan::new(store, timeline, (1, MAX_SEQUENCE), false, PAGE);
    for _ in 0..pages {
        let Some(pieces) = scan.next_page()? else { break };
        if pieces.iter().any(may_be) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there are events and no ledgers at all, as after an import without them, or after a
/// salvage that did not know the names of stores.
pub fn are_all_lost([state, messages, sync]: [&Store; 3]) -> std::result::Result<bool, Error> {
    let found = || -> Result<bool> {
        if !state.list(b"c/", None, 1)?.is_empty() || !state.list(b"u/", None, 1)?.is_empty() {
            return Ok(false);
        }
        for conv in some_ids(messages.list(b"c/{", None, LOOKED_AT)?, b"c/{", b"}") {
            if has_events(messages, &conv, 1)? {
                return Ok(true);
            }
        }
        for user in some_ids(sync.list(b"u/{", None, LOOKED_AT)?, b"u/{", b"}") {
            if has_copies(sync, &user, 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match found() {
        Ok(are_lost) => Ok(are_lost),
        // Each command that needs a damaged ledger is refused with its name.
        Err(trouble) if trouble.is_damage() => Ok(false),
        Err(Trouble::Engine(error)) => Err(error),
        Err(other) => Err(Error::invalid(other.to_string())),
    }
}

/// A membership of a user whose records may be lost: the marks of its own ledger, and the periods
/// according to the conversation, unless the conversation is not complete either.
fn completed(claim: &Membership, recorded: Option<Membership>, is_whole: bool) -> Membership {
    match recorded {
        Some(recorded) if is_whole || !claim.periods.is_known() => Membership {
            read: claim.read,
            hidden: claim.hidden.clone(),
            pulls_from: recorded.pulls_from.or(claim.pulls_from),
            ..recorded
        },
        _ => claim.clone(),
    }
}

/// The ids in the names of a store's timelines.
fn ids(store: &Store, head: &[u8], tail: &[u8]) -> Result<BTreeSet<Bytes>> {
    let mut ids = BTreeSet::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let Some(listed) = none_if_hidden(store.list(head, after.as_deref(), NAMES))? else {
            tracing::warn!(
                store = store.name(),
                "damage hides names of timelines: their entries are left out"
            );
            return Ok(ids);
        };
        after = listed.last().cloned();
        ids.extend(some_ids(listed, head, tail));
        if after.is_none() {
            return Ok(ids);
        }
    }
}

/// The ids in names of timelines.
fn some_ids(names: Vec<Vec<u8>>, head: &[u8], tail: &[u8]) -> impl Iterator<Item = Bytes> {
    names
        .into_iter()
        .filter_map(move |name| names::valid(name.strip_prefix(head)?.strip_suffix(tail)?).ok())
}
