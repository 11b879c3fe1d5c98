//! Reads a segment: opens it, finds timelines and ids, returns entries, and marks its files
//! obsolete.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cache::BlockCache;
use super::damage::About;
use super::goes::OnDisk;
use super::parts::Parts;
use super::runs::RunsOf;
use super::table::PageAccess;
use crate::error::{Error, Result};
use crate::format::block::BlockKind;
use crate::format::header::EngineId;
use crate::format::ids::IdRecord;
use crate::format::index::{Edited, TimelineEntry, body_key};
use crate::format::manifest::{Copies, SegmentRecord};
use crate::format::run::{EntryContent, SharedBody, shared_body};
use crate::format::slots::Slots;
use crate::ids::{BODIES, Sequence, TimeMs};
use crate::timeline::{Collector, Span, Times};
use crate::vfs::Dir;

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    record: SegmentRecord,
    /// The open files, or the reason why they cannot be opened.
    parts: Result<Arc<Parts>>,
    /// Its files. A segment without data has expired, or is dead.
    data: Option<Arc<OnDisk>>,
    index: Arc<OnDisk>,
    cache: Arc<BlockCache>,
    /// Damage of its list of names that a listing found.
    hidden_names: OnceLock<Error>,
}

impl TimelineEntry {
    /// The entries here, summarized, if there are any.
    pub(crate) fn span(&self) -> Option<Span> {
        (self.count > 0).then_some(Span {
            first: self.first,
            last: self.end.last,
            count: self.count,
            body_bytes: self.body_bytes,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.end.last_time_ms,
            first_start_ms: self.first_start_ms,
            last_start_ms: self.last_start_ms,
            own_expiry: self.own_expiry,
        })
    }
}

impl Segment {
    /// Opens the segment of a record. If that fails, look-ups in its range return the reason.
    pub fn open(
        dir: &Dir,
        engine: EngineId,
        record: SegmentRecord,
        cache: &Arc<BlockCache>,
    ) -> Segment {
        let parts = Parts::open(dir, engine, &record, cache.clone());
        if let Err(error) = &parts {
            cache.damages().add(record.number);
            tracing::error!(
                segment = record.number,
                %error,
                "a segment cannot be read; its range is not served"
            );
        }
        let (data, index) = OnDisk::pair(dir, record.number, cache);
        let data = record.has_data().then_some(data);
        let (parts, cache) = (parts.map(Arc::new), cache.clone());
        Segment { record, parts, data, index, cache, hidden_names: OnceLock::new() }
    }

    /// The same segment after its data has expired.
    pub fn expired(&self) -> Segment {
        self.without_data(SegmentRecord { dropped: true, ..self.record.clone() })
    }

    /// The same segment after its data was removed because none of it was visible any more.
    pub fn dead(&self) -> Segment {
        self.without_data(SegmentRecord { dead: true, ..self.record.clone() })
    }

    fn without_data(&self, record: SegmentRecord) -> Segment {
        let (parts, index, cache) = (self.parts.clone(), self.index.clone(), self.cache.clone());
        Segment { record, parts, data: None, index, cache, hidden_names: self.hidden_names.clone() }
    }

    /// The same segment with another number of copies of its files.
    pub fn with_copies(&self, dir: &Dir, engine: EngineId, copies: Copies) -> Segment {
        let record = SegmentRecord { copies, ..self.record.clone() };
        let parts = Parts::open(dir, engine, &record, self.cache.clone()).map(Arc::new);
        let (data, index, cache) = (self.data.clone(), self.index.clone(), self.cache.clone());
        Segment { record, parts, data, index, cache, hidden_names: OnceLock::new() }
    }

    /// Its record in the manifest.
    pub fn record(&self) -> &SegmentRecord {
        &self.record
    }

    /// The reason why it cannot be read, if so.
    pub fn damage(&self) -> Option<&Error> {
        self.parts.as_ref().err()
    }

    /// Whether it cannot be opened, or damage was found in it since it was opened.
    pub fn has_damage(&self) -> bool {
        self.parts.is_err() || self.cache.damages().has(self.record.number)
    }

    /// Remembers damage in the names that a listing found, for later listings that start after it.
    pub fn hide_names(&self, damage: Error) {
        self.hidden_names.get_or_init(|| damage);
    }

    /// The known damage that hides names of timelines.
    pub fn hidden_names(&self) -> Option<&Error> {
        self.damage().or(self.hidden_names.get())
    }

    /// Fails if a file or a copy of it is missing, is another file or has the wrong length: a
    /// segment that was just written must be complete before it replaces anything.
    pub fn check(&self) -> Result<()> {
        let parts = self.parts()?;
        parts.index.check(parts.engine)?;
        if self.record.has_data() { parts.data()?.check(parts.engine) } else { Ok(()) }
    }

    /// Removes its files when the last reader has released them. The manifest without it must be
    /// durable.
    pub fn make_obsolete(&self) {
        self.index.go();
        self.make_data_obsolete();
    }

