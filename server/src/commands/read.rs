//! Catching up from a cursor: TL.READ for one timeline, TL.MREAD for several, both with BLOCK.
//!
//! A blocked read watches first, reads, and then waits: so no commit falls between the read and the wait. It is over when there is
//! an entry, a verdict other than OK, or no time left; meanwhile its connection is pushed to as always.

use std::time::Duration;

use bytes::Bytes;
use strandline::{Limit, Page, Sequence, Verdict};
use tokio::time::Instant;

use super::arguments::{Paging, counted, integer, keyword, options, paging_and_block};
use super::get::write_entry;
use super::row::{Attempt, Class, Command, Context, Flow, Run, Waiting};
use super::subscribe::check_room;
use crate::key::Key;
use crate::protocol::Encoder;
use crate::push::verdict_word;
use crate::refusal::Refusal;

/// Longer than this is for ever: no connection lives for a year, and timers need not count beyond.
const LONGEST_BLOCK: Duration = Duration::from_hours(365 * 24);

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.READ", -4, Class::Read, Run::Now(read)).one_key().told(
        "key AFTER seq [EPOCH e] [COUNT n] [BYTES n] [BLOCK ms]",
        "Map: verdict (OK, TRIMMED, FUTURE, EPOCH), epoch, first, last, next (the cursor to pass next), more, entries.",
    ),
    Command::new("TL.MREAD", -5, Class::Read, Run::Now(read_many)).counted_keys(1).told(
        "numkeys key [key ...] AFTER seq [seq ...] [COUNT n] [BYTES n] [BLOCK ms]",
        "Array of [key, map as TL.READ] for the keys with entries or a verdict other than OK.",
    ),
];

enum Query {
    One(Cursor),
    Many(Vec<Cursor>),
}

/// One timeline's part of a read.
struct Cursor {
    key: Key,
    after: Sequence,
    /// The reader knows another epoch.
    foreign: bool,
    /// The same in both arms of [`Query`]: what is left for the whole reply.
    limit: Limit,
}

/// A page with the verdict that only the server can give.
struct Answer {
    verdict: &'static str,
    page: Page,
}

fn read(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    keyword(arguments, 1, "AFTER")?;
    let (mut after, mut wanted, mut block) = (0, None, None);
    let mut paging = Paging::default();
    options(&arguments[1..], |word, value| {
        match word {
            b"AFTER" => after = integer(value)?,
            b"EPOCH" => wanted = Some(value.to_vec()),
            b"BLOCK" => block = Some(integer(value)?),
            _ => return paging.take(word, value),
        }
        Ok(true)
    })?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let limit = paging.limit(&context.shared.limits);
    let foreign = wanted.is_some_and(|wanted| wanted != key.store.epoch().as_bytes());
    run(context, Query::One(Cursor { key, after, foreign, limit }), block)
}

fn read_many(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (names, rest) = counted(&arguments[0], &arguments[1..])?;
    keyword(rest, 0, "AFTER")?;
    let (cursors, rest) = rest[1..]
        .split_at_checked(names.len())
        .ok_or_else(|| Refusal::usage("syntax error: one sequence for each key"))?;
    let cursors: Vec<Sequence> = cursors.iter().map(|raw| integer(raw)).collect::<Result<_, _>>()?;
    let (paging, block) = paging_and_block(rest)?;
    let limit = paging.limit(&context.shared.limits);
    let targets = names
        .iter()
        .zip(cursors)
        .map(|(name, after)| {
            Ok(Cursor { key: Key::find(&context.shared.engine, name)?, after, foreign: false, limit })
        })
        .collect::<Result<_, Refusal>>()?;
    run(context, Query::Many(targets), block)
}

