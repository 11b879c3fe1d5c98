//! The workloads: what must be there before, and the commands.
//!
//! Timelines are in a store of their own, which is dropped at the end. Messaging has no such place:
//! `sync` leaves conversations named `bench-…` and users of the same names behind, which the next
//! call uses again.

use anyhow::Context as _;
use clap::ValueEnum;

use super::plan::Plan;
use crate::remote::frame::Frame;
use crate::remote::link::{Link, write_command};

/// The store of the timelines.
pub const STORE: &str = "bench";

/// Timelines that appends go to.
const TIMELINES: u64 = 10_000;
/// Groups of a fan-out, and users that they have members among.
const GROUPS: u64 = 1_000;
const USERS: u64 = 100_000;
/// Timelines that are read, and their entries.
const READ_TIMELINES: u64 = 200;
const READ_ENTRIES: u64 = 60;
/// Conversations of the users who sync, members of each, and messages.
const CONVERSATIONS: u64 = 20;
const CONVERSATION_MEMBERS: u64 = 5;
const MESSAGES: u64 = 60;
/// Messages that a sync returns.
const SYNCED: &str = "10";
/// The most commands of a preparation that are sent at once.
const AT_ONCE: u64 = 100;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// TL.APPEND to one of 10,000 timelines.
    Append,
    /// TL.FANOUT to a conversation and its members.
    Fanout,
    /// TL.REVRANGE: the newest 50 entries of a timeline.
    Latest,
    /// IM.SYNC: a terminal fetches ten messages from its cursor.
    Sync,
    /// TL.FOLLOW: from the append on one connection to its push on another.
    Push,
}

impl Workload {
    /// In the order in which they run.
    pub const ALL: [Workload; 5] =
        [Workload::Append, Workload::Fanout, Workload::Latest, Workload::Sync, Workload::Push];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Append => "append",
            Workload::Fanout => "fanout",
            Workload::Latest => "latest",
            Workload::Sync => "sync",
            Workload::Push => "push",
        }
    }
}

/// Numbers that look random, and are the same in each call.
pub struct Dice(u64);

impl Dice {
    /// Those of one connection.
    pub fn new(connection: u32) -> Dice {
        Dice(0x9E37_79B9_7F4A_7C15 ^ (u64::from(connection) << 32))
    }

    /// A number below `end`. Xorshift: good enough to spread load.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A body of letters.
    pub fn body(&mut self, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| b'a' + self.below(26) as u8).collect()
    }
}

/// An endless sequence of commands for one connection.
pub struct Commands {
    workload: Workload,
    plan: Plan,
    dice: Dice,
    body: Vec<u8>,
    /// The cursor of each user who syncs.
    cursors: Vec<String>,
}

impl Commands {
    /// Those of a connection, which looks up what it needs.
    pub async fn new(
        workload: Workload,
        plan: Plan,
        connection: u32,
        link: &mut Link,
    ) -> anyhow::Result<Commands> {
        let mut dice = Dice::new(connection);
        let body = dice.body(plan.body);
        let mut cursors = Vec::new();
        if workload == Workload::Sync {
            for conversation in 0..CONVERSATIONS {
                cursors.push(cursor_before_newest(&user(conversation, 0), link).await?);
            }
        }
        Ok(Commands { workload, plan, dice, body, cursors })
    }

    /// Appends the next command to `out`.
    pub fn write_next(&mut self, out: &mut Vec<u8>) {
        let durability: &[&[u8]] = if self.plan.relaxed { &[b"DURABILITY", b"os"] } else { &[] };
        match self.workload {
            Workload::Append | Workload::Push => {
                let key = format!("{STORE}:a/{}", self.dice.below(TIMELINES));
                let words = [b"TL.APPEND", key.as_bytes(), &self.body];
                write_command(out, &[&words, durability].concat());
            }
            Workload::Fanout => {
                let group = self.dice.below(GROUPS);
                let members = u64::from(self.plan.members);
                let mut keys = vec![format!("{STORE}:c/{group}")];
                keys.extend(
                    (0..members)
                        .map(|member| format!("{STORE}:u/{}", (group * members + member) % USERS)),
                );
                let count = keys.len().to_string();
                let head = [b"TL.FANOUT", self.body.as_slice(), count.as_bytes()];
                let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
                write_command(out, &[&head, keys.as_slice(), durability].concat());
            }
            Workload::Latest => {
                let key = format!("{STORE}:l/{}", self.dice.below(READ_TIMELINES));
                write_command(out, &["TL.REVRANGE", &key, "+", "-", "COUNT", "50"]);
            }
            Workload::Sync => {
                let number = self.dice.below(CONVERSATIONS);
                let cursor = &self.cursors[number as usize];
                write_command(out, &["IM.SYNC", &user(number, 0), cursor, "COUNT", "50"]);
            }
        }
    }
}

