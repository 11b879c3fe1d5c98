//! `compare --workload w7` measures an engine that was really killed.
#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn a_killed_engine_is_recovered_and_measured() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(["--workload", "w7", "--scale", "0.001", "--rounds", "1", "--peers", "strandline"])
        .arg("--dir")
        .arg(dir.path())
        .output()
        .expect("compare runs");
    let table = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    for line in ["| strandline, default budget | ", "| strandline, 8 GiB: nothing flushed | "] {
        let figures = table.lines().find_map(|row| row.strip_prefix(line)).expect(line);
        assert!(figures.starts_with(|digit: char| digit.is_ascii_digit()), "{table}");
    }
}
