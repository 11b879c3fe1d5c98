//! What a command is: a row of the table, what it works with, and what may become of it. A command
//! is handed the table (COMMAND lists it), so the table's type is here, and its rows are in `table`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use strandline::{Batch, Receipt};
use tokio::time::Instant;

use super::arguments::positive;
use crate::connection::Connection;
use crate::key::Key;
use crate::messaging::Decision;
use crate::protocol::Encoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// What a command needs the permission for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection itself.
    Connection,
    /// Reading timelines.
    Read,
    /// Writing timelines.
    Write,
    /// Being pushed.
    PubSub,
    /// Running the server.
    Admin,
}

impl Class {
    /// The category, as COMMAND names it.
    pub fn word(self) -> &'static str {
        match self {
            Class::Connection => "@connection",
            Class::Read => "@read",
            Class::Write => "@write",
            Class::PubSub => "@pubsub",
            Class::Admin => "@admin",
        }
    }
}

/// Where the keys stand among a request's words, counted from the command's name. All zero: there
/// are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key.
    pub first: usize,
    /// The last key; negative: counted from the end. With `count_at`: of a request with one key.
    pub last: isize,
    /// From one key to the next.
    pub step: usize,
    /// Where the number of keys stands; 0 when it is not given.
    pub count_at: usize,
}

/// How a command is run. The words behind its name are handed over.
#[derive(Clone, Copy)]
pub enum Run {
    /// At once, in its turn.
    Now(fn(&mut Context<'_>, &[Bytes]) -> Result<Flow, Refusal>),
    /// As a batch, together with its neighbours.
    Write(fn(&Context<'_>, &[Bytes]) -> Result<Prepared, Refusal>),
}

/// One row.
pub struct Command {
    /// In capitals.
    pub name: &'static str,
    /// Number of words, the name included; negative: at least so many.
    pub arity: i32,
    /// The permission that it needs.
    pub class: Class,
    /// How it is run.
    pub run: Run,
    /// Where its keys stand.
    pub keys: Keys,
    /// The words behind the name.
    pub usage: &'static str,
    /// What it does and replies, in a line.
    pub summary: &'static str,
    /// Whether it may come before the password.
    pub before_login: bool,
    /// Whether it may come on a RESP2 connection that has subscriptions.
    pub while_subscribed: bool,
    /// Whether its reply may be large.
    pub reply: Reply,
}

/// Longest name of a command, with room for names to come.
pub const MAX_NAME_BYTES: usize = 32;

/// A part of the table, under a heading.
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// One word for COMMAND DOCS.
    pub word: &'static str,
    /// The rows.
    pub rows: &'static [&'static [Command]],
}

/// All rows.
pub struct CommandTable {
    groups: &'static [Group],
    by_name: HashMap<&'static [u8], (&'static Group, &'static Command)>,
}

impl CommandTable {
    /// The rows of these groups.
    pub fn new(groups: &'static [Group]) -> CommandTable {
        let mut table = CommandTable { groups, by_name: HashMap::new() };
        table.by_name =
            table.all().map(|(group, row)| (row.name.as_bytes(), (group, row))).collect();
        table
    }

    /// All rows with their groups, in the order in which they are shown.
    pub fn all(&self) -> impl Iterator<Item = (&'static Group, &'static Command)> + use<> {
        self.groups
            .iter()
            .flat_map(|group| group.rows.iter().copied().flatten().map(move |row| (group, row)))
    }

    /// The row of a name, in whatever case.
    pub fn find(&self, name: &[u8]) -> Option<&'static Command> {
        self.find_with_group(name).map(|(_, command)| command)
    }

    /// The row of a name with its group.
    pub fn find_with_group(&self, name: &[u8]) -> Option<(&'static Group, &'static Command)> {
        let mut capitals = [0; MAX_NAME_BYTES];
        let capitals = capitals.get_mut(..name.len())?;
        capitals.copy_from_slice(name);
        capitals.make_ascii_uppercase();
        self.by_name.get(&*capitals).copied()
    }
}

/// Whether a reply may be large: then it is made only while there is memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has no more bytes than its request, and a few hundred.
    Small,
    /// It may have many.
    Large,
    /// Only with this word behind the name.
    LargeWith(&'static str),
}

impl Command {
    /// A row without keys and usage.
    pub const fn new(name: &'static str, arity: i32, class: Class, run: Run) -> Command {
        Command {
            name,
            arity,
            class,
            run,
            keys: Keys { first: 0, last: 0, step: 0, count_at: 0 },
            usage: "",
            summary: "",
            before_login: false,
            while_subscribed: false,
            reply: if matches!(class, Class::Read) { Reply::Large } else { Reply::Small },
        }
    }

    /// With one key behind the name.
    #[must_use]
    pub const fn one_key(self) -> Command {
        Command { keys: Keys { first: 1, last: 1, step: 1, count_at: 0 }, ..self }
    }

    /// With keys from the first word to the last.
    #[must_use]
    pub const fn all_keys(self) -> Command {
        Command { keys: Keys { first: 1, last: -1, step: 1, count_at: 0 }, ..self }
    }

    /// With the number of keys at a word, and the keys behind it.
    #[must_use]
    pub const fn counted_keys(self, count_at: usize) -> Command {
        let first = count_at + 1;
        Command { keys: Keys { first, last: first.cast_signed(), step: 1, count_at }, ..self }
    }

    /// With its documentation.
    #[must_use]
    pub const fn told(self, usage: &'static str, summary: &'static str) -> Command {
        Command { usage, summary, ..self }
    }

    /// Allowed before login.
    #[must_use]
    pub const fn before_login(self) -> Command {
        Command { before_login: true, ..self }
    }

