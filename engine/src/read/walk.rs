//! A walk over the places that a read needs, from the newest to the oldest, with the changes that
//! each makes in older ones.
//!
//! This file does not know the content of the places.

use super::places::{Gap, Gaps, Place, steps};
use super::reading::Reading;
use crate::error::Result;
use crate::ids::Sequence;
use crate::timeline::{End, Overlay, Span};

/// The end of a timeline, and the parts that were walked.
pub struct Walk<'v> {
    pub end: End,
    /// The changes that the walked places make in older ones.
    pub overlay: Overlay<'v>,
    /// Newest first.
    pub parts: Vec<Part<'v>>,
}

/// A range of a timeline's sequences.
pub enum Part<'v> {
    Place(Place<'v>),
    Gap(Gap),
}

impl Part<'_> {
    /// Its lowest sequence.
    pub fn first(&self) -> Sequence {
        match self {
            Part::Place(place) => place.span.first,
            Part::Gap(gap) => gap.first,
        }
    }
}

impl Walk<'_> {
    /// The places, oldest first.
    pub fn places_ascending(&self) -> impl Iterator<Item = &Place<'_>> {
        self.parts.iter().rev().filter_map(|part| match part {
            Part::Place(place) => Some(place),
            Part::Gap(_) => None,
        })
    }
}

impl<'v> Reading<'v> {
    /// Walks from the newest place to the oldest. The last place walked is the first with entries
    /// for which `enough` returns true or that begins at or below the floor; or the first place
    /// without entries if none of the timeline is left.
    pub fn walk(&self, mut enough: impl FnMut(&Span) -> bool) -> Result<Walk<'v>> {
        let mut walk = Walk { end: End::NEVER, overlay: Overlay::default(), parts: Vec::new() };
        let (mut gaps, mut known) = (Gaps::default(), false);
        for met in steps(self) {
            let Some((mut step, gap)) = gaps.meet(met?, self)? else { continue };
            if !std::mem::replace(&mut known, true) {
                walk.end = step.end;
            }
            walk.parts.extend(gap.map(Part::Gap));
            walk.overlay.add_older(step.take_layer());
            let done = match step.span() {
                Some(span) => enough(span) || span.first <= walk.end.floor.lowest,
                None => !walk.end.has_entries(),
            };
            walk.parts.extend(step.place().map(Part::Place));
            if done {
                return Ok(walk);
            }
        }
        // Hidden segments older than every known place.
        walk.parts.extend(gaps.close(walk.end.floor.lowest.saturating_sub(1)).map(Part::Gap));
        Ok(walk)
    }
}
