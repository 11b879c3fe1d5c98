//! Changes of entries, looked up around the position of a read (P7): their cost depends on what is
//! read, not on the total number of changes.
//!
//! A timeline's changes are in layers, one for each place that changes older ones, the newest
//! first. A read that comes to an entry loads the changes around it from all layers into a window,
//! and loads another window when it leaves this one. The body of an edit is read when it is
//! returned, not before.
//!
//! This file does not know where layers keep their changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use super::changes::{Changes, Edit};
use crate::error::Result;
use crate::ids::{CommitPlace, Sequence};

/// The number of removed ranges and edits that are loaded from a layer at once, on each side.
const AROUND: usize = 64;

/// The changes that one place makes in older ones. A look-up blocks nobody else.
pub(crate) trait Layer {
    /// Only entries below this sequence are changed.
    fn bound(&self) -> Sequence;

    /// Removed ranges, at most `most` per side: those that begin at or below `around`, descending,
    /// and those that begin above it, ascending.
    fn removed(&self, around: Sequence, most: usize) -> Sides<(Sequence, Sequence)>;

    /// Edits in the same order, with the places of their commits.
    fn edited(&self, around: Sequence, most: usize) -> Sides<(Sequence, (CommitPlace, NewBody))>;

    /// Reads the new body of an entry. It keeps little more than itself in memory, unless it is
    /// small.
    fn body(&self, sequence: Sequence, number: u32) -> Result<Bytes>;
}

/// The elements on both sides of a sequence, in order of distance from it.
#[derive(Debug)]
pub(crate) struct Sides<T> {
    pub below: Vec<T>,
    pub above: Vec<T>,
}

/// A body that replaces the one that an entry was written with.
#[derive(Clone, Debug)]
pub(crate) enum NewBody {
    /// In memory.
    Here(Bytes),
    /// In its layer, by number.
    Stored(u32),
}

/// The changes that the places visited so far make in older ones.
#[derive(Clone, Default)]
pub(crate) struct Overlay<'v> {
    /// Newest first.
    layers: Vec<Rc<dyn Layer + 'v>>,
    /// Most reads meet no changes, and make none.
    window: RefCell<Option<Box<Window>>>,
}

/// All changes to a range of sequences.
#[derive(Clone, Debug)]
struct Window {
    first: Sequence,
    last: Sequence,
    removed: Changes,
    /// The newest edit of each sequence.
    edited: BTreeMap<Sequence, FoundEdit>,
}

/// An edit in a window.
#[derive(Clone, Debug)]
pub(crate) struct FoundEdit {
    /// The place of its commit.
    pub at: CommitPlace,
    /// The index of its layer.
    layer: usize,
    body: NewBody,
}

impl<'v> Overlay<'v> {
    /// Adds the changes of an older place.
    pub fn add_older(&mut self, layer: Option<Rc<dyn Layer + 'v>>) {
        if let Some(layer) = layer {
            self.layers.push(layer);
            self.window.take();
        }
    }

    /// Whether there are no changes at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether an entry was removed.
    #[inline]
    pub fn removes(&self, sequence: Sequence) -> bool {
        !self.layers.is_empty() && self.at(sequence, |window| window.removed.removes(sequence))
    }

    /// Whether an entry has another body.
    #[inline]
    pub fn edits(&self, sequence: Sequence) -> bool {
        !self.layers.is_empty() && self.at(sequence, |window| window.edited.contains_key(&sequence))
    }

    /// The body that replaces the one that an entry was written with, if there is one.
    #[inline]
    pub fn find(&self, sequence: Sequence) -> Option<FoundEdit> {
        if self.layers.is_empty() {
            return None;
        }
        self.at(sequence, |window| window.edited.get(&sequence).cloned())
    }

    /// Reads a body that was found.
    pub fn read(&self, sequence: Sequence, found: FoundEdit) -> Result<Bytes> {
        match found.body {
            NewBody::Here(bytes) => Ok(bytes),
            NewBody::Stored(number) => self.layers[found.layer].body(sequence, number),
        }
    }

    /// Whether an entry in a range may have been removed or have another body.
    pub fn touches(&self, first: Sequence, last: Sequence) -> bool {
        let touches = |window: &Window| {
            window.removed.removed_within(first, last.min(window.last)) > 0
                || window.edited.range(first..=last.min(window.last)).next().is_some()
        };
        !self.layers.is_empty()
            && first <= last
            && self.at(first, |window| window.last < last || touches(window))
    }

