//! The example of docs/workloads.md: the page shows the file, and the file runs.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "`main` is for the example")]
#[path = "../examples/receipts.rs"]
mod receipts;

use std::fs;
use std::path::Path;

use strandline_benches::peers::Kind;
use strandline_benches::rounds::Settings;

fn text_of(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The content of the first block of Rust in a page.
fn rust_block(page: &str) -> &str {
    let (_, from_block) = page.split_once("```rust\n").expect("a block of Rust");
    from_block.split_once("```\n").expect("its end").0
}

#[test]
fn the_page_shows_the_example() {
    let page = text_of("../docs/workloads.md");
    assert_eq!(rust_block(&page), text_of("examples/receipts.rs"), "docs/workloads.md");
}

#[test]
fn the_example_measures_each_engine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings {
        peers: Kind::built(),
        rounds: 2,
        scale: 0.001,
        dir: dir.path().to_owned(),
        charts: Some(dir.path().join("charts")),
    };
    let table = receipts::compare(&settings).expect("a table");
    let labels: Vec<String> = table.rows.iter().map(|row| row.label.clone()).collect();
    let expected: Vec<String> =
        Kind::built().iter().map(|kind| format!("{}, waits for each", kind.name())).collect();
    assert_eq!(labels, expected);
    for row in &table.rows {
        assert_eq!(row.rounds.len(), 2, "{}", row.label);
        let figures = row.rounds.iter().flatten();
        assert!(figures.clone().all(|figure| figure.is_finite() && *figure > 0.0), "{row:?}");
        assert_eq!(figures.count(), 2 * table.columns.len());
    }
    settings.show(&table).expect("a chart for each column with ratios");
    for column in ["receipts-s", "reads-s"] {
        let file = format!("charts/receipts-1000-in-durable-batches-of-10-{column}.svg");
        assert!(dir.path().join(&file).is_file(), "{file}");
    }
}