/// Makes what a workload needs. Repeating it does no harm.
pub async fn prepare(workload: Workload, plan: &Plan, link: &mut Link) -> anyhow::Result<()> {
    match link.call(&["TL.STORE", "CREATE", STORE]).await? {
        Frame::Error(text) if !text.contains("exists") => {
            return Err(super::super::frame::Refused(text))
                .with_context(|| format!("cannot create the store {STORE}"));
        }
        _ => {}
    }
    let body = Dice::new(0).body(plan.body);
    match workload {
        Workload::Append | Workload::Fanout | Workload::Push => Ok(()),
        Workload::Latest => {
            let append = |number: u64, out: &mut Vec<u8>| {
                let key = format!("{STORE}:l/{}", number % READ_TIMELINES);
                let words = [b"TL.APPEND", key.as_bytes(), &body];
                write_command(out, &words);
            };
            all(link, READ_TIMELINES * READ_ENTRIES, append).await
        }
        Workload::Sync => {
            for conversation in 0..CONVERSATIONS {
                converse(conversation, &body, link).await?;
            }
            Ok(())
        }
    }
}

/// Runs `count` commands, many at once.
async fn all(link: &mut Link, count: u64, write: impl Fn(u64, &mut Vec<u8>)) -> anyhow::Result<()> {
    let mut next = 0;
    while next < count {
        let end = count.min(next + AT_ONCE);
        let mut out = Vec::new();
        (next..end).for_each(|number| write(number, &mut out));
        link.send_bytes(&out).await?;
        for _ in next..end {
            if let Some(text) = link.pass().await? {
                return Err(super::super::frame::Refused(text).into());
            }
        }
        next = end;
    }
    Ok(())
}

fn user(conversation: u64, member: u64) -> String {
    format!("bench-{conversation}-{member}")
}

/// Makes a conversation with its messages, as far as they are missing.
async fn converse(number: u64, body: &[u8], link: &mut Link) -> anyhow::Result<()> {
    let name = format!("bench-{number}");
    let members: Vec<String> =
        (0..CONVERSATION_MEMBERS).map(|member| user(number, member)).collect();
    let mut create = vec!["IM.CREATE", &name, "MODE", "push", "MEMBERS"];
    create.extend(members.iter().map(String::as_str));
    link.call(&create).await?.or_error()?;
    let info = link.call(&["IM.INFO", &name]).await?.or_error()?;
    let last = info.get("last").and_then(Frame::number).unwrap_or_default();
    let missing = MESSAGES.saturating_sub(u64::try_from(last).unwrap_or_default());
    let send = |_, out: &mut Vec<u8>| {
        write_command(out, &[b"IM.SEND", name.as_bytes(), members[1].as_bytes(), body]);
    };
    all(link, missing, send).await
}

/// The cursor of a user that lacks the newest messages.
async fn cursor_before_newest(user: &str, link: &mut Link) -> anyhow::Result<String> {
    let (mut cursor, mut passed) = ("0".to_owned(), Vec::new());
    loop {
        // Pages of this size end where the wanted cursor is.
        let reply = link.call(&["IM.SYNC", user, &cursor, "COUNT", SYNCED]).await?.or_error()?;
        let is_empty = reply.get("entries").is_none_or(|entries| entries.elements().is_empty());
        let more = reply.get("more").and_then(Frame::number).unwrap_or_default();
        let next = reply.get("cursor").map(Frame::text).unwrap_or_default();
        if !is_empty {
            passed.push(std::mem::replace(&mut cursor, next));
        }
        if more == 0 || is_empty {
            return Ok(passed.pop().unwrap_or(cursor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_are_spread_and_repeat_themselves() {
        let numbers = |connection| {
            let mut dice = Dice::new(connection);
            (0..1_000).map(|_| dice.below(10)).collect::<Vec<u64>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        for digit in 0..10 {
            let count = numbers(3).iter().filter(|number| **number == digit).count();
            assert!((50..200).contains(&count), "{digit} comes {count} times");
        }
    }
}
