//! The server's settings.
//!
//! ```text
//!               running ── rewrite
//!               sources    render
//!               table
//!               setting
//!               Config  mistake
//! ```
//!
//! [`Config`] is a plain struct of plain structs, one for each area. The [table] has a row for each
//! of its fields, from which everything else is derived; its heading says how a setting is added.
//! [`Sources`] are read into a `Config`, and [`RunningConfig`] holds the one of a running server.

mod mistake;
mod render;
mod rewrite;
mod running;
mod setting;
mod sources;
mod table;

use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;

use serde::{Deserialize, Serialize};
use strandline::{MAX_BODY_BYTES, Options, Wakers};

pub use render::{sample_file, settings_help, settings_table};
pub use running::{Change, RunningConfig};
pub use setting::Setting;
pub use sources::{Loaded, Origin, Sources};
pub use table::{find, settings};

use crate::access::{
    AccessSettings, DEFAULT_USER, RateSettings, Secret, TokenSettings, UserSettings, UserTable,
};
use crate::backups::BackupSettings;
use crate::limits::Limits;
use crate::messaging::{Options as MessagingOptions, WEEK_MS, first_stores};
use crate::observe::{HttpSettings, LogSettings, SlowlogSettings};
use crate::tls::{ClientCertificates, TlsSettings};

/// The default port.
pub const DEFAULT_PORT: u16 = 7411;

/// The memory of all connections must be at least this many times the largest body: the buffer of a
/// body, doubled, takes two, and input gets half of the memory.
const BODY_SHARE: u64 = 4;

/// The settings of a server.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of the data.
    pub dir: PathBuf,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port to listen on; 0: any free port.
    pub port: u16,
    /// The password of the user `default`, if it is set and not empty.
    pub password: Option<Secret>,
    /// Listen on other addresses than loopback even if nobody must log in.
    pub allow_unprotected: bool,
    /// The directory below which TL.BACKUP writes; without it TL.BACKUP is refused.
    pub backup_dir: Option<PathBuf>,
    /// Serve intact data and refuse writes.
    pub read_only: bool,
    /// The TTL of the store `sync` when it is created, in milliseconds.
    pub sync_ttl_ms: u64,
    /// The memory of the engine, in bytes.
    pub memory_budget_bytes: usize,
    /// The most bytes per second that merging of segments writes; 0: no limit.
    pub compact_bytes_per_second: u64,
    /// The most space that is reserved for reclaiming space on a full disk, in bytes; 0: none.
    pub reserve_bytes: u64,
    /// The most files of segments that the engine keeps open.
    pub max_open_files: usize,
    /// The event loops that serve connections; 0: one for each core.
    pub threads: usize,
    /// The limits of connections.
    pub limits: Limits,
    /// TLS.
    pub tls: TlsSettings,
    /// The settings of messaging.
    pub messaging: MessagingOptions,
    /// The settings of scheduled backups.
    pub backup: BackupSettings,
    /// The port for metrics and health.
    pub http: HttpSettings,
    /// The settings of the log.
    pub log: LogSettings,
    /// What counts as slow.
    pub slowlog: SlowlogSettings,
    /// The users, by name.
    pub users: UserTable,
    /// The tokens of terminals.
    pub tokens: TokenSettings,
    /// The limits on commands per second.
    pub rates: RateSettings,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: PathBuf::from("strandline-data"),
            bind: IpAddr::from([127, 0, 0, 1]),
            port: DEFAULT_PORT,
            password: None,
            allow_unprotected: false,
            backup_dir: None,
            read_only: false,
            sync_ttl_ms: WEEK_MS,
            memory_budget_bytes: 512 * 1024 * 1024,
            compact_bytes_per_second: 64 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            max_open_files: 256,
            threads: 0,
            limits: Limits::default(),
            tls: TlsSettings::default(),
            messaging: MessagingOptions::default(),
            backup: BackupSettings::default(),
            http: HttpSettings::default(),
            log: LogSettings::default(),
            slowlog: SlowlogSettings::default(),
            users: UserTable::default(),
            tokens: TokenSettings::default(),
            rates: RateSettings::default(),
        }
    }
}

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The text of the file is not a valid configuration.
    #[error("{path} is not a valid configuration: {what}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The position and the error, without the text of the file, which may have secrets in it.
        what: String,
    },
    /// The file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A value is not allowed.
    #[error("{what}")]
    Value {
        /// The setting, and the allowed range.
        what: String,
    },
}

