//! A command: its row in the table, the context in which it runs, and its possible outcomes. The
//! context includes the table, which COMMAND lists. So the type of the table is here, and its rows
//! are in `table`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use strandline::{Batch, Receipt};
use tokio::time::Instant;

use super::arguments::positive;
use super::scope::{Needs, Part, Scope, TokenRule};
pub use crate::access::Class;
use crate::access::Unit;
use crate::connection::Connection;
use crate::key::Key;
use crate::limits::Limits;
use crate::messaging::Decision;
use crate::protocol::Encoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// The positions of the keys in a request's words, counted from the command's name. All zero: no
/// keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key.
    pub first: usize,
    /// The last key; negative: counted from the end. With `count_at`: the last key of a request
    /// with one key.
    pub last: isize,
    /// The distance from one key to the next.
    pub step: usize,
    /// The position of the number of keys; 0 if the request does not state it.
    pub count_at: usize,
}

/// How a command is run. It gets the words after its name.
#[derive(Clone, Copy)]
pub enum Run {
    /// At once, in its turn.
    Now(fn(&mut Context<'_>, &[Bytes]) -> Result<Flow, Refusal>),
    /// As a batch, together with the writes around it.
    Write(fn(&Context<'_>, &[Bytes]) -> Result<Prepared, Refusal>),
}

/// A row of the table.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub struct Command {
    /// The name, in capitals.
    pub name: &'static str,
    /// The number of words, including the name; negative: at least that many.
    pub arity: i32,
    /// The permission that it needs.
    pub class: Class,
    /// How it is run.
    pub run: Run,
    /// The positions of its keys.
    pub keys: Keys,
    /// The words after the name.
    pub usage: &'static str,
    /// What it does and what it replies, in one line.
    pub summary: &'static str,
    /// Whether it is allowed before login.
    pub before_login: bool,
    /// Whether it is allowed on a RESP2 connection with subscriptions.
    pub while_subscribed: bool,
    /// Whether its reply may be large.
    pub reply: Reply,
    /// Whether its words may contain a secret, so that only its name is shown to others.
    pub is_secret: bool,
    /// Where it is in the table, counted from 0. The table sets it in its copy.
    pub position: usize,
    /// What it touches. With `parts`: what a subcommand touches that is not among them.
    pub scope: Scope,
    /// What a terminal's token may do with it.
    pub token: TokenRule,
    /// Its subcommands that have needs of their own.
    pub parts: &'static [Part],
    /// Whether it writes bodies, which the timelines of conversations and users take only from a
    /// user with the category `@rawevents`.
    pub raw_events: bool,
}

/// The longest name of a command, with space for future names.
pub const MAX_NAME_BYTES: usize = 32;

/// A part of the table, with its own heading.
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The word for COMMAND DOCS.
    pub word: &'static str,
    /// The rows.
    pub rows: &'static [&'static [Command]],
}

/// The table of commands, with an index by name.
pub struct CommandTable {
    rows: Vec<(&'static Group, Command)>,
    /// The number of each row in the catalog of access. Those of its subcommands follow.
    units: Vec<usize>,
    by_name: HashMap<&'static [u8], usize>,
}

/// A row that was found.
#[derive(Clone, Copy)]
pub struct FoundRow<'a> {
    /// Its group.
    pub group: &'static Group,
    /// The row.
    pub command: &'a Command,
    /// Its number in the catalog of access. Those of its subcommands follow.
    unit: usize,
}

impl CommandTable {
    /// The table of the rows of these groups.
    pub fn new(groups: &'static [Group]) -> CommandTable {
        let rows = groups
            .iter()
            .flat_map(|group| group.rows.iter().copied().flatten().map(move |row| (group, row)))
            .enumerate()
            .map(|(position, (group, row))| (group, Command { position, ..row.clone() }));
        let rows: Vec<_> = rows.collect();
        let names = rows.iter().map(|(_, row)| (row.name.as_bytes(), row.position));
        let mut next = 0;
        let units = rows.iter().map(|(_, row)| {
            let unit = next;
            next += 1 + row.parts.len();
            unit
        });
        CommandTable { units: units.collect(), by_name: names.collect(), rows }
    }

