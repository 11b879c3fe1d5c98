//! Renders the tables of docs/protocol.md from the table of commands. A test checks that the file
//! agrees with it.

use std::fmt::Write as _;

use super::row::{Class, Command};
use super::scope::Scope;
use super::table::GROUPS;

/// One Markdown table for each group.
pub fn render() -> String {
    let mut text = String::new();
    for group in GROUPS {
        write!(text, "### {}\n\n| command | needs | reply |\n|---|---|---|\n", group.title)
            .expect("a string takes all that is written");
        for command in group.rows.iter().copied().flatten() {
            let words = format!("{} {}", command.name, command.usage);
            let row =
                format!("| `{}` | {} | {} |\n", words.trim(), needs(command), command.summary);
            // A bar ends a cell, even inside code.
            text.push_str(&escape_inner_bars(&row));
        }
        text.push('\n');
    }
    text
}

/// The category and what the command touches, or those of its subcommands.
fn needs(command: &Command) -> String {
    let described = |class: Class, scope: Scope| {
        let touched = scope.text();
        let gap = if touched.is_empty() { "" } else { " " };
        format!("{}{gap}{touched}", class.word())
    };
    let mut by_needs: Vec<(String, Vec<&str>)> = Vec::new();
    for part in command.parts.iter().filter(|part| part.word != "HELP") {
        let text = described(part.class, part.scope);
        match by_needs.iter_mut().find(|(known, _)| *known == text) {
            Some((_, words)) => words.push(part.word),
            None => by_needs.push((text, vec![part.word])),
        }
    }
    if by_needs.is_empty() {
        return described(command.class, command.scope);
    }
    let texts: Vec<String> =
        by_needs.iter().map(|(text, words)| format!("{}: {text}", words.join(", "))).collect();
    texts.join("; ")
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