impl Config {
    /// Refuses values that are out of their bounds, or that could not work together.
    pub fn check(&self) -> Result<(), ConfigError> {
        for setting in settings() {
            setting.check(self).map_err(|what| ConfigError::Value { what })?;
        }
        if self.backup.schedule.is_some() && self.backup_dir.is_none() {
            let what = "backup.schedule is set, and backup_dir is not: set the directory";
            return Err(ConfigError::Value { what: what.into() });
        }
        if self.uses_tls() {
            self.tls.check().map_err(|what| ConfigError::Value { what })?;
        }
        let log = self.log.check();
        log.map_err(|problem| ConfigError::Value { what: format!("log.filter: {problem}") })?;
        self.check_largest_body()?;
        self.check_protection()
    }

    /// The settings of users and tokens.
    pub fn access(&self) -> AccessSettings<'_> {
        AccessSettings {
            password: self.password.as_ref(),
            users: &self.users,
            tokens: &self.tokens,
            rates: &self.rates,
        }
    }

    /// Whether a port has TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls.port.is_some() || (self.http.port.is_some() && self.http.tls)
    }

    /// Whether clients must log in.
    fn is_protected(&self) -> bool {
        let is_open = self.users.get(DEFAULT_USER).is_some_and(UserSettings::needs_no_login);
        let is_configured = self.password.as_ref().is_some_and(|password| !password.is_empty())
            || !self.users.is_empty()
            || !self.tokens.keys.is_empty();
        is_configured && !is_open
    }

    /// Everybody who reaches the port of an unprotected server may do everything, so only this
    /// machine may reach it.
    fn check_protection(&self) -> Result<(), ConfigError> {
        if self.is_protected() || self.allow_unprotected {
            return Ok(());
        }
        let tls = self.tls.port.map(|_| ("tls.bind", self.tls.bind.unwrap_or(self.bind)));
        let asks = self.tls.client_certificates == ClientCertificates::Required;
        let tls = tls.filter(|_| !asks);
        let addresses = [Some(("bind", self.bind)), tls];
        let is_open = |(_, address): &(&str, IpAddr)| !address.is_loopback();
        let Some((name, address)) = addresses.into_iter().flatten().find(is_open) else {
            return Ok(());
        };
        let what = format!(
            "{name} is {address}, and anybody who reaches it could do everything: set a \
             password, [users.NAME], or [[tokens.keys]]; or listen on 127.0.0.1 \
             (allow_unprotected = true is for closed networks)"
        );
        Err(ConfigError::Value { what })
    }

    /// A buffer grows by doubling, and input may take half of the memory: the largest body must fit
    /// before it is complete.
    fn check_largest_body(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let least = (limits.max_body_bytes as u64).saturating_mul(BODY_SHARE);
        if limits.client_memory_bytes as u64 >= least {
            return Ok(());
        }
        let what = format!(
            "limits.client_memory_bytes is {}, and must be at least {least} for \
             limits.max_body_bytes of {}: raise the one, or lower the other",
            limits.client_memory_bytes, limits.max_body_bytes
        );
        Err(ConfigError::Value { what })
    }

    /// The number of event loops.
    pub fn loops(&self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// The settings of the engine.
    pub fn engine_options(&self) -> Options {
        Options::default()
            .memory_budget_bytes(self.memory_budget_bytes)
            // The server itself refuses bodies over its limit. Messaging adds a frame to them, and
            // its ledgers have longer records.
            .max_body_bytes(MAX_BODY_BYTES)
            .stores(first_stores(self.sync_ttl_ms))
            .compact_bytes_per_second(self.compact_bytes_per_second)
            .reserve_bytes(self.reserve_bytes)
            .max_open_files(self.max_open_files)
            .read_only(self.read_only)
            // Those of tokio.
            .wakers(Wakers::Short)
    }
}