    /// The parts of a range that were not removed, ascending.
    pub fn left_of(&self, mut first: Sequence, last: Sequence) -> Vec<(Sequence, Sequence)> {
        let mut left: Vec<(Sequence, Sequence)> = Vec::new();
        while first <= last {
            let (to, more) = if self.layers.is_empty() {
                (last, vec![(first, last)])
            } else {
                self.at(first, |window| {
                    let to = window.last.min(last);
                    (to, window.removed.left_of(first, to))
                })
            };
            for (start, end) in more {
                match left.last_mut() {
                    Some(before) if before.1 + 1 == start => before.1 = end,
                    _ => left.push((start, end)),
                }
            }
            let Some(next) = to.checked_add(1) else { break };
            first = next;
        }
        left
    }

    /// Passes the window that contains `sequence` to `look`.
    fn at<T>(&self, sequence: Sequence, look: impl FnOnce(&Window) -> T) -> T {
        let mut kept = self.window.borrow_mut();
        let is_in = |window: &Window| (window.first..=window.last).contains(&sequence);
        if !kept.as_deref().is_some_and(is_in) {
            *kept = Some(Box::new(Window::around(&self.layers, sequence)));
        }
        look(kept.as_deref().expect("it was just made"))
    }
}

impl fmt::Debug for Overlay<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Overlay").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl Window {
    fn around(layers: &[Rc<dyn Layer + '_>], sequence: Sequence) -> Window {
        let (first, last) = (0, Sequence::MAX);
        let mut window =
            Window { first, last, removed: Changes::default(), edited: BTreeMap::new() };
        for (number, layer) in layers.iter().enumerate() {
            if layer.bound() <= sequence {
                // The layer applies below its bound.
                window.first = window.first.max(layer.bound());
                continue;
            }
            let Sides { below, above } = layer.removed(sequence, AROUND);
            window.clip(&below, &above, |(first, _)| *first);
            let all = below.iter().chain(&above);
            all.for_each(|(first, last)| window.removed.remove(*first, *last));
            let Sides { below, above } = layer.edited(sequence, AROUND);
            window.clip(&below, &above, |(sequence, _)| *sequence);
            for (sequence, (at, body)) in below.into_iter().chain(above) {
                window.edited.entry(sequence).or_insert(FoundEdit { at, layer: number, body });
            }
        }
        window
    }

    /// Limits the window to the part in which no changes were left out.
    fn clip<T>(&mut self, below: &[T], above: &[T], at: impl Fn(&T) -> Sequence) {
        if let Some(lowest) = below.last().filter(|_| below.len() >= AROUND) {
            self.first = self.first.max(at(lowest));
        }
        if let Some(highest) = above.last().filter(|_| above.len() >= AROUND) {
            self.last = self.last.min(at(highest));
        }
    }
}

/// Look-ups in changes that are in memory.
impl Changes {
    pub fn removed_around(&self, around: Sequence, most: usize) -> Sides<(Sequence, Sequence)> {
        let pair = |(first, last): (&Sequence, &Sequence)| (*first, *last);
        let below = self.removed.range(..=around).rev().take(most).map(pair).collect();
        let above = self.removed.range(around.saturating_add(1)..).take(most).map(pair).collect();
        Sides { below, above }
    }

    pub fn edited_around(
        &self,
        around: Sequence,
        most: usize,
    ) -> Sides<(Sequence, (CommitPlace, NewBody))> {
        let Sides { below, above } = self.edits_around(around, most);
        Sides { below: below.iter().map(here).collect(), above: above.iter().map(here).collect() }
    }

    /// The same, as they are kept.
    pub fn edits_around(&self, around: Sequence, most: usize) -> Sides<(Sequence, &Edit)> {
        let below = self.edited.range(..=around).rev().take(most);
        let above = self.edited.range(around.saturating_add(1)..).take(most);
        Sides {
            below: below.map(|(sequence, edit)| (*sequence, edit)).collect(),
            above: above.map(|(sequence, edit)| (*sequence, edit)).collect(),
        }
    }
}

/// An edit in memory, as a layer returns it.
fn here((sequence, edit): &(Sequence, &Edit)) -> (Sequence, (CommitPlace, NewBody)) {
    (*sequence, (edit.at, NewBody::Here(edit.body.clone())))
}

/// Removed ranges on both sides of a sequence.
pub(crate) type RemovedSides = Sides<(Sequence, Sequence)>;

/// Edits on both sides of a sequence.
pub(crate) type EditSides = Sides<(Sequence, (CommitPlace, NewBody))>;

/// Both sides of a sequence in sorted ranges.
pub(crate) fn removed_sides(
    ranges: &[(Sequence, Sequence)],
    around: Sequence,
    most: usize,
) -> RemovedSides {
    sides(ranges, around, most, |(first, _)| *first, |range| *range)
}

/// Both sides of a sequence in sorted edits.
pub(crate) fn edit_sides(edits: &[(Sequence, &Edit)], around: Sequence, most: usize) -> EditSides {
    sides(edits, around, most, |(sequence, _)| *sequence, here)
}

