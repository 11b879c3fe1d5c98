//! The server's settings: defaults, then a TOML file. What the command line says is laid over them by the binary.
//!
//! A key that is not known is refused with its name: a misspelt limit that is silently ignored is worse than none.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use strandline::{MAX_BODY_BYTES, Options};

use crate::limits::Limits;

/// The port when none is given.
pub const DEFAULT_PORT: u16 = 7411;

/// How a server is started.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of the data.
    pub dir: PathBuf,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Clients must log in with it, when it is given and not empty.
    pub password: Option<String>,
    /// Serve what is intact and take no writes.
    pub read_only: bool,
    /// TTL of the store `sync` when it is made, in milliseconds.
    pub sync_ttl_ms: u64,
    /// Memory of the engine, in bytes.
    pub memory_budget_bytes: usize,
    /// What connections may ask for.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        let engine = Options::default();
        Config {
            dir: PathBuf::from("strandline-data"),
            bind: IpAddr::from([127, 0, 0, 1]),
            port: DEFAULT_PORT,
            password: None,
            read_only: engine.read_only,
            sync_ttl_ms: engine.sync_ttl_ms,
            memory_budget_bytes: engine.memory_budget_bytes,
            limits: Limits::default(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The file's text is not a configuration.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be used.
    #[error("{what}")]
    Value {
        /// Which, and what is allowed.
        what: String,
    },
}

impl Config {
    /// The defaults with what the file says.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Config::parse(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) })
    }

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    /// Refuses values that could not work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let complaint = if limits.max_body_bytes > MAX_BODY_BYTES {
            format!(
                "limits.max_body_bytes is {}, over the hard cap of {MAX_BODY_BYTES}",
                limits.max_body_bytes
            )
        } else if limits.max_clients == 0 || limits.output_high_water_bytes == 0 {
            "limits.max_clients and limits.output_high_water_bytes must be at least 1".to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Value { what: complaint })
    }

    /// The engine's part of the settings.
    pub fn engine_options(&self) -> Options {
        Options {
            memory_budget_bytes: self.memory_budget_bytes,
            max_body_bytes: self.limits.max_body_bytes,
            sync_ttl_ms: self.sync_ttl_ms,
            read_only: self.read_only,
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_laid_over_the_defaults() {
        let config =
            Config::parse("port = 1\npassword = \"p\"\n[limits]\nauth_seconds = 3\n").expect("it parses");
        assert_eq!((config.port, config.password.as_deref(), config.limits.auth_seconds), (1, Some("p"), 3));
        assert_eq!(config.limits.max_clients, Limits::default().max_clients);
        assert_eq!(config.dir, PathBuf::from("strandline-data"));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert!(Config::parse("prot = 1").is_err_and(|error| error.to_string().contains("prot")));
        assert!(Config::parse("[limits]\nmax_client = 1").is_err());
        let config = Config::parse("[limits]\nmax_body_bytes = 17000000").expect("it parses");
        assert!(config.check().is_err_and(|error| error.to_string().contains("max_body_bytes")));
    }
}
