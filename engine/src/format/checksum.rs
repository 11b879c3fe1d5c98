//! Checksums, and the hash of filter keys and of retried batches. Both are part of the format.

use crate::ids::EngineId;

/// The start value of a checksum, so that valid bytes at a wrong position do not match. A seed is
/// itself the CRC of some bytes, and a checksum is that of these bytes followed by its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// For file headers: they contain the engine id, which all other seeds start from.
    pub const NONE: Seed = Seed(0);

    /// The seed for one engine and one position: a file number (refined by [`Seed::at`]) or a
    /// position in the log.
    pub fn new(engine: EngineId, position: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&engine.0);
        hasher.update(&position.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// The seed for a position inside the one that this seed is for.
    pub fn at(self, position: u64) -> Seed {
        Seed(crc(self, &position.to_le_bytes()))
    }
}

/// The CRC-32 (ISO-HDLC) of the bytes, continued from the seed.
pub fn crc(seed: Seed, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.0);
    hasher.update(bytes);
    hasher.finalize()
}

/// The CRC-32 of two pieces, as if concatenated.
pub fn crc_of_two(seed: Seed, first: &[u8], second: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.0);
    hasher.update(first);
    hasher.update(second);
    hasher.finalize()
}

/// The hash of a filter's keys, and of the bodies and names of a batch with an id: eight bytes a
/// step, multiply and rotate, then a final mix so that every bit depends on every byte. Not secret:
/// every process that reads the file must compute the same value. Not resistant to collisions made
/// on purpose: a client could only deceive itself about its retries, or cost a needless look-up.
pub fn name_hash(name: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = ODD ^ name.len() as u64;
    let mut pieces = name.chunks_exact(8);
    for piece in &mut pieces {
        let word = u64::from_le_bytes(piece.try_into().expect("chunks_exact gives eight bytes"));
        hash = (hash.rotate_left(29) ^ word).wrapping_mul(ODD);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(pieces.remainder()) {
        *to = *from;
    }
    hash = (hash.rotate_left(29) ^ u64::from_le_bytes(last)).wrapping_mul(ODD);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_hash_is_part_of_the_format() {
        let golden = [name_hash(b""), name_hash(b"a"), name_hash(b"u/{12345678}")];
        assert_eq!(
            golden,
            [7_358_243_651_256_350_163, 11_671_219_695_422_773_984, 6_653_918_681_106_085_759]
        );
    }

    #[test]
    fn similar_names_have_different_hashes() {
        let low: HashSet<u64> =
            (0..10_000).map(|n| name_hash(format!("u/{n}").as_bytes()) & 0xFFFF).collect();
        // 10,000 balls thrown evenly into 65,536 bins fill 9,300 of them.
        assert!(low.len() > 9_100, "only {} different low words", low.len());
    }

    #[test]
    fn a_checksum_is_that_of_the_bytes_of_its_seed_and_its_own() {
        let seed = Seed::new(EngineId([7; 16]), 42);
        let pieces = [&[7; 16][..], &42_u64.to_le_bytes(), &4096_u64.to_le_bytes(), b"123456789"];
        assert_eq!(crc(Seed::NONE, b"123456789"), 0xCBF4_3926);
        assert_eq!(crc(seed.at(4096), b"123456789"), 1_336_553_417);
        assert_eq!(crc(Seed::NONE, &pieces.concat()), 1_336_553_417);
        assert_eq!(crc_of_two(seed.at(4096), b"1234", b"56789"), 1_336_553_417);
    }

    #[test]
    fn good_bytes_at_another_position_do_not_match() {
        let engine = EngineId([1; 16]);
        let sums: HashSet<u32> =
            (0..100).map(|position| crc(Seed::new(engine, position), b"the same bytes")).collect();
        assert_eq!(sums.len(), 100);
        assert_ne!(
            crc(Seed::new(EngineId([2; 16]), 0), b"the same bytes"),
            crc(Seed::new(engine, 0), b"the same bytes")
        );
    }
}
