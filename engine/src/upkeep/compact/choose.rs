//! Chooses the segments to merge next: by size tiers, and those that are mostly garbage.
//!
//! ```text
//!  oldest                                                              newest
//!  tier 3 │ tier 2 │ tier 2 │ tier 1 │ tier 0 tier 0 … (8 of them) ──> one of tier 1
//!             ▲ half of it is dead ──> rewritten alone, whatever its size
//! ```
//!
//! Neighbours are segments that are adjacent in age. A row is a maximal list of neighbours of one
//! kind.
//!
//! Size tiers: eight neighbours of one tier become one of the next tier, so that an entry is
//! written about log₈(segments) times. Only neighbours are merged: a merged segment, like any
//! other, holds one contiguous part of the log.
//!
//! An expired segment consists of its index only. Indexes have no tier, since the size of the
//! former data is unrelated to their own. Eight neighbours of a row qualify if none of them has
//! more than a quarter of their bytes; of those that qualify, the ones with the fewest bytes become
//! one. So a large index, with ten million timelines, is rewritten only with others of its size, in
//! whatever order the sizes are. In a row that has grown far too long, all neighbours qualify.
//!
//! The space that a merge takes until its inputs are removed is bounded: inputs are at most an
//! eighth of their store, or 1 GiB if that is more. The largest segments are then about 1/32 of a
//! store, so there are few of them however large it grows. Indexes have no such bound: the merged
//! index has one entry per timeline, the inputs have mostly the same timelines, and none could be
//! left as it is.
//!
//! A merge needs space for the living part of its inputs, and their indexes. If the disk has less,
//! fewer inputs are taken, or the merge waits for space. A rewrite frees more than it takes, so it
//! may use half of the free space.
//!
//! Garbage goes first, except before a row that has grown far too long: otherwise a load that
//! constantly makes garbage would keep everything else from being merged. If even that is too slow,
//! commits wait (`lag`).
//!
//! This file does not know where these numbers come from, or how to merge.

use crate::ids::FileNumber;

/// The number of segments of one tier that become one of the next.
const FAN_IN: usize = 8;

/// The minimum number of inputs: with fewer, a merge within the bound of a store costs more writing
/// than it saves reading.
const LEAST_INPUTS: usize = FAN_IN / 2;

/// The length of a row from which on merging runs at full speed.
const URGENT: usize = 4 * FAN_IN;

/// The length of a row from which on commits wait.
const TOO_MANY: usize = 4 * URGENT;

/// The bound on the inputs of a merge in a small store.
const LEAST_BOUND_BYTES: u64 = 1024 * 1024 * 1024;

/// The bound in a larger store is `1/BOUND_PART` of its size.
const BOUND_PART: u64 = 8;

/// The properties of a segment that matter for the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub number: FileNumber,
    pub kind: Kind,
    /// Whether all of it can be read.
    pub is_whole: bool,
    pub bytes: u64,
    /// About how many bytes a merge would write again.
    pub alive_bytes: u64,
    /// Whether so much of it is dead that a rewrite is worthwhile.
    pub is_garbage: bool,
}

/// The free space of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For merges of several segments.
    pub merge_bytes: u64,
    /// For rewrites.
    pub rewrite_bytes: u64,
}

/// The kind of a segment: neighbours of one kind can be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With data: its tier and its partition.
    Data(u8, u64),
    /// Without data: such segments are alike in all partitions.
    Dropped,
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Nothing,
    /// Merge these segments, newest first; true: at full speed.
    Merge(Vec<FileNumber>, bool),
    /// Something is due, but the disk has no space for it.
    Wait,
}

/// The choice in one store, whose segments are given newest first, with this free space.
pub fn choose(newest_first: &[Candidate], room: Room) -> Choice {
    let merge = |inputs: &[Candidate], urgent| {
        Choice::Merge(inputs.iter().map(|candidate| candidate.number).collect(), urgent)
    };
    let fitting = |due| oldest_within(due, room.merge_bytes, |candidate| candidate.alive_bytes);
    let (mut waits, mut calm) = (false, Choice::Nothing);
    for (row, due) in rows(newest_first).rev() {
        let (inputs, urgent) = (fitting(due), row.len() >= URGENT);
        match inputs.len() {
            0 | 1 => waits = true,
            _ if urgent => return merge(inputs, urgent),
            _ if calm == Choice::Nothing => calm = merge(inputs, urgent),
            _ => {}
        }
    }
    for candidate in
        newest_first.iter().filter(|candidate| candidate.is_whole && candidate.is_garbage)
    {
        if candidate.alive_bytes <= room.rewrite_bytes {
            return merge(std::slice::from_ref(candidate), false);
        }
        waits = true;
    }
    if waits && calm == Choice::Nothing { Choice::Wait } else { calm }
}