fn run(context: &mut Context<'_>, query: Query, block_ms: Option<u64>) -> Result<Flow, Refusal> {
    let Some(block_ms) = block_ms else {
        query.answer(context, true)?;
        return Ok(Flow::Done);
    };
    let query = query.detached();
    let keys = query.keys();
    let attempt = Box::new(move |context: &mut Context<'_>, last: bool| query.answer(context, last));
    wait(context, keys, Some(block_ms), attempt)
}

/// Answers at once, or with BLOCK when one of the keys advances.
pub(super) fn wait(
    context: &mut Context<'_>,
    keys: Vec<Key>,
    block_ms: Option<u64>,
    mut attempt: Attempt,
) -> Result<Flow, Refusal> {
    let Some(block_ms) = block_ms else {
        attempt(context, true)?;
        return Ok(Flow::Done);
    };
    check_room(context, keys.len())?;
    context.connection.subscriptions.block(&context.shared.engine, keys)?;
    match attempt(context, false) {
        Ok(false) => {
            let patience = Duration::from_millis(block_ms);
            let deadline = (block_ms > 0 && patience < LONGEST_BLOCK).then(|| Instant::now() + patience);
            Ok(Flow::Wait(Waiting { attempt, deadline }))
        }
        answered => {
            context.connection.subscriptions.unblock();
            answered.map(|_| Flow::Done)
        }
    }
}

impl Query {
    /// Writes the reply if there is something to tell, or if it must be written now.
    fn answer(&self, context: &mut Context<'_>, now: bool) -> Result<bool, Refusal> {
        match self {
            Query::One(cursor) => {
                let answer = cursor.read(cursor.limit)?;
                if !now && !answer.is_telling() {
                    return Ok(false);
                }
                answer.write(&cursor.key.store.epoch(), &mut context.connection.out);
            }
            Query::Many(cursors) => {
                let answers = read_all(cursors)?;
                if !now && answers.is_empty() {
                    return Ok(false);
                }
                let out = &mut context.connection.out;
                out.array(answers.len());
                for (cursor, answer) in answers {
                    out.array(2);
                    out.bulk(cursor.key.bytes());
                    answer.write(&cursor.key.store.epoch(), out);
                }
            }
        }
        Ok(true)
    }

    fn keys(&self) -> Vec<Key> {
        match self {
            Query::One(cursor) => vec![cursor.key.clone()],
            Query::Many(cursors) => cursors.iter().map(|cursor| cursor.key.clone()).collect(),
        }
    }

    fn detached(self) -> Query {
        let detach = |cursor: Cursor| Cursor { key: cursor.key.detached(), ..cursor };
        match self {
            Query::One(cursor) => Query::One(detach(cursor)),
            Query::Many(cursors) => Query::Many(cursors.into_iter().map(detach).collect()),
        }
    }
}

/// COUNT and BYTES are totals: they are used up in the order of the keys, and the first entry that does not fit ends the reply.
/// The first entry of the whole reply always passes. Later keys still tell their verdicts.
fn read_all(cursors: &[Cursor]) -> Result<Vec<(&Cursor, Answer)>, Refusal> {
    let mut answers = Vec::new();
    let Some(mut left) = cursors.first().map(|cursor| cursor.limit) else { return Ok(answers) };
    for cursor in cursors {
        let answer = cursor.read(left)?;
        let entries = &answer.page.entries;
        let used_bytes: u64 = entries.iter().map(|entry| entry.body.len() as u64).sum();
        left.first_always &= entries.is_empty();
        // After a first entry that is over the budget nothing fits any more, not even an empty body.
        let is_closed = answer.page.more || used_bytes > left.body_bytes;
        left.body_bytes = left.body_bytes.saturating_sub(used_bytes);
        left.entries = if is_closed { 0 } else { left.entries - entries.len() };
        if left.entries == 0 {
            left.first_always = false;
        }
        if answer.is_telling() {
            answers.push((cursor, answer));
        }
    }
    Ok(answers)
}

impl Cursor {
    fn read(&self, limit: Limit) -> Result<Answer, Refusal> {
        if !self.foreign {
            let page = self.key.store.read_after(self.key.name(), self.after, limit)?;
            return Ok(Answer { verdict: verdict_word(page.verdict), page });
        }
        // A cursor of another epoch says nothing about this one: start again with what there is.
        let nothing = Limit { entries: 0, body_bytes: 0, first_always: false, around_damage: false };
        let page = self.key.store.read_after(self.key.name(), self.after, nothing)?;
        let next = page.first - 1;
        Ok(Answer { verdict: "EPOCH", page: Page { next, more: false, ..page } })
    }
}

impl Answer {
    /// Whether a blocked reader wants to know it.
    fn is_telling(&self) -> bool {
        !self.page.entries.is_empty() || self.verdict != verdict_word(Verdict::Ok)
    }

    fn write(&self, epoch: &str, out: &mut Encoder) {
        write_standing(self.verdict, epoch, &self.page, 7, out);
        out.bulk("entries");
        out.array(self.page.entries.len());
        for entry in &self.page.entries {
            write_entry(entry, out);
        }
    }
}

/// The head of a read's map, with `pairs` pairs in all: where the timeline and the reader stand.
pub(super) fn write_standing(verdict: &str, epoch: &str, page: &Page, pairs: usize, out: &mut Encoder) {
    out.map(pairs);
    out.bulk("verdict");
    out.bulk(verdict);
    out.bulk("epoch");
    out.bulk(epoch);
    out.field("first", page.first);
    out.field("last", page.last);
    out.field("next", page.next);
    out.field("more", u64::from(page.more));
}
