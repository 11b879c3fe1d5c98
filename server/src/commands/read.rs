//! Reading from a cursor: TL.READ, with BLOCK. (TL.MREAD: `read_many.rs`.)
//!
//! A blocked read ends when there is an entry or a verdict other than OK, or when its time is over.
//! Meanwhile its connection gets pushes as always.

use bytes::Bytes;
use strandline::{Epoch, Limit, Page, Sequence, Verdict};

use super::arguments::{Paging, integer, keyword, options};
use super::place::{answer, in_one_slice, is_near, page_bytes};
use super::reply::{write_entries, write_standing};
use super::row::{Attempt, Class, Command, Context, Done, Flow, Run};
use super::scope::{Scope, Touch};
use super::wait::{wait, watch};
use crate::key::Key;
use crate::protocol::Encoder;
use crate::push::verdict_word;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "TL.READ",
    -4,
    Class::Read,
    Run::Now(read),
)
.touches(Scope::Of(&[Touch::Key(1)]))
.one_key()
.told(
    "key AFTER seq [EPOCH e] [COUNT n] [BYTES n] [BLOCK ms]",
    "Map: verdict (OK, TRIMMED, FUTURE, EPOCH), epoch, first, last, next (the cursor to pass \
     next), more, entries.",
)];

/// The cursor of a reader of one timeline.
#[derive(Clone, Copy)]
pub(super) struct TimelineCursor {
    pub after: Sequence,
    /// Whether the cursor is of another epoch.
    pub foreign: bool,
}

/// A page, with the verdict EPOCH if the cursor is foreign, which only the server knows.
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
    let limit = paging.limit(context.limits());
    let foreign = wanted.is_some_and(|wanted| is_foreign(&wanted, &key));
    let cursor = TimelineCursor { after, foreign };
    let (near, bytes) = (is_near(&key, after.saturating_add(1), limit.entries)?, page_bytes(limit));
    let write =
        |answer: &Answer, key: &Key, out: &mut Encoder| answer.write(key.store.epoch(), out);
    let Some(block_ms) = block else {
        return answer(context, key, (near, bytes), move |key| cursor.read(key, limit), write);
    };
    let key = key.detached();
    let keys = vec![key.clone()];
    if near {
        let attempt = move |context: &mut Context<'_>, last: bool| {
            let answer = cursor.read(&key, limit)?;
            let is_over = last || answer.has_news();
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
            if !last && !answer.has_news() {
                return Ok(Done::NotYet);
            }
            Ok(Done::Reply(Box::new(move |out| write(&answer, &key, out))))
        })
    };
    watch(context, keys, block_ms, Attempt::Elsewhere(Box::new(attempt)))
}

/// Whether the text of an epoch is not that of the key's store.
pub(super) fn is_foreign(wanted: &[u8], key: &Key) -> bool {
    let epoch = std::str::from_utf8(wanted).ok().and_then(|text| text.parse().ok());
    epoch != Some(key.store.epoch())
}

impl TimelineCursor {
    pub(super) fn read(self, key: &Key, limit: Limit) -> Result<Answer, Refusal> {
        if !self.foreign {
            let page = key.store.read_after(key.name(), self.after, limit)?;
            return Ok(Answer { verdict: verdict_word(page.verdict), page });
        }
        // A cursor of another epoch has no meaning in this one: the reader starts again with the
        // oldest entry.
        let mut page = key.store.read_after(key.name(), self.after, Limit::NOTHING)?;
        (page.next, page.more) = (page.first - 1, false);
        Ok(Answer { verdict: "EPOCH", page })
    }
}

impl Answer {
    /// Whether a blocked reader gets this answer.
    pub(super) fn has_news(&self) -> bool {
        !self.page.entries.is_empty() || self.verdict != verdict_word(Verdict::Ok)
    }

    pub(super) fn write(&self, epoch: Epoch, out: &mut Encoder) {
        write_standing(self.verdict, epoch, &self.page, 7, out);
        out.bulk("entries");
        out.array(self.page.entries.len());
        write_entries(&self.page.entries, out);
    }
}
