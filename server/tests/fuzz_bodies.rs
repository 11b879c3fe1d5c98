//! The fuzz target of the request decoder, run bounded and without a fuzzer. `fuzz/` runs the same
//! body without a bound. `STRANDLINE_BLESS=1` writes the seeds of the target anew.
//!
//! The protocol's room is private to the server, and needs nothing of it: its files are compiled
//! here unchanged.

#[allow(dead_code, unused_imports, reason = "the encoder is not asked here")]
#[path = "../src/protocol/mod.rs"]
mod protocol;
#[path = "bodies/requests.rs"]
mod requests;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Pieces of requests, good and bad.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..6)
            .prop_map(|arguments| requests::array(&arguments)),
        1 => prop::sample::select(dictionary()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The pieces of the fuzzer's dictionary.
fn dictionary() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(fuzz().join("resp.dict")).expect("there is a dictionary");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| unquoted(line).unwrap_or_else(|| panic!("{line}: not an entry"))).collect()
}

/// An entry of a dictionary of libFuzzer.
fn unquoted(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = match (first, rest.as_bytes()) {
            ('\\', [_, b'x', _, _, ..]) => {
                bytes.push(u8::from_str_radix(rest.get(2..4)?, 16).ok()?);
                4
            }
            ('\\', [_, escaped @ (b'\\' | b'"'), ..]) => {
                bytes.push(*escaped);
                2
            }
            (' '..='~', _) if first != '"' && first != '\\' => {
                bytes.push(first as u8);
                1
            }
            _ => return None,
        };
        rest = &rest[length..];
    }
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// The seeds of the target: a byte that splits, and a client's bytes.
fn seeds() -> Vec<Vec<u8>> {
    let fan_out = requests::array(&["TL.FANOUT", "to all", "2", "messages:room", "sync:inbox-ann"]);
    let read = requests::array(&["TL.READ", "sync:inbox-ann", "AFTER", "0", "BLOCK", "1000"]);
    let clients = [
        requests::array(&["PING"]),
        [fan_out, read].concat(),
        requests::array(&["AUTH", ""]),
        b"\r\n*0\r\n*-1\r\nTL.APPEND messages:room \"a b\\n\\x41\" ID 'it\\'s'\n".to_vec(),
        b"*2\r\n$4\r\nECHO\r\n$100000\r\n".to_vec(),
        b"*1\r\n$99999999999999999999\r\n".to_vec(),
    ];
    (0..).zip(clients).map(|(split, bytes)| [&[split], bytes.as_slice()].concat()).collect()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "seeds are files on the disk")]
fn seeds_of_the_target_are_kept() {
    let folder = fuzz().join("seeds/requests");
    let wanted = seeds();
    if std::env::var("STRANDLINE_BLESS").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for (number, seed) in wanted.iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed).expect("a seed can be written");
        }
    }
    let kept = std::fs::read_dir(&folder).expect("there are seeds").count();
    assert_eq!(kept, wanted.len());
    for (number, seed) in wanted.iter().enumerate() {
        requests::requests(seed);
        let kept = std::fs::read(folder.join(number.to_string())).expect("a seed can be read");
        assert!(kept == *seed, "seed {number} differs: STRANDLINE_BLESS=1 rewrites it");
    }
}

#[test]
fn an_entry_of_the_dictionary_is_read_as_libfuzzer_reads_it() {
    assert_eq!(unquoted(r#""*1\x0d\x0a\\\"""#), Some(b"*1\r\n\\\"".to_vec()));
    for wrong in [r#""""#, r#""\n""#, r#""\x0""#, r"PING", r#""a"b""#] {
        assert_eq!(unquoted(wrong), None, "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_of_a_client_are_requests_or_one_error(
        split: u8,
        pieces in prop::collection::vec(piece(), 0..8),
    ) {
        let mut bytes = vec![split];
        bytes.extend(pieces.concat());
        requests::requests(&bytes);
    }
}
