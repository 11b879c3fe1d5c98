//! The newest 50 entries of a timeline: from memory directly after writing, and flushed and
//! compacted.
#![allow(missing_docs, reason = "the macros make undocumented functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_benches::drive::{self, Feed, Pace};
use strandline_benches::peers::{Copies, Durability, Kind, Work};
use strandline_benches::workload::{Append, Bodies, Random};

const COUNT: usize = 50;
const TIMELINES: u32 = 1_000;
const ENTRIES_EACH: u32 = 100;

fn latest(criterion: &mut Criterion) {
    let bodies = Bodies::new(1);
    let mut random = Random::new(5);
    let all: Vec<Append<'_>> = (0..TIMELINES * ENTRIES_EACH)
        .map(|number| Append { timeline: number % TIMELINES, body: bodies.pick(&mut random) })
        .collect();
    let mut group = criterion.benchmark_group("latest 50");
    group.throughput(Throughput::Elements(COUNT as u64));
    for kind in Kind::built() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let peer = kind.open(dir.path(), Copies::Inline).expect("an open engine");
        let window = if kind == Kind::Strandline { 1_024 } else { 1 };
        let pace = Pace {
            window,
            together: false,
            durability: Durability::Logged,
            stop_after: None,
            latencies: false,
        };
        let feed: Feed<'_> = Box::new(all.chunks(1).map(Work::Appends));
        drive::run(peer.as_ref(), vec![feed], pace).expect("a filled engine");
        for state in ["as written", "compacted"] {
            if state == "compacted" {
                peer.flush().and_then(|()| peer.compact()).expect("a compaction");
            }
            group.bench_function(format!("{}, {state}", kind.name()), |bencher| {
                bencher.iter(|| {
                    let timeline = random.below(TIMELINES);
                    black_box(peer.latest(timeline, COUNT).expect("a read"));
                });
            });
        }
    }
}

criterion_group!(benches, latest);
criterion_main!(benches);
