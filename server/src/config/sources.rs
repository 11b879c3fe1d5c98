//! Where settings come from: the defaults, a TOML file, the environment, and flags, in rising
//! precedence. The origin of each value is kept.
//!
//! A name that is not known is refused, wherever it is: a misspelt limit that is silently ignored
//! is worse than none.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use super::mistake::mistake;
use super::setting::{Plain, Setting, VARIABLE_PREFIX};
use super::table::{find, settings};
use super::{Config, ConfigError};

/// The variable with the path of the file.
pub const FILE_VARIABLE: &str = "STRANDLINE_CONFIG";

/// Variables with the prefix that are no settings: those of the project's tests.
const NO_SETTINGS: &[&str] = &[FILE_VARIABLE, "STRANDLINE_BLESS", "STRANDLINE_ORACLE"];

/// What an operator has given, before it is read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Variables of the environment whose names begin with `STRANDLINE_`, with their values.
    pub variables: Vec<(String, String)>,
    /// Settings on the command line: names and values.
    pub flags: Vec<(String, String)>,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is the default.
    Default,
    /// The TOML file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => formatter.write_str("default"),
            Origin::File(path) => path.display().fmt(formatter),
            Origin::Variable(name) => formatter.write_str(name),
            Origin::Flag => formatter.write_str("command line"),
        }
    }
}

/// Settings with the origin of each value.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    origins: HashMap<&'static str, Origin>,
}

impl Loaded {
    /// The origin of a setting's value.
    pub fn origin(&self, setting: &Setting) -> Origin {
        self.origins.get(setting.name).cloned().unwrap_or(Origin::Default)
    }

    /// The settings as lines of text, one for each, with origins and without secrets. Of a list
    /// there are the names only.
    pub fn lines(&self) -> String {
        let line = |setting: &'static Setting| {
            let value = match setting.plain(&self.config) {
                Plain::Nothing if setting.in_file_only => {
                    return format!("{} =  # none\n", setting.name);
                }
                _ if setting.in_file_only || setting.secret => setting.shown(&self.config),
                plain => plain.in_toml(),
            };
            format!("{} = {value}  # {}\n", setting.name, self.origin(setting))
        };
        settings().map(line).collect()
    }

    fn set(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let setting = match &origin {
            Origin::Variable(name) => settings().find(|setting| setting.variable() == *name),
            _ => find(name),
        };
        let wrong = |what: String| ConfigError::Value { what: format!("{origin}: {what}") };
        let setting = setting.ok_or_else(|| {
            wrong(format!("there is no setting {name}; strandline settings lists all of them"))
        })?;
        setting.set(&mut self.config, text).map_err(wrong)?;
        self.origins.insert(setting.name, origin);
        Ok(())
    }
}

impl Sources {
    /// The variables of the environment of this process, and the file that one of them names.
    pub fn of_environment() -> Result<Sources, ConfigError> {
        let mut sources = Sources::default();
        for (name, value) in env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
                continue;
            };
            if name == FILE_VARIABLE {
                sources.file = Some(value.into()).filter(|path: &PathBuf| path != Path::new(""));
                continue;
            }
            let value = value.into_string().map_err(|_| ConfigError::Value {
                what: format!("{name} is not UTF-8: write it as UTF-8"),
            })?;
            sources.variables.push((name.into(), value));
        }
        sources.variables.sort();
        Ok(sources)
    }

    /// Reads and checks the settings.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded { config: Config::default(), origins: HashMap::new() };
        if let Some(path) = &self.file {
            let (config, names) = read_file(path)?;
            loaded.config = config;
            let in_file =
                settings().filter(|setting| names.iter().any(|name| is_in(setting, name)));
            loaded.origins =
                in_file.map(|setting| (setting.name, Origin::File(path.clone()))).collect();
            for setting in settings() {
                setting.check(&loaded.config).map_err(|what| ConfigError::Value {
                    what: format!("{}: {what}", path.display()),
                })?;
            }
        }
        for (name, value) in &self.variables {
            if !NO_SETTINGS.contains(&name.as_str()) {
                loaded.set(name, value, Origin::Variable(name.clone()))?;
            }
        }
        for (name, value) in &self.flags {
            loaded.set(name, value, Origin::Flag)?;
        }
        loaded.config.check()?;
        Ok(loaded)
    }

    /// The source that overrides a setting of the file, if there is one.
    pub fn override_of(&self, setting: &Setting) -> Option<Origin> {
        if self.flags.iter().any(|(name, _)| name == setting.name) {
            return Some(Origin::Flag);
        }
        let variable = setting.variable();
        let is_set = self.variables.iter().any(|(name, _)| *name == variable);
        is_set.then_some(Origin::Variable(variable))
    }
}

