//! Reading from several cursors: TL.MREAD, with BLOCK.
//!
//! COUNT and BYTES are totals: they are used up in the order of the keys, and the first entry that
//! does not fit ends the entries. The first entry of the whole reply is always returned. Later keys
//! still get their verdicts; if these make the reply too large, it is refused.
//!
//! However many keys there are, the work is done in slices of [`STEPS`] steps (see `place.rs`); few
//! keys that are all in memory are one slice, which is done at once.

use std::sync::Arc;

use bytes::Bytes;
use strandline::{Engine, Limit, Sequence};

use super::arguments::{counted, integer, keyword, paging_and_block};
use super::place::{FRAME_BYTES, STEPS, is_near, page_bytes};
use super::read::TimelineCursor;
use super::row::{Attempt, Class, Command, Context, Done, Flow, Run, Sliced};
use super::scope::{Scope, Touch};
use super::wait::watch;
use crate::key::Key;
use crate::protocol::{Encoder, Protocol};
use crate::refusal::Refusal;

/// The bytes of a key's map besides the key and its entries.
const MAP_BYTES: usize = 192;

/// Checking a word or finding a store takes a small part of a step.
const WORDS: usize = 10 * STEPS;

pub(super) static COMMANDS: &[Command] =
    &[Command::new("TL.MREAD", -5, Class::Read, Run::Now(read_many))
        .touches(Scope::Of(&[Touch::CountedKeys(1)]))
        .counted_keys(1)
        .told(
            "numkeys key [key ...] AFTER seq [seq ...] [COUNT n] [BYTES n] [BLOCK ms]",
            "Array of [key, map as TL.READ] for the keys with entries or a verdict other than OK.",
        )];

/// The request.
struct Query {
    engine: Engine,
    /// The keys, then the same number of sequences, as they were received.
    words: Vec<Bytes>,
    limit: Limit,
    protocol: Protocol,
    /// The most bytes of the reply besides the bodies.
    most_frames: u64,
}

/// The progress of the reply.
struct Sweep {
    query: Arc<Query>,
    /// Whether an empty reply is returned.
    last: bool,
    /// The sequences that were parsed so far.
    after: Vec<Sequence>,
    /// The number of keys whose store was found so far.
    found: usize,
    /// The number of keys that were looked up so far.
    at: usize,
    /// The limit that is left for the whole reply.
    left: Limit,
    body_bytes: u64,
    /// The number of keys in the reply, and the part of it that is written.
    count: usize,
    out: Encoder,
}

fn read_many(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (names, rest) = counted(&arguments[0], &arguments[1..])?;
    keyword(rest, 0, "AFTER")?;
    let (cursors, rest) = rest[1..]
        .split_at_checked(names.len())
        .ok_or_else(|| Refusal::usage("syntax error: one sequence for each key"))?;
    if names.len() <= STEPS {
        // Otherwise the slices do this.
        cursors.iter().try_for_each(|raw| integer(raw).map(|_| ()))?;
    }
    let (paging, block) = paging_and_block(rest)?;
    let limits = context.limits();
    let query = Arc::new(Query {
        engine: context.shared.engine.clone(),
        words: [names, cursors].concat(),
        limit: paging.limit(limits),
        protocol: context.connection.out.protocol,
        most_frames: limits.reply_bytes,
    });
    if let Some(block_ms) = block {
        return read_blocked(context, query.detached(), block_ms);
    }
    let sweep = Sweep::new(query, true);
    if sweep.is_near()? {
        return sweep.at_once(context);
    }
    Ok(Flow::Sliced(sweep.sliced()))
}

fn read_blocked(context: &mut Context<'_>, query: Query, block_ms: u64) -> Result<Flow, Refusal> {
    let engine = &context.shared.engine;
    let keys: Vec<Key> =
        query.keys().iter().map(|name| Key::find(engine, name)).collect::<Result<_, _>>()?;
    let query = Arc::new(query);
    let attempt = move |last: bool| Sweep::new(Arc::clone(&query), last).sliced();
    watch(context, keys, block_ms, Attempt::Elsewhere(Box::new(attempt)))
}

impl Query {
    fn keys(&self) -> &[Bytes] {
        &self.words[..self.words.len() / 2]
    }

    /// With a copy of the words: slices of the input would keep the whole read buffer alive.
    fn detached(&self) -> Query {
        let words = self.words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let Query { limit, protocol, most_frames, .. } = *self;
        Query { engine: self.engine.clone(), words, limit, protocol, most_frames }
    }
}

