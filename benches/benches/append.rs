//! One append at a time: logged and synced, each answer waited for. `compare` measures rates with
//! many in flight.
#![allow(missing_docs, reason = "the macros make undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_benches::peers::{Copies, Durability, Kind, Pending, Work};
use strandline_benches::workload::{Bodies, appends};

const APPENDS: usize = 100_000;

fn append(criterion: &mut Criterion) {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, APPENDS, 0, 1);
    for (durability, name) in
        [(Durability::Logged, "append logged"), (Durability::Synced, "append durable")]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for kind in Kind::built() {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let peer = kind.open(dir.path(), Copies::Inline).expect("an open engine");
            let mut feed = all.chunks(1).cycle();
            group.bench_function(kind.name(), |bencher| {
                bencher.iter(|| {
                    let one = feed.next().expect("a cycle has no end");
                    peer.submit(Work::Appends(one), durability)
                        .and_then(Pending::wait)
                        .expect("acknowledged");
                });
            });
        }
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
