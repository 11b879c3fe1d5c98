//! Renders the tables of docs/protocol.md from the table of commands. A test checks that the file
//! agrees with it.

use std::fmt::Write as _;

use super::table::GROUPS;

/// One Markdown table for each group.
pub fn render() -> String {
    let mut text = String::new();
    for group in GROUPS {
        write!(text, "### {}\n\n| command | needs | reply |\n|---|---|---|\n", group.title)
            .expect("a string takes all that is written");
        for command in group.rows.iter().copied().flatten() {
            let words = format!("{} {}", command.name, command.usage);
            let row = format!(
                "| `{}` | {} | {} |\n",
                words.trim(),
                command.class.word(),
                command.summary
            );
            // A bar ends a cell, even inside code.
            text.push_str(&escape_inner_bars(&row));
        }
        text.push('\n');
    }
    text
}

/// The usage is between backquotes, which distinguishes the bars in it from those between cells.
fn escape_inner_bars(row: &str) -> String {
    let mut in_code = false;
    let mut text = String::with_capacity(row.len());
    for letter in row.chars() {
        in_code ^= letter == '`';
        if letter == '|' && in_code {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}