    /// Removes its data file when the last reader has released it. The manifest that records this
    /// must be durable.
    pub fn make_data_obsolete(&self) {
        if let Some(data) = &self.data {
            data.go();
        }
    }

    pub(super) fn parts(&self) -> Result<&Parts> {
        self.parts.as_deref().map_err(Clone::clone)
    }

    /// Its entry for a timeline; `None` if it has none. The cache keeps it for further reads.
    pub fn find(&self, name: &[u8]) -> Result<Option<Arc<TimelineEntry>>> {
        if !self.may_have(name) {
            return Ok(None);
        }
        self.parts_for(About::timeline(name))?.find(name)
    }

    /// The same for one look-up, from the index: the cache of entries is neither asked nor filled.
    pub fn find_once(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
        if !self.may_have(name) {
            return Ok(None);
        }
        self.parts_for(About::timeline(name))?.find_in_page(name)
    }

    /// Whether [`Segment::find`] needs no file.
    pub fn is_near(&self, name: &[u8]) -> bool {
        // If the segment cannot be opened, the look-up returns the reason, and reads no file.
        !self.may_have(name) || self.parts().map_or(true, |parts| parts.is_near(name))
    }

    /// Whether [`Segment::find_id`] needs no file.
    pub fn is_id_near(&self, name: &[u8], id: &[u8], from_ms: TimeMs) -> bool {
        let is_near =
            |parts: &Parts| parts.footer.ids_until_ms < from_ms || parts.is_id_near(name, id);
        !self.may_have(name) || self.parts().map_or(true, is_near)
    }

    fn may_have(&self, name: &[u8]) -> bool {
        (self.record.first_name.as_slice()..=self.record.last_name.as_slice()).contains(&name)
    }

    fn parts_for(&self, about: About<'_>) -> Result<&Parts> {
        let damages = self.cache.damages();
        self.parts
            .as_deref()
            .map_err(|error| damages.located(error.clone(), self.record.store, about))
    }

    /// Whether it may have changes of shared bodies in older segments: they are under the lowest
    /// name.
    pub fn changes_bodies(&self) -> bool {
        self.record.first_name == BODIES && self.record.has_data()
    }

    /// The body that an entry of an older segment has now. The result keeps at most twice its size
    /// in memory.
    pub fn new_body(&self, name: &[u8], sequence: Sequence, number: u32) -> Result<Bytes> {
        let about = About::timeline(name).sequences(sequence, sequence);
        let (_, body, block) = self.parts()?.body_in_block(number, about)?;
        let is_small_part = body.len() < block.len() / 2;
        Ok(if is_small_part { Bytes::copy_from_slice(&block[body]) } else { block.slice(body) })
    }

