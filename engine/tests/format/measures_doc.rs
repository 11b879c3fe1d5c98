//! Keeps the section "What an embedder can measure" of docs/operations.md true: its tables are
//! rendered from `strandline::metrics`, and compared.
//!
//! `STRANDLINE_BLESS=1` writes the rendered tables into the document instead of failing.
#![allow(clippy::disallowed_methods, reason = "a test of a document reads it")]

use strandline::metrics::{METRICS, MetricKind, MetricUnit, SPANS};

use crate::rendered;

/// The text between a marker and its end.
fn table(marker: &str) -> String {
    match marker {
        "metrics" => metrics(),
        "spans" => spans(),
        _ => panic!("the document has a marker that nothing renders: {marker}"),
    }
}

fn metrics() -> String {
    let rows = METRICS.iter().map(|metric| {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            _ => panic!("{metric:?} has a kind that the document does not know"),
        };
        let unit = match metric.unit {
            MetricUnit::Count => "",
            MetricUnit::Bytes => "bytes",
            MetricUnit::Seconds => "s",
            _ => panic!("{metric:?} has a unit that the document does not know"),
        };
        let figure = metric.figure.map(|figure| format!("`{figure}`")).unwrap_or_default();
        let row = format!("| `{}` | {kind} | {unit} | {figure} | {}", metric.name, metric.meaning);
        // An empty cell is one space.
        row.replace("|  ", "| ") + " |\n"
    });
    format!(
        "| metric | kind | unit | figure | meaning |\n|---|---|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

fn spans() -> String {
    let rows = SPANS.iter().map(|span| {
        let level = span.level.as_str().to_lowercase();
        let fields: Vec<String> = span.fields.iter().map(|field| format!("`{field}`")).collect();
        format!("| `{}` | {level} | {} | {} |\n", span.name, fields.join(", "), span.meaning)
    });
    format!("| span | level | fields | meaning |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn the_document_lists_every_metric_and_every_span() {
    rendered::check("docs/operations.md", table);
}

#[test]
fn a_document_without_the_tables_would_be_detected() {
    let document =
        std::fs::read_to_string(rendered::root().join("docs/operations.md")).expect("is there");
    for marker in ["metrics", "spans"] {
        assert!(document.contains(&format!("<!-- {marker} -->\n")), "{marker} has no table");
    }
}