/// Whether a name of the file is that of a setting, or of a part of a setting that is a list.
fn is_in(setting: &Setting, name: &str) -> bool {
    name.strip_prefix(setting.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The settings of a file, and the names that are set in it.
fn read_file(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let wrong = |error: toml::de::Error| ConfigError::Parse {
        path: path.to_path_buf(),
        what: mistake(&text, error.message(), error.span()),
    };
    let config = toml::from_str(&text).map_err(wrong)?;
    let table: toml::Table = toml::from_str(&text).map_err(wrong)?;
    let mut names = Vec::new();
    add_names("", &table, &mut names);
    Ok((config, names))
}

fn add_names(prefix: &str, table: &toml::Table, names: &mut Vec<String>) {
    for (name, value) in table {
        let dot = if prefix.is_empty() { "" } else { "." };
        let name = format!("{prefix}{dot}{name}");
        match value {
            toml::Value::Table(inner) => add_names(&name, inner, names),
            _ => names.push(name),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "this is no file of the engine's")]
mod tests {
    use super::*;

    fn origin(loaded: &Loaded, name: &str) -> String {
        loaded.origin(find(name).expect("it is in the table")).to_string()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn flags_override_variables_which_override_the_file_which_overrides_the_defaults() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("strandline.toml");
        let text = "port = 1\npassword = \"p\"\n[limits]\nmax_clients = 1\nauth_seconds = 1\n\
                    idle_seconds = 1\n";
        std::fs::write(&file, text).expect("it is written");
        let sources = Sources {
            file: Some(file.clone()),
            variables: pairs(&[
                ("STRANDLINE_LIMITS_MAX_CLIENTS", "2"),
                ("STRANDLINE_LIMITS_AUTH_SECONDS", "2"),
                ("STRANDLINE_BLESS", "1"),
            ]),
            flags: pairs(&[("limits.auth_seconds", "3")]),
        };
        let loaded = sources.load().expect("they are valid");
        let limits = &loaded.config.limits;
        assert_eq!((limits.idle_seconds, limits.max_clients, limits.auth_seconds), (1, 2, 3));
        assert_eq!(loaded.config.port, 1);
        let file = file.display().to_string();
        for (name, expected) in [
            ("port", file.as_str()),
            ("limits.idle_seconds", &file),
            ("limits.max_clients", "STRANDLINE_LIMITS_MAX_CLIENTS"),
            ("limits.auth_seconds", "command line"),
            ("bind", "default"),
        ] {
            assert_eq!(origin(&loaded, name), expected, "{name}");
        }
        let lines = loaded.lines();
        assert!(lines.contains("limits.auth_seconds = 3  # command line\n"), "{lines}");
        assert!(lines.contains("bind = \"127.0.0.1\"  # default\n"), "{lines}");
        assert!(lines.contains(&format!("password = (hidden)  # {file}\n")), "{lines}");
    }

    #[test]
    fn errors_name_the_source_and_unknown_names_are_refused_everywhere() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let error = |text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]| {
            let file = folder.path().join("strandline.toml");
            std::fs::write(&file, text).expect("it is written");
            let sources =
                Sources { file: Some(file), variables: pairs(variables), flags: pairs(flags) };
            let error = anyhow::Error::from(sources.load().err().expect("it is refused"));
            format!("{error:#}")
        };
        for (found, parts) in [
            (error("prot = 1", &[], &[]), ["strandline.toml", "unknown field `prot`"]),
            (error("threads = 2000", &[], &[]), ["strandline.toml", "from 0 to 1024"]),
            (error("", &[("STRANDLINE_PROT", "1")], &[]), ["STRANDLINE_PROT", "no setting"]),
            (error("", &[("STRANDLINE_PORT", "x")], &[]), ["STRANDLINE_PORT", "a number"]),
            (error("", &[], &[("limits.x", "1")]), ["command line", "no setting limits.x"]),
            (error("", &[], &[("threads", "1025")]), ["command line", "from 0 to 1024"]),
            (
                error("", &[], &[("limits.client_memory_bytes", "1048576")]),
                ["limits.client_memory_bytes is 1048576", "limits.max_body_bytes"],
            ),
        ] {
            assert!(parts.iter().all(|part| found.contains(part)), "{found}");
        }
        let missing = Sources { file: Some("no-such-file".into()), ..Sources::default() };
        let error = missing.load().err().expect("it is refused");
        assert_eq!(error.to_string(), "cannot read no-such-file");
    }
}
