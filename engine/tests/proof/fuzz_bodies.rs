//! The fuzz targets' bodies, run bounded and without a fuzzer: on the output of encoders, on that
//! with a few bytes changed, and on noise. `fuzz/` runs the same bodies without a bound.
//!
//! `STRANDLINE_PROOF=long` does forty times as much. `STRANDLINE_BLESS=1` writes the seeds of the
//! targets anew. That these tests and the targets can fail is shown by `engine/tests/mutants.py`.

mod decoders;
mod examples;
mod operations;

use std::path::Path;

use strandline::vfs::simulated::Dice;

fn rounds(short: u64) -> u64 {
    if std::env::var("STRANDLINE_PROOF").is_ok_and(|value| value == "long") {
        40 * short
    } else {
        short
    }
}

fn byte(dice: &mut Dice) -> u8 {
    dice.below(256) as u8
}

fn noise(dice: &mut Dice, most: u64) -> Vec<u8> {
    (0..dice.below(most)).map(|_| byte(dice)).collect()
}

/// The bytes with a few changes: other values, pieces removed, pieces repeated, the end cut off.
fn changed(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = dice.below(bytes.len() as u64) as usize;
        let end = bytes.len().min(at + 1 + dice.below(8) as usize);
        match dice.below(5) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at..end].fill([0, 0xFF, 0x7F, 0x80][dice.below(4) as usize]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn decoders_keep_their_promises_for_good_bytes_changed_bytes_and_noise() {
    for (name, body) in decoders::ALL {
        let mut dice = Dice::new(name.len() as u64);
        let examples = examples::of_target(name);
        for (number, example) in examples.iter().enumerate() {
            assert!(body(example), "{name}: example {number} is not encoded to the same bytes");
        }
        for _ in 0..rounds(2000) {
            for example in &examples {
                body(&changed(example, &mut dice));
            }
            body(&noise(&mut dice, 200));
        }
    }
}

/// The seeds of a target that are kept in the repository.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "operations" => (0..8).map(|seed| noise(&mut Dice::new(seed), 240)).collect(),
        decoder => examples::of_target(decoder),
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "seeds are files on the disk")]
fn seeds_of_the_targets_follow_the_format() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for target in decoders::ALL.iter().map(|(name, _)| *name).chain(["operations"]) {
        let folder = folder.join(target);
        let wanted = seeds(target);
        if std::env::var("STRANDLINE_BLESS").is_ok_and(|value| value == "1") {
            std::fs::create_dir_all(&folder).expect("a folder can be made");
            for (number, seed) in wanted.iter().enumerate() {
                std::fs::write(folder.join(number.to_string()), seed)
                    .expect("a seed can be written");
            }
        }
        let kept = std::fs::read_dir(&folder).expect("each target has seeds").count();
        assert_eq!(kept, wanted.len(), "{target}: number of seeds");
        for (number, seed) in wanted.iter().enumerate() {
            let kept = std::fs::read(folder.join(number.to_string())).expect("a seed can be read");
            assert!(
                kept == *seed,
                "{target}: seed {number} differs: STRANDLINE_BLESS=1 rewrites it"
            );
        }
    }
}

#[test]
fn an_engine_answers_as_a_plain_map_does() {
    for seed in 0..rounds(400) {
        operations::operations(&noise(&mut Dice::new(seed), 240));
    }
}

#[test]
fn each_body_has_a_target_and_each_target_a_body() {
    let names = decoders::ALL.iter().map(|(name, _)| *name);
    let targets = include_str!("../../../fuzz/Cargo.toml");
    let mut listed: Vec<&str> = targets
        .split("[[bin]]\nname = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default())
        .collect();
    let mut bodies: Vec<&str> = names.chain(["operations", "requests"]).collect();
    listed.sort_unstable();
    bodies.sort_unstable();
    assert_eq!(listed, bodies);
}