    /// Allowed on a RESP2 connection with subscriptions.
    #[must_use]
    pub const fn while_subscribed(self) -> Command {
        Command { while_subscribed: true, ..self }
    }

    /// With a reply that may be large.
    #[must_use]
    pub const fn replies(self, reply: Reply) -> Command {
        Command { reply, ..self }
    }

    /// The name as COMMAND and error texts show it.
    pub fn lower_name(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// Whether a request of so many words is possible.
    pub fn takes(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { words == arity } else { words >= arity }
    }

    /// The flags, as COMMAND names them.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = Vec::new();
        match self.class {
            Class::Write => flags.push("write"),
            Class::Read => flags.push("readonly"),
            Class::PubSub => flags.push("pubsub"),
            Class::Admin => flags.push("admin"),
            Class::Connection => {}
        }
        if self.keys.count_at > 0 {
            flags.push("movablekeys");
        }
        if self.before_login {
            flags.push("no_auth");
        }
        flags
    }

    /// The keys of a request.
    pub fn keys_of<'a>(&self, request: &'a [Bytes]) -> Result<Vec<&'a Bytes>, Refusal> {
        let Keys { first, last, step, count_at } = self.keys;
        if first == 0 {
            return Ok(Vec::new());
        }
        let end = if count_at > 0 {
            let count = request
                .get(count_at)
                .map_or_else(|| Err(Refusal::syntax()), |raw| positive(raw))?;
            let end = first.saturating_add(count as usize);
            if end > request.len() {
                return Err(Refusal::usage("Invalid arguments specified for command"));
            }
            end
        } else if last < 0 {
            request.len().saturating_add_signed(last + 1)
        } else {
            last.unsigned_abs() + 1
        };
        Ok(request.iter().take(end).skip(first).step_by(step).collect())
    }
}

/// What a command works with.
pub struct Context<'a> {
    /// The server.
    pub shared: &'a Arc<Shared>,
    /// Its own connection.
    pub connection: &'a mut Connection,
    /// All commands.
    pub table: &'static CommandTable,
}

/// What becomes of a command that was not refused.
pub enum Flow {
    /// The reply is written.
    Done,
    /// The reply is written, and the connection ends.
    Close,
    /// The reply is not known yet.
    Wait(Waiting),
    /// Something that takes its time, on a thread that may block. Its reply is small.
    Slow(Work),
    /// A reply that is made on a thread that may block, in slices, once there is memory for it.
    Sliced(Sliced),
}

/// A reply that is made in slices.
pub struct Sliced {
    /// Bytes of output that are reserved before the first slice.
    pub bytes: usize,
    /// Does the next slice; the reply, when it is known.
    pub slice: Slice,
}

/// One slice after the other.
pub type Slice = Box<dyn FnMut() -> Result<Option<Done>, Refusal> + Send>;

/// What runs on a thread that may block.
pub type Work = Box<dyn FnOnce() -> Result<Done, Refusal> + Send>;

/// The reply to something slow.
pub enum Done {
    /// `OK`.
    Ok,
    /// A number.
    Integer(u64),
    /// Something larger, which is written when it is known.
    Reply(Box<dyn FnOnce(&mut Encoder) + Send>),
    /// Something that also concerns the connection.
    Then(Then),
    /// None yet: a blocked command goes on waiting.
    NotYet,
    /// None yet: it is to be made like this, for which there must be more memory.
    Larger(Sliced),
    /// None yet: a blocked command waits for these timelines, and tries again at once if they are
    /// others than before.
    NotYetOn(Vec<Key>),
}

/// What is done at the end with the connection at hand.
pub type Then = Box<dyn FnOnce(&mut Context<'_>) -> Result<(), Refusal> + Send>;

/// A command that has nothing to tell yet. Its connection watches the timelines that it waits for.
pub struct Waiting {
    /// Tries again: whether the reply is written, which it is in any case when there is no time
    /// left.
    pub attempt: Attempt,
    /// When there is no time left; `None`: never.
    pub deadline: Option<Instant>,
    /// One of its timelines advanced since it was tried, or it was not tried yet.
    pub woken: bool,
}

/// How it is tried. Called with whether this is the last attempt.
pub enum Attempt {
    /// At once.
    Here(AttemptHere),
    /// In slices, which end with [`Done::NotYet`] when there is nothing to tell.
    Elsewhere(Box<dyn FnMut(bool) -> Sliced + Send + Sync>),
}

/// An attempt that is made at once: whether the reply is written.
pub type AttemptHere =
    Box<dyn FnMut(&mut Context<'_>, bool) -> Result<bool, Refusal> + Send + Sync>;

/// What becomes of a write that was not refused.
pub enum Prepared {
    /// It is decided.
    Decided(Write),
    /// It is to be decided on a thread that may block: what it depends on must be read.
    Elsewhere(Box<dyn FnOnce() -> Result<Write, Refusal> + Send>),
}

/// A write that was decided.
pub struct Write {
    /// What to commit, or what was committed before.
    pub decision: Decision<Receipt>,
    /// How the receipt is shown.
    pub reply: WriteReply,
    /// What to do if the basis of the decision has moved before the commit.
    pub again: Option<Again>,
}

/// How a receipt is shown.
pub type WriteReply = fn(&Receipt, &mut Encoder);

/// Decides and commits, until a decision holds; on a thread that may block.
pub type Again = Box<dyn FnOnce() -> Result<Receipt, Refusal> + Send>;

impl Write {
    /// A batch that was decided on nothing: if one of its conditions fails, the client is told.
    pub fn of(batch: Batch, reply: WriteReply) -> Write {
        Write { decision: Decision::Commit(Box::new(batch), None), reply, again: None }
    }
}
