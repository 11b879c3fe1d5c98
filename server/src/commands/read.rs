//! Catching up from a cursor: TL.READ, with BLOCK. (TL.MREAD: `read_many.rs`.)
//!
//! A blocked read watches first, reads, and then waits: so no commit falls between the read and the
//! wait. It is over when there is an entry, a verdict other than OK, or no time left; meanwhile its
//! connection is pushed to as always.

use std::time::Duration;

use bytes::Bytes;
use strandline::{Limit, Page, Sequence, Verdict};
use tokio::time::Instant;

use super::arguments::{Paging, integer, keyword, options};
use super::get::write_entries;
use super::place::{answer, in_one_slice, is_near, page_bytes};
use super::row::{Attempt, AttemptHere, Class, Command, Context, Done, Flow, Run, Waiting};
use super::subscribe::check_room;
use crate::key::Key;
use crate::protocol::Encoder;
use crate::push::verdict_word;
use crate::refusal::Refusal;

/// Longer than this is for ever: no connection lives for a year, and timers need not count beyond.
pub(super) const LONGEST_BLOCK: Duration = Duration::from_hours(365 * 24);

pub(super) static COMMANDS: &[Command] =
    &[Command::new("TL.READ", -4, Class::Read, Run::Now(read)).one_key().told(
        "key AFTER seq [EPOCH e] [COUNT n] [BYTES n] [BLOCK ms]",
        "Map: verdict (OK, TRIMMED, FUTURE, EPOCH), epoch, first, last, next (the cursor to pass \
     next), more, entries.",
    )];

/// Where a reader of one timeline stands.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub after: Sequence,
    /// The reader knows another epoch.
    pub foreign: bool,
}

/// A page with the verdict that only the server can give.
pub(super) struct Answer {
    pub verdict: &'static str,
    pub page: Page,
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
    let cursor = Cursor { after, foreign };
    let (near, bytes) = (is_near(&key, after.saturating_add(1), limit.entries)?, page_bytes(limit));
    let write =
        |answer: &Answer, key: &Key, out: &mut Encoder| answer.write(&key.store.epoch(), out);
    let Some(block_ms) = block else {
        return answer(context, key, (near, bytes), move |key| cursor.read(key, limit), write);
    };
    let key = key.detached();
    let keys = vec![key.clone()];
    if near {
        let attempt = move |context: &mut Context<'_>, last: bool| {
            let answer = cursor.read(&key, limit)?;
            let is_over = last || answer.is_telling();
            if is_over {
                write(&answer, &key, &mut context.connection.out);
            }
            Ok(is_over)
        };
        return wait(context, keys, block_ms, Box::new(attempt));
    }
    let attempt = move |last: bool| {
        let key = key.clone();
        in_one_slice(bytes, move || {
            let answer = cursor.read(&key, limit)?;
            if !last && !answer.is_telling() {
                return Ok(Done::NotYet);
            }
            Ok(Done::Reply(Box::new(move |out| write(&answer, &key, out))))
        })
    };
    watch(context, keys, block_ms, Attempt::Elsewhere(Box::new(attempt)))
}

/// Answers at once, or when one of the keys advances.
fn wait(
    context: &mut Context<'_>,
    keys: Vec<Key>,
    block_ms: u64,
    mut attempt: AttemptHere,
) -> Result<Flow, Refusal> {
    watch_instead(context, keys)?;
    match attempt(context, false) {
        Ok(false) => Ok(waiting(block_ms, Attempt::Here(attempt))),
        answered => {
            context.connection.subscriptions.unblock();
            answered.map(|_| Flow::Done)
        }
    }
}

/// Waits for one of the keys; the session makes the first attempt at once.
pub(super) fn watch(
    context: &mut Context<'_>,
    keys: Vec<Key>,
    block_ms: u64,
    attempt: Attempt,
) -> Result<Flow, Refusal> {
    watch_instead(context, keys)?;
    Ok(waiting(block_ms, attempt))
}

/// Waits for these timelines from now on. Whether they are others than before.
pub fn watch_instead(context: &mut Context<'_>, keys: Vec<Key>) -> Result<bool, Refusal> {
    let more = keys.len().saturating_sub(context.connection.subscriptions.blocked_on());
    if more > 0 {
        check_room(context, more)?;
    }
    context.connection.subscriptions.block(&context.shared.engine, keys)
}

/// Waits for timelines that are watched, or that the first attempt tells ([`Done::NotYetOn`]).
pub(super) fn waiting(block_ms: u64, attempt: Attempt) -> Flow {
    let patience = Duration::from_millis(block_ms);
    let deadline = (block_ms > 0 && patience < LONGEST_BLOCK).then(|| Instant::now() + patience);
    // What is read elsewhere has not been tried yet.
    let woken = matches!(attempt, Attempt::Elsewhere(_));
    Flow::Wait(Waiting { attempt, deadline, woken })
}

impl Cursor {
    pub(super) fn read(self, key: &Key, limit: Limit) -> Result<Answer, Refusal> {
        if !self.foreign {
            let page = key.store.read_after(key.name(), self.after, limit)?;
            return Ok(Answer { verdict: verdict_word(page.verdict), page });
        }
        // A cursor of another epoch says nothing about this one: start again with what there is.
        let page = key.store.read_after(key.name(), self.after, Limit::NOTHING)?;
        let next = page.first - 1;
        Ok(Answer { verdict: "EPOCH", page: Page { next, more: false, ..page } })
    }
}

impl Answer {
    /// Whether a blocked reader wants to know it.
    pub(super) fn is_telling(&self) -> bool {
        !self.page.entries.is_empty() || self.verdict != verdict_word(Verdict::Ok)
    }

    pub(super) fn write(&self, epoch: &str, out: &mut Encoder) {
        write_standing(self.verdict, epoch, &self.page, 7, out);
        out.bulk("entries");
        out.array(self.page.entries.len());
        write_entries(&self.page.entries, out);
    }
}

/// The head of a read's map, with `pairs` pairs in all: where the timeline and the reader stand.
pub(super) fn write_standing(
    verdict: &str,
    epoch: &str,
    page: &Page,
    pairs: usize,
    out: &mut Encoder,
) {
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