/// The bytes that wait to be merged or rewritten.
pub fn debt_bytes(newest_first: &[Candidate]) -> u64 {
    let garbage = newest_first.iter().filter(|candidate| candidate.is_garbage);
    let due = rows(newest_first).flat_map(|(row, _)| row).filter(|candidate| !candidate.is_garbage);
    garbage.chain(due).map(|candidate| candidate.bytes).sum()
}

/// Whether merging is too far behind: a row is too long, or the dead bytes that a rewrite can
/// remove exceed all living bytes plus `least_bytes`.
pub fn is_behind(newest_first: &[Candidate], least_bytes: u64) -> bool {
    let whole = || newest_first.iter().filter(|candidate| candidate.is_whole);
    let alive: u64 = newest_first.iter().map(|candidate| candidate.alive_bytes).sum();
    let garbage = whole().filter(|candidate| candidate.is_garbage);
    let dead: u64 =
        garbage.map(|candidate| candidate.bytes.saturating_sub(candidate.alive_bytes)).sum();
    rows(newest_first).any(|(row, _)| row.len() >= TOO_MANY)
        || dead > alive.saturating_add(least_bytes)
}

/// The rows that are due, newest first, and the part of each that makes one merge.
fn rows(
    newest_first: &[Candidate],
) -> impl DoubleEndedIterator<Item = (&[Candidate], &[Candidate])> {
    let alike = |one: &Candidate, other: &Candidate| {
        one.kind == other.kind && one.is_whole == other.is_whole
    };
    let held: u64 = newest_first.iter().map(|candidate| candidate.bytes).sum();
    let bound_bytes = (held / BOUND_PART).max(LEAST_BOUND_BYTES);
    let rows = newest_first.chunk_by(alike).filter(|row| row.len() >= FAN_IN && row[0].is_whole);
    rows.map(move |row| match row[0].kind {
        Kind::Dropped => (row, smallest_alike(row)),
        Kind::Data(..) => (
            row,
            oldest_within(&row[row.len() - FAN_IN..], bound_bytes, |candidate| candidate.bytes),
        ),
    })
    .filter(|(_, due)| due.len() >= LEAST_INPUTS)
}

/// The neighbours in a row of indexes that are cheapest to merge; none if each merge would rewrite
/// a large index for a few small ones, unless the row is far too long. Of equally cheap ones the
/// oldest.
fn smallest_alike(row: &[Candidate]) -> &[Candidate] {
    let bytes =
        |neighbours: &[Candidate]| neighbours.iter().map(|candidate| candidate.bytes).sum::<u64>();
    let are_alike = |neighbours: &&[Candidate]| {
        let largest = neighbours.iter().map(|candidate| candidate.bytes).max().unwrap_or(0);
        row.len() >= URGENT || largest.saturating_mul(LEAST_INPUTS as u64) <= bytes(neighbours)
    };
    let alike = row.windows(FAN_IN).rev().filter(are_alike);
    alike.min_by_key(|neighbours| bytes(neighbours)).unwrap_or_default()
}