impl Sweep {
    fn new(query: Arc<Query>, last: bool) -> Sweep {
        let out = Encoder::speaking(query.protocol);
        let left = query.limit;
        Sweep {
            query,
            last,
            after: Vec::new(),
            found: 0,
            at: 0,
            left,
            body_bytes: 0,
            count: 0,
            out,
        }
    }

    /// Whether one slice, from memory, is enough.
    fn is_near(&self) -> Result<bool, Refusal> {
        let (keys, entries) = (self.query.keys(), self.query.limit.entries);
        if keys.len() + entries > STEPS {
            return Ok(false);
        }
        for (name, raw) in keys.iter().zip(&self.query.words[keys.len()..]) {
            let key = Key::find(&self.query.engine, name)?;
            if !is_near(&key, integer(raw)?.saturating_add(1), entries)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn at_once(mut self, context: &mut Context<'_>) -> Result<Flow, Refusal> {
        loop {
            if let Some(Done::Reply(write)) = self.slice()? {
                write(&mut context.connection.out);
                return Ok(Flow::Done);
            }
        }
    }

    fn sliced(mut self) -> Sliced {
        let keys = self.query.keys();
        let frames = keys.iter().map(|key| key.len() + MAP_BYTES).sum::<usize>() + FRAME_BYTES;
        let frames = frames.min(usize::try_from(self.query.most_frames).unwrap_or(usize::MAX));
        let bytes = page_bytes(self.query.limit).saturating_add(frames);
        Sliced { bytes, slice: Box::new(move || self.slice()) }
    }

    /// First all sequences are parsed, then all stores are found, then the timelines are looked up.
    /// So a request is refused for the same reason, however many keys it has.
    fn slice(&mut self) -> Result<Option<Done>, Refusal> {
        let query = Arc::clone(&self.query);
        let (keys, cursors) = query.words.split_at(query.keys().len());
        let mut words = WORDS;
        while words > 0 && self.after.len() < keys.len() {
            self.after.push(integer(&cursors[self.after.len()])?);
            words -= 1;
        }
        while words > 0 && self.found < keys.len() {
            Key::find(&query.engine, &keys[self.found])?;
            self.found += 1;
            words -= 1;
        }
        let mut steps = if words > 0 { STEPS } else { 0 };
        while steps > 0 && self.at < keys.len() {
            let taken = self.look_up(&keys[self.at], self.after[self.at])?;
            self.at += 1;
            steps = steps.saturating_sub(1 + taken);
        }
        if self.at < keys.len() {
            return Ok(None);
        }
        if !self.last && self.count == 0 {
            return Ok(Some(Done::NotYet));
        }
        let (count, written) = (self.count, std::mem::take(&mut self.out));
        Ok(Some(Done::Reply(Box::new(move |out| {
            out.array(count);
            out.append(&written);
        }))))
    }

    /// Looks up one timeline. Returns the number of its entries.
    fn look_up(&mut self, name: &Bytes, after: Sequence) -> Result<usize, Refusal> {
        let key = Key::find(&self.query.engine, name)?;
        let answer = TimelineCursor { after, foreign: false }.read(&key, self.left)?;
        let entries = &answer.page.entries;
        let used_bytes: u64 = entries.iter().map(|entry| entry.body.len() as u64).sum();
        let left = &mut self.left;
        left.first_always &= entries.is_empty();
        // After a first entry that is larger than the budget nothing fits any more, not even an
        // empty body.
        let is_closed = answer.page.more || used_bytes > left.body_bytes;
        left.body_bytes = left.body_bytes.saturating_sub(used_bytes);
        left.entries = if is_closed { 0 } else { left.entries - entries.len() };
        if left.entries == 0 {
            left.first_always = false;
        }
        if answer.has_news() {
            self.count += 1;
            self.body_bytes += used_bytes;
            self.out.array(2);
            self.out.bulk(key.bytes());
            answer.write(key.store.epoch(), &mut self.out);
        }
        let most = self.query.most_frames;
        if self.out.len() as u64 - self.body_bytes > most {
            let text =
                format!("the verdicts of a reply have at most {most} bytes: ask for fewer keys");
            return Err(Refusal::new("LIMIT", text));
        }
        Ok(entries.len())
    }
}