    /// All commands and subcommands, in the order of their numbers.
    pub fn units(&self) -> Vec<Unit> {
        let units = |row: &Command| {
            let (command, class) = (row.name, row.class);
            let part = |part: &'static Part| Unit { command, part: part.word, class: part.class };
            let whole = Unit { command, part: "", class };
            [whole].into_iter().chain(row.parts.iter().map(part))
        };
        self.all().flat_map(|(_, row)| units(row)).collect()
    }

    /// All rows with their groups, in the order of the document.
    pub fn all(&self) -> impl Iterator<Item = (&'static Group, &Command)> {
        self.rows.iter().map(|(group, row)| (*group, row))
    }

    /// The row of a name, in any case.
    pub fn find(&self, name: &[u8]) -> Option<&Command> {
        self.found(name).map(|found| found.command)
    }

    /// The row of a name, with its group and its number.
    pub fn found(&self, name: &[u8]) -> Option<FoundRow<'_>> {
        let mut capitals = [0; MAX_NAME_BYTES];
        let capitals = capitals.get_mut(..name.len())?;
        capitals.copy_from_slice(name);
        capitals.make_ascii_uppercase();
        let position = self.by_name.get(&*capitals)?;
        let ((group, command), unit) = self.rows.get(*position).zip(self.units.get(*position))?;
        Some(FoundRow { group, command, unit: *unit })
    }
}

impl FoundRow<'_> {
    /// What a request of this command needs.
    pub fn needs(&self, request: &[Bytes]) -> Needs {
        let FoundRow { command, unit, .. } = *self;
        let is_meant = |part: &Part| {
            request.get(1).is_some_and(|word| word.eq_ignore_ascii_case(part.word.as_bytes()))
        };
        let Some(at) = command.parts.iter().position(is_meant) else {
            return Needs { unit, part: None, scope: command.scope, token: command.token };
        };
        let part = &command.parts[at];
        let token = default_token_rule(part.class);
        Needs { unit: unit + 1 + at, part: Some(part.word), scope: part.scope, token }
    }
}

/// A terminal may run the commands about its own connection, and those that are declared.
const fn default_token_rule(class: Class) -> TokenRule {
    if matches!(class, Class::Connection) { TokenRule::Always } else { TokenRule::Never }
}

/// Whether a reply may be large. A large reply is made only when there is memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has no more bytes than its request, and a few hundred.
    Small,
    /// It may have many bytes.
    Large,
    /// It may have many bytes only if this word follows the name.
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
            is_secret: false,
            position: 0,
            scope: Scope::Undeclared,
            token: default_token_rule(class),
            parts: &[],
            raw_events: false,
        }
    }

    /// Touching these.
    #[must_use]
    pub const fn touches(self, scope: Scope) -> Command {
        Command { scope, ..self }
    }

    /// Allowed to terminals' tokens by this rule.
    #[must_use]
    pub const fn by_token(self, token: TokenRule) -> Command {
        Command { token, ..self }
    }

    /// With subcommands that have needs of their own.
    #[must_use]
    pub const fn in_parts(self, parts: &'static [Part]) -> Command {
        Command { parts, ..self }
    }

    /// Writing bodies that could be events.
    #[must_use]
    pub const fn writes_bodies(self) -> Command {
        Command { raw_events: true, ..self }
    }

    /// With one key, the first word after the name.
    #[must_use]
    pub const fn one_key(self) -> Command {
        Command { keys: Keys { first: 1, last: 1, step: 1, count_at: 0 }, ..self }
    }

    /// With keys from the first word after the name to the last.
    #[must_use]
    pub const fn all_keys(self) -> Command {
        Command { keys: Keys { first: 1, last: -1, step: 1, count_at: 0 }, ..self }
    }

    /// With the number of keys at a word, and the keys after it.
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

    /// With words that may contain a secret.
    #[must_use]
    pub const fn secret(self) -> Command {
        Command { is_secret: true, ..self }
    }

    /// The name in lower case, as in COMMAND and in error texts.
    pub fn lower_name(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// Whether a request may have this many words.
    pub fn takes(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { words == arity } else { words >= arity }
    }

    /// The flags, as in COMMAND.
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

/// The context in which a command runs.
pub struct Context<'a> {
    /// The server.
    pub shared: &'a Arc<Shared>,
    /// Its own connection.
    pub connection: &'a mut Connection,
    /// The table of commands.
    pub table: &'static CommandTable,
}

impl Context<'_> {
    /// The limits that hold for this command.
    pub fn limits(&self) -> &Limits {
        &self.connection.config.limits
    }
}

