//! The settings as texts for people: tables of the documents, the sample file, and the long help.

use std::fmt::Write as _;

use super::Config;
use super::setting::{Plain, Setting};
use super::table::settings;

/// The width of the text of comments in the sample file.
const COLUMNS: usize = 96;

/// The section of a setting, and its name in it.
fn split(setting: &Setting) -> (&'static str, &'static str) {
    setting.name.rsplit_once('.').unwrap_or(("", setting.name))
}

/// The table of the documents, of the settings whose sections are selected.
pub fn settings_table(select: impl Fn(&str) -> bool) -> String {
    let mut table = String::from(
        "| key | default | unit | allowed | at run time | meaning |\n|---|---|---|---|---|---|\n",
    );
    let defaults = Config::default();
    for setting in settings().filter(|setting| select(split(setting).0)) {
        let default = match setting.plain(&defaults) {
            _ if setting.in_file_only => "none".to_owned(),
            Plain::Nothing => "none".to_owned(),
            Plain::Text(text) if text.is_empty() => "none".to_owned(),
            Plain::Text(text) => format!("`{text}`"),
            plain => plain.to_string(),
        };
        let (name, unit, allowed) = (setting.name, setting.unit, setting.allowed());
        let live = if setting.live { "yes" } else { "" };
        let cells = [&format!("`{name}`"), &default, unit, &allowed, live, setting.help];
        table.push('|');
        for cell in cells {
            table.push_str(if cell.is_empty() { " |" } else { "" });
            if !cell.is_empty() {
                write!(table, " {cell} |").expect("a string takes all that is written");
            }
        }
        table.push('\n');
    }
    table
}

/// A sentence about a setting, with everything but its name.
fn explanation(setting: &Setting) -> String {
    let mut text = setting.help.replace('`', "");
    let allowed = setting.allowed();
    let mut facts = Vec::new();
    match (setting.unit, allowed.is_empty()) {
        ("", true) => {}
        (unit, true) => facts.push(unit.to_owned()),
        ("", false) => facts.push(allowed),
        (unit, false) => facts.push(format!("{unit}, {allowed}")),
    }
    if setting.live {
        facts.push("may change at run time".into());
    }
    if !facts.is_empty() {
        write!(text, " ({})", facts.join("; ")).expect("a string takes all that is written");
    }
    text
}

/// Lines of at most [`COLUMNS`] characters.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut columns) = (String::from(indent), 0);
    for word in text.split(' ') {
        let width = word.chars().count();
        if columns > 0 && columns + 1 + width > COLUMNS {
            lines.push('\n');
            lines.push_str(indent);
            columns = 0;
        } else if columns > 0 {
            lines.push(' ');
            columns += 1;
        }
        lines.push_str(word);
        columns += width;
    }
    lines.push('\n');
    lines
}

/// A file with all settings, which sets none of them.
pub fn sample_file() -> String {
    let mut file = String::from(
        "# The settings of a Strandline server, with their defaults. Remove the `#` of a line to \
         change\n# it. `strandline check-config FILE` checks the file and prints what holds.\n",
    );
    let defaults = Config::default();
    let mut section = "";
    for setting in settings() {
        let (of, name) = split(setting);
        if of != section {
            write!(file, "\n[{of}]\n").expect("a string takes all that is written");
            section = of;
        }
        file.push('\n');
        file.push_str(&wrapped(&explanation(setting), "# "));
        if !setting.in_file_only {
            let plain = match setting.example {
                "" => setting.plain(&defaults),
                example => example.parse().map_or(Plain::Text(example.into()), Plain::Number),
            };
            let value = plain.in_toml();
            writeln!(file, "#{name} = {value}").expect("a string takes all that is written");
        }
    }
    file
}

/// The long help: every setting with its default and its variable.
pub fn settings_help() -> String {
    let mut help = String::new();
    let defaults = Config::default();
    for setting in settings() {
        let default = match setting.plain(&defaults) {
            _ if setting.in_file_only => "(in the file only)".into(),
            plain => plain.in_toml(),
        };
        writeln!(help, "{} = {default}", setting.name).expect("a string takes all that is written");
        if !setting.in_file_only {
            writeln!(help, "    {}", setting.variable())
                .expect("a string takes all that is written");
        }
        help.push_str(&wrapped(&explanation(setting), "    "));
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file_sets_nothing_and_with_every_line_set_it_sets_the_defaults() {
        let sample = sample_file();
        let parsed: Config = toml::from_str(&sample).expect("it is valid");
        assert!(settings().all(|setting| setting.is_same(&parsed, &Config::default())));
        let all: String = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(set) if !set.starts_with(' ') => format!("{set}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let parsed: Config = toml::from_str(&all).expect("it is valid");
        for setting in settings().filter(|setting| setting.example.is_empty()) {
            let shown = |config| setting.plain(config).to_string();
            assert_eq!(shown(&parsed), shown(&Config::default()), "{}", setting.name);
        }
        assert!(all.contains("\nmax_clients = 10000\n"));
    }

    #[test]
    fn lines_of_the_help_fit_on_a_screen() {
        let help = settings_help();
        assert!(help.contains("limits.max_clients = 10000\n    STRANDLINE_LIMITS_MAX_CLIENTS\n"));
        assert!(help.lines().chain(sample_file().lines()).all(|line| line.chars().count() <= 100));
    }
}
