//! The span and the counters of a merge.
//!
//! This file does not know how segments are merged.

use std::sync::Arc;

use tracing::Span;
use tracing::field::Empty;

use crate::format::manifest::SegmentRecord;
use crate::metrics::MERGE;
use crate::segment::Segment;
use crate::state::State;

/// The span of a merge.
pub(super) fn span(inputs: &[Arc<Segment>]) -> Span {
    let store = inputs[0].record().store.0;
    let inputs = inputs.len();
    tracing::info_span!(MERGE, store, inputs, file = Empty, entries = Empty, bytes = Empty)
}

/// Adds the output of a merge to its span.
pub(super) fn record(span: &Span, output: &SegmentRecord) {
    span.record("file", output.number);
    span.record("entries", output.entries);
    span.record("bytes", output.bytes());
}

/// Counts a merge that is live. `record` is what it wrote, `expired` the number of entries that it
/// left out because their own lifetime had ended.
pub(super) fn count(
    state: &State,
    inputs: &[Arc<Segment>],
    output: &[Arc<Segment>],
    record: &SegmentRecord,
    expired: u64,
) {
    let bytes = |segments: &[Arc<Segment>]| {
        segments.iter().map(|segment| segment.record().bytes()).sum::<u64>()
    };
    let reclaimed = bytes(inputs).saturating_sub(bytes(output));
    let counters = &state.counters;
    counters.merges.add(1);
    counters.merge_bytes.add(record.bytes());
    counters.expired_entries.add(expired);
    if inputs.len() == 1 {
        &counters.rewrite_reclaimed_bytes
    } else {
        &counters.merge_reclaimed_bytes
    }
    .add(reclaimed);
}