#[cfg(test)]
mod tests {
    use strandline::NewStore;

    use super::*;
    use crate::messaging::limit_of;

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_file_overrides_the_defaults() {
        let config =
            parse("port = 1\npassword = \"p\"\n[limits]\nauth_seconds = 3\n").expect("it parses");
        assert_eq!(
            (config.port, config.password, config.limits.auth_seconds),
            (1, Some("p".into()), 3)
        );
        assert_eq!(config.limits.max_clients, Limits::default().max_clients);
        assert_eq!(config.dir, PathBuf::from("strandline-data"));
        let config = parse("max_open_files = 8\n").expect("it parses");
        assert!(config.check().is_ok());
        let own = Config::default().engine_options();
        assert_eq!(config.engine_options(), own.clone().max_open_files(8));
        let config = parse("sync_ttl_ms = 5\n").expect("it parses");
        assert_eq!(config.engine_options(), own.stores(stores(5)));
    }

    fn stores(sync_ttl_ms: u64) -> [NewStore; 2] {
        [NewStore::new("messages", None), NewStore::new("sync", limit_of(sync_ttl_ms))]
    }

    #[test]
    fn the_defaults_of_the_engine_are_those_of_the_server() {
        let expected = Options::default()
            .max_body_bytes(MAX_BODY_BYTES)
            .stores(stores(604_800_000))
            .wakers(Wakers::Short);
        assert_eq!(Config::default().engine_options(), expected);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert!(parse("prot = 1").is_err_and(|error| error.to_string().contains("prot")));
        assert!(parse("[limits]\nmax_client = 1").is_err());
        let config = parse("[limits]\nmax_body_bytes = 17000000").expect("it parses");
        assert!(config.check().is_err_and(|error| error.to_string().contains("max_body_bytes")));
        assert!(Config::default().check().is_ok());
        for (line, name) in [
            ("memory_budget_bytes = 1000000", "memory_budget_bytes"),
            ("[limits]\nclient_memory_bytes = 1048576", "max_body_bytes"),
            (
                "[limits]\nmax_body_bytes = 16777216\nclient_memory_bytes = 67108863",
                "client_memory_bytes",
            ),
            ("compact_bytes_per_second = 2199023255552", "compact_bytes_per_second"),
            ("reserve_bytes = 2199023255552", "reserve_bytes"),
            ("max_open_files = 7", "max_open_files"),
            ("max_open_files = 1048577", "max_open_files"),
            ("threads = 1025", "threads"),
            ("[limits]\nclient_stall_seconds = 18446744073709551615", "client_stall_seconds"),
            ("[limits]\nauth_seconds = 0", "auth_seconds"),
            ("[limits]\nmax_clients = 0", "max_clients"),
            ("[limits]\nkeepalive_seconds = 32768", "keepalive_seconds"),
            ("[limits]\nmax_total_subscriptions = 0", "max_total_subscriptions"),
            ("[backup]\nkeep = 0", "backup.keep"),
            ("[tls]\nport = 0", "tls.certificate"),
            ("[http]\nport = 0\ntls = true", "tls.certificate"),
            ("[backup]\nschedule = \"daily\"", "schedule"),
            ("[backup]\nschedule = \"24h\"", "backup_dir"),
        ] {
            let refused = parse(line).map(|config| config.check());
            // TOML rejects a number outside of its range while parsing.
            assert!(
                refused.is_err()
                    || refused.is_ok_and(
                        |checked| checked.is_err_and(|error| error.to_string().contains(name))
                    ),
                "{line}"
            );
        }
    }
}
