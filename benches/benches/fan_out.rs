//! One message to a conversation and 500 members, logged and synced, each answer waited for.
#![allow(missing_docs, reason = "the macros make undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_benches::peers::{Copies, Durability, Kind, Pending, Work};
use strandline_benches::workload::{Bodies, fan_outs, groups};

const MEMBERS: usize = 500;
const MESSAGES: usize = 10_000;

fn fan_out(criterion: &mut Criterion) {
    let bodies = Bodies::new(1);
    let groups = groups(MEMBERS);
    let all = fan_outs(&bodies, &groups, MESSAGES, 0, 1);
    for (durability, name) in
        [(Durability::Logged, "fan-out logged"), (Durability::Synced, "fan-out durable")]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(MEMBERS as u64 + 1));
        for kind in Kind::built() {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let peer = kind.open(dir.path(), Copies::References).expect("an open engine");
            let mut feed = all.iter().cycle();
            group.bench_function(kind.name(), |bencher| {
                bencher.iter(|| {
                    let one = *feed.next().expect("a cycle has no end");
                    peer.submit(Work::FanOut(one), durability)
                        .and_then(Pending::wait)
                        .expect("acknowledged");
                });
            });
        }
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