    /// The entries of older segments that have another body here. If this segment has no data,
    /// these entries have expired, or their bodies are not visible any more.
    pub fn edited<'e>(&self, entry: &'e TimelineEntry) -> &'e [Edited] {
        if self.record.has_data() { &entry.edited } else { &[] }
    }

    /// The length of an edited body.
    pub fn edited_bytes(&self, edited: &Edited) -> Result<u64> {
        match edited.body_bytes {
            Some(bytes) => Ok(u64::from(bytes)),
            None => Ok(self.parts()?.shared_body(edited.body, About::ALL)?.1.len() as u64),
        }
    }

    /// The highest sequence of a timeline that a trim or the TTL removed, as far as this segment,
    /// which has lost its data, knows.
    pub fn dropped_to(&self, entry: &TimelineEntry) -> Sequence {
        // Entries that were dead are a hole, or a trim accounts for them.
        if self.record.dead { entry.end.floor.trimmed_to } else { entry.dropped_to() }
    }

    /// The times of an entry of a timeline; `None` if the entry is not here.
    pub fn times_of(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        sequence: Sequence,
    ) -> Result<Option<Times>> {
        if !self.record.has_data()
            || entry.count == 0
            || !(entry.first..=entry.end.last).contains(&sequence)
        {
            return Ok(None);
        }
        RunsOf::new(self.parts()?, name, entry)?.times_of(sequence)
    }

    /// A shared body.
    pub fn shared_body(&self, number: u32) -> Result<Bytes> {
        Ok(self.parts()?.shared_body(number, About::ALL)?.1)
    }

    /// The use of a client's id in a timeline, as far as this segment knows. The segment is skipped
    /// if the windows of all its ids began before `from_ms`.
    pub fn find_id(&self, name: &[u8], id: &[u8], from_ms: TimeMs) -> Result<Option<IdRecord>> {
        if !self.may_have(name) {
            return Ok(None);
        }
        let parts = self.parts()?;
        if parts.footer.ids_until_ms < from_ms { Ok(None) } else { parts.find_id(name, id) }
    }

    /// The last sequence that it holds of a timeline. If the last block is damaged, the last
    /// sequence before it that is certain.
    pub fn last_of(&self, name: &[u8], entry: &TimelineEntry) -> Result<Sequence> {
        let is_dense = entry.end.last - entry.first + 1 == entry.count;
        if is_dense {
            return Ok(entry.end.last);
        }
        if !self.record.has_data() {
            return Ok(entry.last_lost.max(entry.first));
        }
        match RunsOf::new(self.parts()?, name, entry) {
            Ok(runs) => Ok(runs.last()?.unwrap_or(entry.first)),
            Err(error) if error.is_damage() => Ok(entry.first),
            Err(error) => Err(error),
        }
    }

    /// Offers the entries of a timeline from `low` to `high` to the collector, until it is full.
    pub fn read(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        low: Sequence,
        high: Sequence,
        out: &mut Collector<'_>,
    ) -> Result<()> {
        let mut read = match RunsOf::new(self.parts()?, name, entry) {
            Ok(read) => read,
            // Without the root of its run table no entry can be found.
            Err(error) if error.is_damage() => {
                let all = (low.max(entry.first), high.min(entry.end.last));
                out.offer_lost(all, entry.latest_start(entry.end.last_time_ms), &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if out.is_descending() {
            read.descending(low, high, out)
        } else {
            read.ascending(low, high, out)
        }
    }

    /// The lowest sequence of a timeline here whose time is at least `time_ms`; with
    /// `around_damage`, the lowest sequence whose time may be.
    pub fn sequence_at(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        (time_ms, around_damage): (TimeMs, bool),
    ) -> Result<Option<Sequence>> {
        match RunsOf::new(self.parts()?, name, entry) {
            Err(error) if around_damage && error.is_damage() => {
                let is_first = entry.first_time_ms >= time_ms;
                Ok(Some(entry.first + u64::from(!is_first))
                    .filter(|sequence| *sequence <= entry.end.last))
            }
            runs => runs?.sequence_at(time_ms, around_damage),
        }
    }

    /// Calls `visit` for every entry of a timeline from the block that holds `low` on, ascending,
    /// with its content and the block that inline bodies are in.
    pub fn for_each(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        low: Sequence,
        mut visit: impl FnMut(Sequence, &EntryContent, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if entry.count == 0 || low > entry.end.last {
            return Ok(());
        }
        let runs = RunsOf::new(self.parts()?, name, entry)?;
        let mut place = runs.first_from(low)?;
        while let Some(at) = place {
            let block = runs.block(&at)?;
            let mut run = runs.run_in(&at, &block)?;
            while let Some((sequence, content)) = run.next_entry() {
                visit(sequence, &content, &block)?;
            }
            runs.check_end(&at, &run)?;
            place = runs.next(at)?;
        }
        Ok(())
    }

    /// Calls `visit` for every shared body, in order: its number, its properties, its bytes. Blocks
    /// without a wanted body are not read.
    pub fn for_each_body(
        &self,
        is_wanted: impl Fn(u32) -> bool,
        mut visit: impl FnMut(u32, SharedBody, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let parts = self.parts()?;
        if !self.record.has_data() {
            return Ok(());
        }
        let table = parts.body_table(PageAccess::Once, About::ALL);
        let (mut cursor, mut next) = (table.first()?, 0);
        while let Some(mut at) = cursor.take() {
            let (first, place) = (body_key(at.row().key), at.row().block);
            let missing =
                || parts.data_damage(place.at, "a shared body is missing in its block", About::ALL);
            cursor = table.next(&mut at)?.then_some(at);
            let behind = cursor.as_ref().map(|at| body_key(at.row().key));
            let end = behind.unwrap_or(Some(parts.footer.bodies as u32)).ok_or_else(missing)?;
            if first != Some(next) {
                return Err(missing());
            }
            let numbers = next..end;
            next = end;
            if !numbers.clone().any(&is_wanted) {
                continue;
            }
            let raw = parts.data()?.read(BlockKind::Bodies, place, About::ALL)?;
            if Slots::new(&raw).ok_or_else(missing)?.count() != numbers.len() {
                return Err(missing());
            }
            for (slot, number) in numbers.enumerate() {
                let (shared, body) = shared_body(&raw, slot).ok_or_else(missing)?;
                visit(number, shared, &raw[body])?;
            }
        }
        if u64::from(next) == parts.footer.bodies {
            Ok(())
        } else {
            Err(parts.data_damage(
                0,
                "there are fewer shared bodies than the footer says",
                About::ALL,
            ))
        }
    }

    /// The properties of a shared body.
    pub fn shared(&self, number: u32) -> Result<SharedBody> {
        Ok(self.parts()?.shared_body(number, About::ALL)?.0)
    }

    /// The error for an entry whose shared body is missing.
    pub fn missing_body(&self) -> Error {
        match self.parts() {
            Ok(parts) => parts.missing_body(About::ALL),
            Err(error) => error,
        }
    }

    /// The number of shared bodies in it.
    pub fn body_count(&self) -> Result<u64> {
        let bodies = self.parts()?.footer.bodies;
        Ok(if self.record.has_data() { bodies } else { 0 })
    }
}
