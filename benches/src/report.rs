//! Tables in Markdown: medians with min–max, and ratios that were taken round by round.

use std::fmt::{self, Display, Formatter};

/// A column of figures.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name, with its unit.
    pub title: &'static str,
    /// Whether to add a column with the first row's figure divided by each row's.
    pub ratio: bool,
}

impl Column {
    /// A column with ratios.
    pub fn compared(title: &'static str) -> Column {
        Column { title, ratio: true }
    }

    /// A column without.
    pub fn plain(title: &'static str) -> Column {
        Column { title, ratio: false }
    }
}

/// A contestant's figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// The contestant.
    pub label: String,
    /// One list per round, one figure per column.
    pub rounds: Vec<Vec<f64>>,
}

/// A comparison. Ratios are relative to the first row.
#[derive(Clone, Debug)]
pub struct Table {
    /// The title of the comparison.
    pub title: String,
    /// In their order.
    pub columns: Vec<Column>,
    /// In their order.
    pub rows: Vec<Row>,
}

/// The median of some figures and their extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[half]
        } else {
            f64::midpoint(figures[half - 1], figures[half])
        };
        Some(Spread { median, min, max })
    }
}

impl Display for Spread {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}–{})", short(self.median), short(self.min), short(self.max))
    }
}

impl Row {
    /// The figures of a column; none without a round.
    pub(crate) fn spread(&self, column: usize) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|figures| figures[column]).collect())
    }
}

/// Three digits, with k or M.
pub(crate) fn short(figure: f64) -> String {
    let (scaled, suffix) = match figure.abs() {
        size if size >= 999_500.0 => (figure / 1e6, " M"),
        size if size >= 9_995.0 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{suffix}")
}

impl Table {
    fn ratio(&self, row: &Row, column: usize) -> Option<Spread> {
        let first = &self.rows.first()?.rounds;
        Spread::of(
            first
                .iter()
                .zip(&row.rounds)
                .map(|(ours, theirs)| ours[column] / theirs[column])
                .collect(),
        )
    }
}

impl Table {
    /// This table as several, each with a title and the next columns: as many for each.
    pub fn split(self, titles: Vec<String>) -> Vec<Table> {
        let each = self.columns.len() / titles.len().max(1);
        let table = |(place, title)| {
            let part = place * each..(place + 1) * each;
            let rows = self.rows.iter().map(|row| Row {
                label: row.label.clone(),
                rounds: row.rounds.iter().map(|figures| figures[part.clone()].to_vec()).collect(),
            });
            Table { title, columns: self.columns[part.clone()].to_vec(), rows: rows.collect() }
        };
        titles.into_iter().enumerate().map(table).collect()
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "### {}\n", self.title)?;
        write!(out, "| |")?;
        for column in &self.columns {
            write!(out, " {} |", column.title)?;
            if column.ratio {
                write!(out, " first ÷ this |")?;
            }
        }
        let width = self.columns.iter().map(|column| 1 + usize::from(column.ratio)).sum();
        writeln!(out, "\n|---|{}", "--:|".repeat(width))?;
        for row in &self.rows {
            write!(out, "| {} |", row.label)?;
            for (index, column) in self.columns.iter().enumerate() {
                write_cell(out, row.spread(index))?;
                if column.ratio {
                    write_cell(out, self.ratio(row, index))?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

fn write_cell(out: &mut Formatter<'_>, spread: Option<Spread>) -> fmt::Result {
    match spread {
        Some(spread) if spread.median.is_finite() => write!(out, " {spread} |"),
        _ => write!(out, " – |"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shortened_to_three_digits() {
        let cases = [
            (0.5, "0.50"),
            (12.34, "12.3"),
            (1_234.0, "1234"),
            (56_780.0, "56.8 k"),
            (2.5e6, "2.50 M"),
        ];
        for (figure, text) in cases {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn a_ratio_is_taken_inside_its_round() {
        let row = |label: &str, rounds: [f64; 3]| Row {
            label: label.to_owned(),
            rounds: rounds.iter().map(|&figure| vec![figure]).collect(),
        };
        // The machine slowed down fourfold in the second round: the figures differ, the ratio does
        // not.
        let table = Table {
            title: "t".to_owned(),
            columns: vec![Column::compared("x/s")],
            rows: vec![row("ours", [400.0, 100.0, 400.0]), row("theirs", [200.0, 50.0, 200.0])],
        };
        let ratio = table.ratio(&table.rows[1], 0).expect("a ratio");
        assert_eq!(ratio, Spread { median: 2.0, min: 2.0, max: 2.0 });
        assert!(table.to_string().contains("| theirs | 200 (50.0–200) | 2.00 (2.00–2.00) |"));
    }

    #[test]
    fn a_table_is_split_by_columns() {
        let row = Row { label: "a".to_owned(), rounds: vec![vec![1.0, 2.0], vec![3.0, 4.0]] };
        let columns = vec![Column::plain("x"), Column::plain("y")];
        let table = Table { title: "both".to_owned(), columns, rows: vec![row] };
        let parts = table.split(vec!["of x".to_owned(), "of y".to_owned()]);
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[1].title.as_str(), parts[1].columns[0].title), ("of y", "y"));
        assert_eq!(parts[1].rows[0].rounds, [[2.0], [4.0]]);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let expected = Spread { median: 2.5, min: 1.0, max: 4.0 };
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]), Some(expected));
    }
}
