//! Receipts, most of them of a few shops: durable batches of 10, then the newest 20 of a shop.

use std::path::Path;

use anyhow::Result;
use strandline_benches::drive::{self, Feed, Pace};
use strandline_benches::peers::{Durability, Peer, Work};
use strandline_benches::report::{Column, Table};
use strandline_benches::rounds::{Contestant, Settings, Workload, alternate};
use strandline_benches::workload::{Append, Bodies, Random, Zipf};

struct Receipts<'d> {
    written: Vec<Append<'d>>,
    read: Vec<u32>,
}

impl<'d> Receipts<'d> {
    fn new(bodies: &'d Bodies, count: usize) -> Receipts<'d> {
        let (shops, mut random) = (Zipf::new(10_000), Random::new(42));
        let mut receipts = Receipts { written: Vec::new(), read: Vec::new() };
        for _ in 0..count {
            let timeline = shops.rank(&mut random);
            let bytes = 40 + random.below(360) as usize;
            let body = bodies.piece(&mut random, bytes);
            receipts.written.push(Append { timeline, body });
            receipts.read.push(random.below(10_000));
        }
        receipts
    }
}

impl Workload for Receipts<'_> {
    fn title(&self) -> String {
        format!("Receipts, {} in durable batches of 10", self.written.len())
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::compared("receipts/s"),
            Column::plain("p99 µs of a batch"),
            Column::compared("reads/s"),
        ]
    }

    fn measure(&self, contestant: &Contestant, peer: &dyn Peer, _: &Path) -> Result<Vec<f64>> {
        let feed: Feed<'_> = Box::new(self.written.chunks(10).map(Work::Appends));
        let pace = Pace::new(contestant.window, Durability::Synced);
        let written = drive::run(peer, vec![feed], pace)?;
        let rate = written.timeline_writes_per_second();
        peer.flush()?;
        let read = drive::read_latest(peer, &self.read, 20)?;
        Ok(vec![rate, written.latency_us(0.99), read.works_per_second()])
    }
}

/// At scale 1, 200,000 receipts.
pub fn compare(settings: &Settings) -> Result<Table> {
    let bodies = Bodies::new(1);
    alternate(settings, &Receipts::new(&bodies, settings.count(200_000, 1_000)))
}

fn main() -> Result<()> {
    let settings = Settings::from_command_line();
    settings.show(&compare(&settings)?)
}
