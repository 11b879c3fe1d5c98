//! The plain map: the entries of each timeline, in order, and the results that a reader must get.
//!
//! Entries count as lost, so that a cursor below them gets TRIMMED, if a trim, a drop or the
//! store's TTL removed them. Deletes, an entry's own expiry and chosen sequences leave holes. When
//! the TTL has passed for a hole too, and the data around it was dropped, it may be reported as
//! lost: nothing is left on the disk that distinguishes the two.
//!
//! It does not know: the engine, or anything beyond one timeline.

use strandline::{Entry, Info, Limit, Trim, Verdict};

use super::operations::Key;

/// An entry, readable or expired.
#[derive(Clone, Debug)]
pub struct Row {
    pub sequence: u64,
    pub time_ms: u64,
    /// The time of its own expiry; 0: never.
    pub until_ms: u64,
    pub body: Vec<u8>,
}

/// The time of a read, and the lifetime of the store's entries.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "units stand last")]
pub struct Now {
    pub now_ms: u64,
    pub ttl_ms: u64,
    /// Older entries had expired when the TTL was changed.
    pub gone_before_ms: u64,
}

impl Now {
    fn past_ttl(self, row: &Row) -> bool {
        self.is_past(row.time_ms)
    }

    fn is_past(self, time_ms: u64) -> bool {
        time_ms < self.gone_before_ms || (self.ttl_ms != 0 && time_ms + self.ttl_ms <= self.now_ms)
    }

    fn shows(self, row: &Row) -> bool {
        !self.past_ttl(row) && (row.until_ms == 0 || row.until_ms > self.now_ms)
    }

    /// Whether the store's TTL removed the entry, and not the entry's own expiry before it.
    fn lost(self, row: &Row) -> bool {
        self.past_ttl(row) && (row.until_ms == 0 || row.until_ms >= row.time_ms + self.ttl_ms)
    }
}

/// A timeline.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub last: u64,
    trimmed_to: u64,
    pub rows: Vec<Row>,
    /// Sequence and time of every entry that was ever assigned.
    given: Vec<(u64, u64)>,
}

impl Timeline {
    pub fn push(&mut self, row: Row) {
        self.last = row.sequence;
        self.given.push((row.sequence, row.time_ms));
        self.rows.push(row);
    }

    pub fn readable(&self, now: Now) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.iter().filter(move |row| now.shows(row))
    }

    pub fn first(&self, now: Now) -> u64 {
        self.readable(now).next().map_or(self.last + 1, |row| row.sequence)
    }

    pub fn trimmed_to(&self, now: Now) -> u64 {
        let expired =
            self.rows.iter().rev().find(|row| now.lost(row)).map_or(0, |row| row.sequence);
        self.trimmed_to.max(expired)
    }

    /// Whether it is true that the timeline is trimmed to a sequence.
    pub fn may_be_trimmed_to(&self, reported: u64, now: Now) -> bool {
        let exact = self.trimmed_to(now);
        let is_past = |given: &&(u64, u64)| now.is_past(given.1);
        let past_ttl = self.given.iter().rev().find(is_past).map_or(0, |(sequence, _)| *sequence);
        reported == exact || (exact..=past_ttl).contains(&reported)
    }

    pub fn verdict(&self, cursor: u64, trimmed_to: u64) -> Verdict {
        if cursor > self.last {
            Verdict::Future
        } else if cursor < trimmed_to {
            Verdict::Trimmed
        } else {
            Verdict::Ok
        }
    }

    pub fn sequence_at(&self, time_ms: u64, now: Now) -> u64 {
        self.readable(now)
            .find(|row| row.time_ms >= time_ms)
            .map_or(self.last + 1, |row| row.sequence)
    }

    /// What the engine should have reported; `trimmed_to` is checked separately.
    pub fn info(&self, now: Now, reported: Info) -> Info {
        let time = |row: Option<&Row>| row.map_or(0, |row| row.time_ms);
        let mut info = reported;
        info.first = self.first(now);
        info.last = self.last;
        info.count = self.readable(now).count() as u64;
        info.body_bytes = self.readable(now).map(|row| row.body.len() as u64).sum();
        info.first_time_ms = time(self.readable(now).next());
        info.last_time_ms = time(self.readable(now).next_back());
        info
    }

    /// Removes the start. Expired entries in it are removed too, but only if a readable one is.
    pub fn trim(&mut self, trim: Trim, now: Now) -> u64 {
        let from = match trim {
            Trim::Before(sequence) => sequence,
            Trim::Older(time_ms) => self.sequence_at(time_ms, now),
            Trim::Keep(0) => self.last + 1,
            Trim::Keep(count) => self
                .readable(now)
                .rev()
                .take(usize::try_from(count).expect("a small count"))
                .last()
                .map_or(0, |row| row.sequence),
            other => unreachable!("the map does not know {other:?}"),
        };
        let removed = self.readable(now).filter(|row| row.sequence < from);
        let sequences: Vec<u64> = removed.map(|row| row.sequence).collect();
        if let Some(highest) = sequences.last() {
            self.trimmed_to = self.trimmed_to.max(*highest);
            self.rows.retain(|row| row.sequence >= from);
        }
        sequences.len() as u64
    }

    pub fn delete(&mut self, sequences: &[u64], now: Now) -> u64 {
        let before = self.rows.len();
        self.rows.retain(|row| !(sequences.contains(&row.sequence) && now.shows(row)));
        (before - self.rows.len()) as u64
    }

    /// Replaces a body, also one that no reader can see.
    pub fn edit(&mut self, sequence: u64, body: &[u8]) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.sequence == sequence) {
            row.body = body.to_vec();
        }
    }
}

pub fn entry(row: &Row) -> Entry {
    Entry::new(row.sequence, row.time_ms, row.body.clone())
}

/// The entries within a limit, and whether more follow.
pub fn within<'r>(rows: impl Iterator<Item = &'r Row>, limit: Limit) -> (Vec<Entry>, bool) {
    let (mut entries, mut body_bytes) = (Vec::new(), 0);
    for row in rows {
        body_bytes += row.body.len() as u64;
        let fits = body_bytes <= limit.body_bytes || (limit.first_always && entries.is_empty());
        if entries.len() >= limit.entries || !fits {
            return (entries, true);
        }
        entries.push(entry(row));
    }
    (entries, false)
}

/// The batch that an id was used for.
#[derive(Clone, Debug)]
pub struct Used {
    pub time_ms: u64,
    pub body: Vec<u8>,
    pub targets: Vec<Key>,
    pub sequences: Vec<u64>,
}
