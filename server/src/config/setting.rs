//! A setting: its name, what it may be, and how it is read from and written into [`Config`].
//!
//! A setting is a row made by `setting!`, which takes the path of the field; the methods below add
//! the rest. Rows know nothing of files, variables or commands: those know rows.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Config;

/// The beginning of the names of variables that are settings.
pub const VARIABLE_PREFIX: &str = "STRANDLINE_";

/// The value of a setting without its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// It is not set.
    Nothing,
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Text, such as a path or a word.
    Text(String),
}

impl fmt::Display for Plain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plain::Nothing => Ok(()),
            Plain::Flag(flag) => flag.fmt(formatter),
            Plain::Number(number) => number.fmt(formatter),
            Plain::Text(text) => text.fmt(formatter),
        }
    }
}

impl Plain {
    /// As it is written in TOML. What is not set is the empty text, which means the same.
    pub fn in_toml(&self) -> String {
        match self {
            Plain::Nothing => "\"\"".into(),
            Plain::Flag(flag) => flag.to_string(),
            Plain::Number(number) => number.to_string(),
            Plain::Text(text) => toml::Value::String(text.clone()).to_string(),
        }
    }
}

/// A type that the field of a setting may have.
pub trait Field {
    /// The value.
    fn plain(&self) -> Plain;
    /// The value that a text stands for, or what the text must be.
    fn parsed(text: &str) -> Result<Self, String>
    where
        Self: Sized;
}

/// Implements [`Field`] for numbers.
macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Field for $number {
            fn plain(&self) -> Plain {
                Plain::Number(u64::try_from(*self).unwrap_or(u64::MAX))
            }

            fn parsed(text: &str) -> Result<$number, String> {
                text.parse().map_err(|_| format!("a number from 0 to {}", <$number>::MAX))
            }
        }
    )+};
}

numbers!(u16, u64, usize);