/// As many of a row, from the oldest on, as fit.
fn oldest_within(
    row: &[Candidate],
    most_bytes: u64,
    bytes: impl Fn(&Candidate) -> u64,
) -> &[Candidate] {
    let mut sum = 0;
    let fits = |candidate: &&Candidate| {
        sum += bytes(candidate);
        sum <= most_bytes
    };
    &row[row.len() - row.iter().rev().take_while(fits).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Room = Room { merge_bytes: u64::MAX, rewrite_bytes: u64::MAX };
    const GIB: u64 = 1024 * 1024 * 1024;

    /// Segments of these tiers and sizes, newest first; the newest has the highest number.
    fn candidates(of: &[(u8, u64)]) -> Vec<Candidate> {
        let candidate = |(index, (tier, bytes)): (usize, &(u8, u64))| Candidate {
            number: (of.len() - index) as u64,
            kind: Kind::Data(*tier, 0),
            is_whole: true,
            bytes: *bytes,
            alive_bytes: *bytes,
            is_garbage: false,
        };
        of.iter().enumerate().map(candidate).collect()
    }

    fn room(bytes: u64) -> Room {
        Room { merge_bytes: bytes, rewrite_bytes: bytes }
    }

    fn merge(numbers: impl IntoIterator<Item = u64>) -> Choice {
        Choice::Merge(numbers.into_iter().collect(), false)
    }

    #[test]
    fn eight_neighbours_of_a_tier_are_merged_and_seven_are_not() {
        let seven = candidates(&[(0, 10); 7]);
        assert_eq!((choose(&seven, PLENTY), debt_bytes(&seven)), (Choice::Nothing, 0));
        let nine = candidates(&[(0, 10); 9]);
        assert_eq!((choose(&nine, PLENTY), debt_bytes(&nine)), (merge((1..=8).rev()), 90));
    }

    #[test]
    fn a_damaged_segment_separates_its_neighbours() {
        let mut nine = candidates(&[(0, 10); 9]);
        nine[4].is_whole = false;
        assert_eq!(choose(&nine, PLENTY), Choice::Nothing);
    }

    #[test]
    fn with_little_room_fewer_are_merged_and_with_none_merging_waits() {
        let eight = candidates(&[(0, 10); 8]);
        assert_eq!(choose(&eight, room(79)), merge((1..=7).rev()));
        assert_eq!(choose(&eight, room(20)), merge([2, 1]));
        assert_eq!(choose(&eight, room(19)), Choice::Wait);
    }

    #[test]
    fn the_inputs_of_a_merge_are_bounded_and_few_large_segments_are_left_alone() {
        assert_eq!(choose(&candidates(&[(1, GIB / 4); 8]), PLENTY), merge((1..=4).rev()));
        let alone = candidates(&[(1, GIB / 3); 8]);
        assert_eq!((choose(&alone, PLENTY), debt_bytes(&alone)), (Choice::Nothing, 0));
        // In a store of 64 times that size, eight of them are within the bound.
        let mut large = vec![(1, GIB / 3); 8];
        large.push((5, 64 * GIB));
        assert_eq!(choose(&candidates(&large), PLENTY), merge((2..=9).rev()));
    }

    /// Indexes of these sizes, newest first.
    fn indexes(sizes: &[u64]) -> Vec<Candidate> {
        let mut all = candidates(&sizes.iter().map(|bytes| (0, *bytes)).collect::<Vec<_>>());
        all.iter_mut().for_each(|candidate| candidate.kind = Kind::Dropped);
        all
    }

    /// Adds an index a day, and merges what is due. `next` gives the size of the next index,
    /// `merged` that of a merged one. Returns the length of the longest row, and the number of
    /// bytes that merges wrote.
    fn live(
        days: usize,
        next: impl Fn(usize) -> u64,
        merged: impl Fn(&[u64]) -> u64,
    ) -> (usize, u64, Vec<u64>) {
        let (mut row, mut longest, mut written) = (Vec::<u64>::new(), 0, 0);
        for day in 0..days {
            row.insert(0, next(day));
            longest = longest.max(row.len());
            while let Choice::Merge(numbers, _) = choose(&indexes(&row), PLENTY) {
                let start = row.len() - *numbers.first().expect("has inputs") as usize;
                let output = merged(&row[start..start + numbers.len()]);
                row.splice(start..start + numbers.len(), [output]);
                written += output;
            }
        }
        (longest, written, row)
    }

    #[test]
    fn indexes_of_many_millions_of_timelines_are_merged_again_and_again() {
        // 15 million timelines are about 400 MB of index a partition. Each day has the same
        // timelines.
        let (day, days) = (400_000_000, 1000);
        let (longest, written, row) =
            live(days, |_| day, |inputs| *inputs.iter().max().expect("has inputs"));
        assert!(
            longest <= FAN_IN && row.len() < FAN_IN,
            "{longest} at most, {} at the end",
            row.len()
        );
        assert!(written <= days as u64 * day / 6, "each is written once for seven that come");
        // The tail of a day is flushed separately: sizes alternate.
        let mixed = |day_number| if day_number % 2 == 0 { day } else { 1000 };
        let (longest, ..) = live(days, mixed, |inputs| *inputs.iter().max().expect("has inputs"));
        assert!(longest <= 2 * FAN_IN, "{longest}");
    }

    #[test]
    fn indexes_of_other_timelines_each_day_are_rewritten_only_a_few_times() {
        let (days, sum) = (4096, |inputs: &[u64]| inputs.iter().sum());
        let (longest, written, row) = live(days, |_| 1000, sum);
        assert_eq!(row.iter().sum::<u64>(), days as u64 * 1000);
        // Each merge makes an index that is at least four times as large: log₄(4096) = 6.
        assert!(longest <= 4 * FAN_IN && written <= 6 * days as u64 * 1000, "{longest}, {written}");
    }

    #[test]
    fn a_large_index_is_left_alone_until_there_are_others_of_its_size_or_far_too_many() {
        let mut sizes = vec![1; 7];
        sizes.push(100);
        assert_eq!(
            (choose(&indexes(&sizes), PLENTY), debt_bytes(&indexes(&sizes))),
            (Choice::Nothing, 0)
        );
        sizes.insert(0, 1);
        assert_eq!(choose(&indexes(&sizes), PLENTY), merge((2..=9).rev()));
        // One large index in every eight: no neighbours are alike.
        let peaks: Vec<u64> =
            (0..URGENT).map(|index| if index % 8 == 3 { 100 } else { 1 }).collect();
        assert_eq!(choose(&indexes(&peaks[1..]), PLENTY), Choice::Nothing);
        assert!(matches!(
            choose(&indexes(&peaks), PLENTY),
            Choice::Merge(inputs, true) if inputs.len() == FAN_IN
        ));
        assert_eq!(
            choose(&indexes(&[GIB; 8]), room(GIB)),
            Choice::Wait,
            "and the room of the disk counts"
        );
    }

    #[test]
    fn garbage_is_rewritten_first_alone_and_needs_room_only_for_live_data() {
        let mut all = candidates(&[(0, 10), (0, 10), (3, 1000)]);
        (all[2].is_garbage, all[2].alive_bytes) = (true, 100);
        assert_eq!((choose(&all, room(100)), debt_bytes(&all)), (merge([1]), 1000));
        assert_eq!(choose(&all, room(99)), Choice::Wait);
        assert_eq!(choose(&all, Room { merge_bytes: 0, rewrite_bytes: 100 }), merge([1]));
    }

    #[test]
    fn a_merge_needs_room_only_for_the_live_data_of_its_inputs() {
        let mut eight = candidates(&[(0, 10); 8]);
        eight.iter_mut().for_each(|candidate| candidate.alive_bytes = 6);
        assert_eq!(choose(&eight, room(48)), merge((1..=8).rev()));
        assert_eq!(choose(&eight, room(47)), merge((1..=7).rev()));
    }

    #[test]
    fn garbage_does_not_prevent_the_merge_of_a_growing_number_of_segments() {
        let mut all = candidates(&[(0, 10); 31]);
        (all[30].is_garbage, all[30].alive_bytes) = (true, 1);
        assert_eq!(choose(&all, PLENTY), merge([1]));
        let mut all = candidates(&[(0, 10); 32]);
        (all[31].is_garbage, all[31].alive_bytes) = (true, 1);
        assert!(matches!(choose(&all, PLENTY), Choice::Merge(inputs, true) if inputs.len() == 8));
    }

    #[test]
    fn merging_is_behind_with_too_many_segments_or_more_dead_than_live_data() {
        assert!(!is_behind(&candidates(&[(0, 1); 127]), 0));
        assert!(is_behind(&candidates(&[(0, 1); 128]), 0));
        let mut two = candidates(&[(1, 100), (2, 205)]);
        (two[1].is_garbage, two[1].alive_bytes) = (true, 5);
        assert!(is_behind(&two, 94) && !is_behind(&two, 95));
        two[1].is_whole = false;
        assert!(!is_behind(&two, 0), "what cannot be rewritten is not waited for");
    }

    #[test]
    fn merging_that_is_far_behind_hurries() {
        assert!(matches!(choose(&candidates(&[(0, 1); 32]), PLENTY), Choice::Merge(_, true)));
    }
}