/// The elements of a list sorted by `at`, on both sides of a sequence.
pub(crate) fn sides<T, U>(
    row: &[T],
    around: Sequence,
    most: usize,
    at: impl Fn(&T) -> Sequence,
    give: impl Fn(&T) -> U,
) -> Sides<U> {
    let (below, above) = row.split_at(row.partition_point(|one| at(one) <= around));
    Sides {
        below: below.iter().rev().take(most).map(&give).collect(),
        above: above.iter().take(most).map(&give).collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Changes of entries below a sequence. An edit's number is its sequence.
    pub struct TestLayer(pub Changes, pub Sequence);

    impl Layer for TestLayer {
        fn bound(&self) -> Sequence {
            self.1
        }

        fn removed(&self, around: Sequence, most: usize) -> Sides<(Sequence, Sequence)> {
            self.0.removed_around(around, most)
        }

        fn edited(
            &self,
            around: Sequence,
            most: usize,
        ) -> Sides<(Sequence, (CommitPlace, NewBody))> {
            let edited: Vec<Sequence> = self.0.edited.keys().copied().collect();
            let stored = |at: &Sequence| (*at, (CommitPlace(0), NewBody::Stored(*at as u32)));
            sides(&edited, around, most, |at| *at, stored)
        }

        fn body(&self, sequence: Sequence, number: u32) -> Result<Bytes> {
            assert_eq!(sequence, Sequence::from(number));
            Ok(self.0.edited[&sequence].body.clone())
        }
    }

    const LAST: Sequence = 1500;

    /// Removed ranges, as the first sequence and the number of further ones, and edited sequences.
    type Made = (Vec<(Sequence, u64)>, Vec<Sequence>);

    /// Layers, newest first: those of older places have lower bounds.
    fn layers() -> impl Strategy<Value = Vec<Made>> {
        let removed = prop::collection::vec((1..LAST, 0..3u64), 0..300);
        let edited = prop::collection::vec(1..LAST, 0..300);
        prop::collection::vec((removed, edited), 1..4)
    }

    proptest! {
        #[test]
        fn windows_find_the_same_as_all_changes_together(
            of in layers(),
            walk in prop::collection::vec(1..LAST, 1..40),
        ) {
            let (mut overlay, mut all) = (Overlay::default(), Changes::default());
            for (number, (removed, edited)) in of.iter().enumerate() {
                let bound = if number == 0 { Sequence::MAX } else { LAST - 400 * number as u64 };
                let mut changes = Changes::default();
                for (first, more) in removed.iter().filter(|(first, more)| first + more < bound) {
                    changes.remove(*first, first + more);
                }
                let edited = edited.iter().filter(|sequence| **sequence < bound);
                let edit = |at| {
                    Edit { at: CommitPlace(0), body: Bytes::from(format!("{number} {at}")) }
                };
                changes.edited = edited.map(|at| (*at, edit(at))).collect();
                all.add_older(changes.clone());
                overlay.add_older(Some(Rc::new(TestLayer(changes, bound))));
            }
            let there_and_back = (1..=LAST).chain((1..=LAST).rev()).chain(walk.iter().copied());
            for sequence in there_and_back {
                prop_assert_eq!(overlay.removes(sequence), all.removes(sequence));
                prop_assert_eq!(overlay.edits(sequence), all.edited.contains_key(&sequence));
                let body = overlay
                    .find(sequence)
                    .map(|found| overlay.read(sequence, found).expect("in memory"));
                prop_assert_eq!(body.as_ref(), all.edited.get(&sequence).map(|edit| &edit.body));
            }
            for pair in walk.windows(2) {
                let (first, last) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                prop_assert_eq!(overlay.left_of(first, last), all.left_of(first, last));
                let touched = all.removed_within(first, last) > 0
                    || all.edited.range(first..=last).next().is_some();
                prop_assert!(overlay.touches(first, last) || !touched);
            }
        }
    }

    #[test]
    fn a_read_loads_the_changes_around_it_and_not_all() {
        let mut changes = Changes::default();
        (1..=100_000).step_by(2).for_each(|sequence| changes.remove(sequence, sequence));
        let mut overlay = Overlay::default();
        overlay.add_older(Some(Rc::new(TestLayer(changes, Sequence::MAX))));
        let shown = (40_000..40_100).filter(|sequence| !overlay.removes(*sequence)).count();
        assert_eq!(shown, 50);
        let window = overlay.window.borrow();
        let window = window.as_deref().expect("it was looked at");
        assert!(
            window.removed.removed.len() <= 2 * AROUND,
            "{} ranges",
            window.removed.removed.len()
        );
    }
}