/// Implements [`Field`] for a choice of words.
macro_rules! words {
    ($choice:ty: $($word:literal => $value:path),+) => {
        impl Field for $choice {
            fn plain(&self) -> Plain {
                Plain::Text(match self { $($value => $word),+ }.into())
            }

            fn parsed(text: &str) -> Result<$choice, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

pub(super) use words;

impl Field for bool {
    fn plain(&self) -> Plain {
        Plain::Flag(*self)
    }

    fn parsed(text: &str) -> Result<bool, String> {
        match text {
            "true" | "yes" => Ok(true),
            "false" | "no" => Ok(false),
            _ => Err("true or false".into()),
        }
    }
}

impl Field for IpAddr {
    fn plain(&self) -> Plain {
        Plain::Text(self.to_string())
    }

    fn parsed(text: &str) -> Result<IpAddr, String> {
        text.parse().map_err(|_| "an IP address".into())
    }
}

impl Field for PathBuf {
    fn plain(&self) -> Plain {
        Plain::Text(self.display().to_string())
    }

    fn parsed(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a path".into()) } else { Ok(text.into()) }
    }
}

impl Field for String {
    fn plain(&self) -> Plain {
        Plain::Text(self.clone())
    }

    fn parsed(text: &str) -> Result<String, String> {
        Ok(text.into())
    }
}

/// The empty text means: not set.
impl<T: Field> Field for Option<T> {
    fn plain(&self) -> Plain {
        self.as_ref().map_or(Plain::Nothing, Field::plain)
    }

    fn parsed(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { T::parsed(text).map(Some) }
    }
}

/// A field that is more than one value.
pub trait NamedParts {
    /// The names of its parts.
    fn names(&self) -> Vec<&str>;
}

/// One setting.
pub struct Setting {
    /// The name: the key in the file, with a dot after its section.
    pub name: &'static str,
    /// The unit of the number; empty if there is none.
    pub unit: &'static str,
    /// The lowest and the highest number that is allowed.
    pub bounds: Option<(u64, u64)>,
    /// The words that are allowed; empty if it is no choice of words.
    pub words: &'static [&'static str],
    /// Whether it may change while the server runs.
    pub live: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether it is more than one value, and can be set in the file only.
    pub in_file_only: bool,
    /// A value for the sample file, if it is not set by default.
    pub example: &'static str,
    /// The name that it has in Redis, if it means the same there.
    pub redis: Option<&'static str>,
    /// What it means, in one line.
    pub help: &'static str,
    access: FieldAccess,
}

/// How a setting is read from and written into the settings.
pub struct FieldAccess {
    /// The value.
    pub plain: fn(&Config) -> Plain,
    /// Sets it to the value that a text stands for, or returns what the text must be.
    pub parse: fn(&mut Config, &str) -> Result<(), String>,
    /// Sets it to the value that it has in the first settings.
    pub copy: fn(&Config, &mut Config),
    /// Whether two settings have the same value for it.
    pub same: fn(&Config, &Config) -> bool,
}

/// The row of a setting, by the path of its field in [`Config`].
macro_rules! setting {
    ($first:ident $(. $rest:ident)*) => {
        Setting::new(
            concat!(stringify!($first) $(, ".", stringify!($rest))*),
            FieldAccess {
                plain: |config| Field::plain(&config.$first $(. $rest)*),
                parse: |config, text| {
                    config.$first $(. $rest)* = Field::parsed(text)?;
                    Ok(())
                },
                copy: |from, to| to.$first $(. $rest)* = from.$first $(. $rest)*.clone(),
                same: |one, other| one.$first $(. $rest)* == other.$first $(. $rest)*,
            },
        )
    };
}

/// The row of a setting that is more than one value, such as a list of tables. It can be set in the
/// file only. Its field must be [`NamedParts`], `Clone` and `PartialEq`.
macro_rules! list_setting {
    ($first:ident $(. $rest:ident)*) => {
        Setting::new(
            concat!(stringify!($first) $(, ".", stringify!($rest))*),
            FieldAccess {
                plain: |config| {
                    let names = config.$first $(. $rest)*.names().join(", ");
                    if names.is_empty() { Plain::Nothing } else { Plain::Text(names) }
                },
                parse: |_, _| Err("set in the configuration file".into()),
                copy: |from, to| to.$first $(. $rest)* = from.$first $(. $rest)*.clone(),
                same: |one, other| one.$first $(. $rest)* == other.$first $(. $rest)*,
            },
        )
        .in_file_only()
    };
}

pub(super) use list_setting;
pub(super) use setting;

/// The parts of a row.
impl Setting {
    /// A setting that is a plain value without bounds, and holds from the start.
    pub const fn new(name: &'static str, access: FieldAccess) -> Setting {
        Setting {
            name,
            unit: "",
            bounds: None,
            words: &[],
            live: false,
            secret: false,
            in_file_only: false,
            example: "",
            redis: None,
            help: "",
            access,
        }
    }

    /// Adds the unit.
    pub const fn unit(self, unit: &'static str) -> Setting {
        Setting { unit, ..self }
    }

    /// Adds the lowest and the highest number that is allowed.
    pub const fn bounds(self, least: u64, most: u64) -> Setting {
        Setting { bounds: Some((least, most)), ..self }
    }

    /// Adds the words that are allowed.
    pub const fn words(self, words: &'static [&'static str]) -> Setting {
        Setting { words, ..self }
    }

    /// It may change while the server runs.
    pub const fn live(self) -> Setting {
        Setting { live: true, ..self }
    }

    /// Its value is never shown.
    pub const fn secret(self) -> Setting {
        Setting { secret: true, ..self }
    }

    /// It can be set in the file only.
    pub const fn in_file_only(self) -> Setting {
        Setting { in_file_only: true, ..self }
    }

    /// Adds a value for the sample file.
    pub const fn example(self, example: &'static str) -> Setting {
        Setting { example, ..self }
    }

    /// Adds the name in Redis.
    pub const fn redis(self, name: &'static str) -> Setting {
        Setting { redis: Some(name), ..self }
    }

    /// Adds the meaning.
    pub const fn help(self, help: &'static str) -> Setting {
        Setting { help, ..self }
    }
}

impl Setting {
    /// The value.
    pub fn plain(&self, config: &Config) -> Plain {
        (self.access.plain)(config)
    }

    /// The value as text for people: a secret is hidden.
    pub fn shown(&self, config: &Config) -> String {
        match self.plain(config) {
            Plain::Nothing => String::new(),
            Plain::Text(text) if text.is_empty() => text,
            _ if self.secret => "(hidden)".into(),
            plain => plain.to_string(),
        }
    }

    /// Sets it to the value that a text stands for. Otherwise returns what is wrong; the text of a
    /// secret is not repeated.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.access.parse)(config, text).map_err(|needed| {
            // What can be in the file only may have secrets in it.
            let given = if self.secret || self.in_file_only { "(hidden)" } else { text };
            format!("{} is {given:?}, and must be {needed}", self.name)
        })?;
        self.check(config)
    }

    /// Refuses a number out of bounds.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        let Some((least, most)) = self.bounds else { return Ok(()) };
        match self.plain(config) {
            Plain::Number(value) if value < least || value > most => {
                Err(format!("{} is {value}, and must be from {least} to {most}", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Sets it to the value that it has in other settings.
    pub fn copy(&self, from: &Config, to: &mut Config) {
        (self.access.copy)(from, to);
    }

    /// Whether two settings have the same value for it.
    pub fn is_same(&self, one: &Config, other: &Config) -> bool {
        (self.access.same)(one, other)
    }

    /// The name of its variable in the environment.
    pub fn variable(&self) -> String {
        format!("{}{}", VARIABLE_PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// What it may be, in words.
    pub fn allowed(&self) -> String {
        match (self.bounds, self.words) {
            (Some((least, most)), _) => format!("{least} to {most}"),
            (None, []) => String::new(),
            (None, words) => words.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::{find, settings};

    fn get(name: &str) -> &'static Setting {
        find(name).expect("it is in the table")
    }

    #[test]
    fn a_text_sets_a_setting_or_the_error_says_what_it_must_be() {
        let mut config = Config::default();
        for (name, text) in [
            ("limits.max_clients", "5"),
            ("read_only", "true"),
            ("bind", "::1"),
            ("dir", "/data"),
            ("password", "p"),
        ] {
            assert_eq!(get(name).set(&mut config, text), Ok(()), "{name}");
        }
        assert_eq!(config.limits.max_clients, 5);
        assert!(config.read_only);
        assert_eq!(config.bind, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(config.password, Some("p".into()));
        assert_eq!(get("password").set(&mut config, ""), Ok(()));
        assert_eq!(config.password, None);
        for (name, text, needed) in [
            ("limits.max_clients", "0", "must be from 1 to"),
            ("limits.max_clients", "-1", "must be a number"),
            ("port", "65536", "must be a number from 0 to 65535"),
            ("read_only", "1", "must be true or false"),
            ("bind", "localhost", "must be an IP address"),
            ("dir", "", "must be a path"),
        ] {
            let refused = get(name).set(&mut config, text).expect_err("it is refused");
            assert!(refused.starts_with(name) && refused.contains(needed), "{refused}");
        }
    }

    #[test]
    fn the_value_of_a_secret_is_never_shown() {
        let config = Config { password: Some("open sesame".into()), ..Config::default() };
        for setting in settings() {
            assert!(!setting.shown(&config).contains("sesame"), "{}", setting.name);
        }
        assert_eq!(get("password").shown(&config), "(hidden)");
        assert_eq!(get("password").shown(&Config::default()), "");
    }

    #[test]
    fn a_copy_makes_settings_the_same() {
        let changed = Config { threads: 3, ..Config::default() };
        let mut config = Config::default();
        let threads = get("threads");
        assert!(!threads.is_same(&config, &changed) && get("port").is_same(&config, &changed));
        threads.copy(&changed, &mut config);
        assert!(threads.is_same(&config, &changed) && config.threads == 3);
    }
}