/// The outcome of a command that was not refused.
pub enum Flow {
    /// The reply is written.
    Done,
    /// The reply is written, and the connection is to be closed.
    Close,
    /// The reply is not known yet.
    Wait(Waiting),
    /// A login, which may wait and may hash a password.
    LogIn(Box<LogIn>),
    /// Work on a thread that may block. Its reply is small.
    Slow(Work),
    /// The same for work that may take minutes, which is done one at a time.
    Long(Work),
    /// A reply that is made on a thread that may block, in slices, as soon as there is memory for
    /// it.
    Sliced(Sliced),
}

/// A login.
pub struct LogIn {
    /// The name of the user.
    pub user: Bytes,
    /// The password, or a token.
    pub password: Bytes,
    /// What follows a successful login, and writes the reply.
    pub then: Then,
}

/// A reply that is made in slices.
pub struct Sliced {
    /// The bytes of output that are reserved before the first slice.
    pub bytes: usize,
    /// Does the next slice. Returns the reply when it is complete.
    pub slice: Slice,
}

/// The function that does the slices one after the other.
pub type Slice = Box<dyn FnMut() -> Result<Option<Done>, Refusal> + Send>;

/// Work on a thread that may block.
pub type Work = Box<dyn FnOnce() -> Result<Done, Refusal> + Send>;

/// The result of work on a thread that may block.
pub enum Done {
    /// `OK`.
    Ok,
    /// A number.
    Integer(u64),
    /// A larger reply, and the function that writes it.
    Reply(KnownReply),
    /// A step that also concerns the connection.
    Then(Then),
    /// No reply yet: a blocked command continues to wait.
    NotYet,
    /// No reply yet: it is to be made by these slices, which need more memory.
    Larger(Sliced),
    /// No reply yet: a blocked command waits for these timelines, and tries again at once if they
    /// are not the ones watched before.
    NotYetOn(Vec<Key>),
}

/// A final step that needs the connection.
pub type Then = Box<dyn FnOnce(&mut Context<'_>) -> Result<(), Refusal> + Send>;

/// A command that has no reply yet. Its connection watches the timelines that it waits for.
pub struct Waiting {
    /// Tries again. The last attempt always produces the reply.
    pub attempt: Attempt,
    /// When the last attempt is due; `None`: never.
    pub deadline: Option<Instant>,
    /// One of its timelines advanced since the last attempt, or there was no attempt yet.
    pub woken: bool,
}

/// How an attempt is made. The argument is whether it is the last one.
pub enum Attempt {
    /// At once.
    Here(AttemptHere),
    /// In slices, which end with [`Done::NotYet`] if there is no reply yet.
    Elsewhere(Box<dyn FnMut(bool) -> Sliced + Send + Sync>),
}

/// An attempt that is made at once. Returns whether the reply is written.
pub type AttemptHere =
    Box<dyn FnMut(&mut Context<'_>, bool) -> Result<bool, Refusal> + Send + Sync>;

/// The outcome of a write that was not refused.
pub enum Prepared {
    /// It is decided.
    Decided(Write),
    /// It must be decided on a thread that may block, since the decision may read the disk.
    Elsewhere(Box<dyn FnOnce() -> Result<Write, Refusal> + Send>),
}

/// A write that was decided.
pub struct Write {
    /// The batch to commit, or the reply if there is nothing to commit.
    pub decision: Decision<KnownReply>,
    /// Writes the reply to a commit.
    pub reply: WriteReply,
    /// Repeats the decision if its basis has moved before the commit.
    pub again: Option<Again>,
    /// Work on a thread that may block, after the commit.
    pub after: Option<After>,
}

/// Work that follows a commit, whatever its outcome.
pub type After = Box<dyn FnOnce() + Send>;

/// Writes a receipt as a reply.
pub type WriteReply = fn(&Receipt, &mut Encoder);

/// Writes a reply that is known.
pub type KnownReply = Box<dyn FnOnce(&mut Encoder) + Send>;

/// Decides and commits until a commit succeeds; on a thread that may block.
pub type Again = Box<dyn FnOnce() -> Result<KnownReply, Refusal> + Send>;

impl Write {
    /// A batch without a basis: if one of its conditions fails, the client gets the error.
    pub fn of(batch: Batch, reply: WriteReply) -> Write {
        Write { decision: Decision::Commit(Box::new(batch), None), reply, again: None, after: None }
    }
}
