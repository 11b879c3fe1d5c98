//! Draws tables as bar charts, one SVG file for each column that is compared.
//!
//! A bar is the median of a contestant's rounds, the line across its end is min–max. Every axis
//! begins at zero: a bar twice as long is a figure twice as large.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Row, Spread, Table, short};

const WIDTH: u32 = 960;
const BAR_HEIGHT: u32 = 28;
/// The caption, the axis and their margins.
const FRAME_HEIGHT: u32 = 110;
const LABELS_WIDTH: u32 = 330;
/// Half of a bar, as a part of the height that it has.
const BAR_HALF: f64 = 0.32;
/// Between a bar and its texts.
const GAP: i32 = 6;

const BAR_COLOR: RGBColor = RGBColor(0x4C, 0x78, 0xA8);
const SPREAD_COLOR: RGBColor = RGBColor(0xE4, 0x57, 0x56);

/// A contestant's bar.
struct Bar<'t> {
    label: &'t str,
    spread: Spread,
}

/// Draws the compared columns of a table into files in `dir`, which is made if it does not exist.
/// Returns the files. Figures that are no number get no bar.
pub fn draw(table: &Table, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut files = Vec::new();
    for (index, column) in table.columns.iter().enumerate() {
        let spread_of = |row: &Row| row.spread(index).filter(|spread| spread.max.is_finite());
        let bars: Vec<Bar<'_>> = table
            .rows
            .iter()
            .filter_map(|row| Some(Bar { label: &row.label, spread: spread_of(row)? }))
            .collect();
        if !column.ratio || bars.is_empty() {
            continue;
        }
        let file = dir.join(format!("{}.svg", file_stem(&table.title, column.title)));
        draw_bars(&file, &table.title, column.title, &bars)
            .with_context(|| file.display().to_string())?;
        files.push(file);
    }
    Ok(files)
}

/// The titles, in the characters that every file system and shell takes.
fn file_stem(table: &str, column: &str) -> String {
    let text = format!("{table} {column}").to_lowercase();
    let words = text.split(|char: char| !char.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

fn draw_bars(file: &Path, title: &str, unit: &str, bars: &[Bar<'_>]) -> Result<()> {
    let count = bars.len();
    let size = (WIDTH, FRAME_HEIGHT + BAR_HEIGHT * count as u32);
    let longest = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE)?;
    // Room for the figure after the longest bar; an axis needs a length.
    let axis = 0.0..(longest * 1.15).max(f64::MIN_POSITIVE);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(LABELS_WIDTH)
        .build_cartesian_2d(axis, 0.0..count as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .max_light_lines(1)
        .x_desc(unit)
        .x_label_formatter(&|figure| short(*figure))
        .draw()?;
    let text = |side| TextStyle::from(("sans-serif", 15)).pos(Pos::new(side, VPos::Center));
    let (before, after) = (text(HPos::Right), text(HPos::Left));
    for (line, bar) in bars.iter().enumerate() {
        // The axis counts from the bottom, a table from the top.
        let middle = (count - line) as f64 - 0.5;
        let Spread { median, min, max } = bar.spread;
        let corners = [(0.0, middle - BAR_HALF), (median, middle + BAR_HALF)];
        chart.draw_series([Rectangle::new(corners, BAR_COLOR.filled())])?;
        let ends = vec![(min, middle), (max, middle)];
        chart.draw_series([PathElement::new(ends, SPREAD_COLOR.stroke_width(2))])?;
        let label = Text::new(bar.label.to_owned(), (-GAP, 0), &before);
        chart.draw_series([EmptyElement::at((0.0, middle)) + label])?;
        let figure = Text::new(short(median), (GAP, 0), &after);
        chart.draw_series([EmptyElement::at((max, middle)) + figure])?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Column;

    fn table(rows: &[(&str, [f64; 3])]) -> Table {
        let row = |&(label, rounds): &(&str, [f64; 3])| Row {
            label: label.to_owned(),
            rounds: rounds.iter().map(|&figure| vec![figure, 1.0]).collect(),
        };
        Table {
            title: "W9 a test, N = 5".to_owned(),
            columns: vec![Column::compared("x/s"), Column::plain("p99 µs")],
            rows: rows.iter().map(row).collect(),
        }
    }

    fn drawn(rows: &[(&str, [f64; 3])]) -> (Vec<PathBuf>, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let folder = dir.path().join("made");
        let files = draw(&table(rows), &folder).expect("charts");
        let text = files.first().map(|file| fs::read_to_string(file).expect("a chart"));
        (files, text.unwrap_or_default())
    }

    fn count(text: &str, element: &str, color: &str) -> usize {
        let starts = format!("<{element} ");
        text.lines().filter(|line| line.starts_with(&starts) && line.contains(color)).count()
    }

    #[test]
    fn each_compared_column_has_a_chart_with_a_bar_for_each_row() {
        let (files, text) = drawn(&[
            ("strandline, in flight", [100.0, 300.0, 200.0]),
            ("lmdb, waits", [50.0, 50.0, 50.0]),
            ("redb, waits", [f64::NAN; 3]),
        ]);
        assert_eq!(files.len(), 1);
        assert!(files[0].ends_with("made/w9-a-test-n-5-x-s.svg"), "{files:?}");
        assert_eq!(count(&text, "rect", "#4C78A8"), 2, "{text}");
        assert_eq!(count(&text, "polyline", "#E45756"), 2, "{text}");
        for label in ["strandline, in flight", "lmdb, waits", "W9 a test, N = 5", "x/s", "\n200\n"]
        {
            assert!(text.contains(label), "no {label}:\n{text}");
        }
        assert!(!text.contains("redb"), "{text}");
    }

    #[test]
    fn a_chart_of_one_bar_has_it() {
        let (_, text) = drawn(&[("strandline, waits", [0.0, 0.0, 0.0])]);
        assert_eq!(count(&text, "rect", "#4C78A8"), 1, "{text}");
        assert!(text.contains("strandline, waits"), "{text}");
    }

    #[test]
    fn a_table_without_figures_has_no_chart() {
        assert!(drawn(&[]).0.is_empty());
        assert!(drawn(&[("redb, waits", [f64::NAN; 3])]).0.is_empty());
    }
}
