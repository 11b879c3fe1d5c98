//! A block of a segment that is in the page cache and not in the engine's: read by `pread`, and
//! through a memory map. Each is unpacked, as a block must be before it is used; its checksum is
//! verified each time, or, through the map, only at its first access. Decision 0020 has the result.
#![allow(missing_docs, reason = "the macros make undocumented functions")]
#![allow(clippy::disallowed_types, reason = "the engine's own file access is what is compared")]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use criterion::{Criterion, criterion_group, criterion_main};
use memmap2::Mmap;
use strandline_benches::workload::{Bodies, Random};

/// The raw size of a block of data.
const RAW_BYTES: usize = 16 * 1024;
const BLOCKS: usize = 8192;

struct Segment {
    file: File,
    map: Mmap,
    /// The position, the length and the checksum of each block.
    blocks: Vec<(usize, usize, u32)>,
}

#[allow(unsafe_code)]
fn segment() -> Segment {
    let (bodies, mut random) = (Bodies::new(1), Random::new(7));
    let mut packer = zstd::bulk::Compressor::new(1).expect("a context");
    let mut file = tempfile::tempfile().expect("a temporary file");
    let (mut blocks, mut at) = (Vec::new(), 0);
    for _ in 0..BLOCKS {
        let mut raw = Vec::with_capacity(RAW_BYTES + 256);
        while raw.len() < RAW_BYTES {
            raw.extend_from_slice(&random.next_u64().to_le_bytes()[..6]);
            raw.extend_from_slice(bodies.pick(&mut random));
        }
        raw.truncate(RAW_BYTES);
        let stored = packer.compress(&raw).expect("packs");
        file.write_all(&stored).expect("writes");
        blocks.push((at, stored.len(), crc32fast::hash(&stored)));
        at += stored.len();
    }
    // SAFETY: the file has no name, so nothing but this process can change or truncate it, and this
    // process only reads it from here on.
    let map = unsafe { Mmap::map(&file) }.expect("maps");
    Segment { file, map, blocks }
}

fn block_reads(criterion: &mut Criterion) {
    let segment = segment();
    let mut unpacker = zstd::bulk::Decompressor::new().expect("a context");
    let mut random = Random::new(9);
    let mut group = criterion.benchmark_group("block in the page cache");
    group.bench_function("pread, checksum", |bencher| {
        bencher.iter(|| {
            let (at, len, sum) = segment.blocks[random.below(BLOCKS as u32) as usize];
            let mut packed = vec![0; len];
            segment.file.read_exact_at(&mut packed, at as u64).expect("reads");
            assert_eq!(crc32fast::hash(&packed), sum);
            unpacker.decompress(&packed, RAW_BYTES).expect("unpacks")
        });
    });
    for (name, verifies) in [("map, checksum", true), ("map, checked before", false)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (at, len, sum) = segment.blocks[random.below(BLOCKS as u32) as usize];
                let packed = &segment.map[at..at + len];
                assert!(!verifies || crc32fast::hash(packed) == sum);
                unpacker.decompress(packed, RAW_BYTES).expect("unpacks")
            });
        });
    }
}

criterion_group!(benches, block_reads);
criterion_main!(benches);
