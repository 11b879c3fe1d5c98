//! The settings of a running server, which CONFIG SET and a reload of the sources change.
//!
//! ```text
//! CONFIG SET, SIGHUP ── one change at a time ──▶ current ── one atomic load a round ──▶ copies
//! ```
//!
//! Each connection keeps a copy of the current settings, so that a command reads plain memory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::rewrite::rewrite;
use super::setting::{Plain, Setting};
use super::sources::Sources;
use super::table::{MOST_CLIENTS, settings};
use super::{Config, ConfigError};

/// The settings of a running server.
pub struct RunningConfig {
    current: Mutex<Arc<Config>>,
    /// The address of the current settings in memory. As long as a reader has its copy, no other
    /// settings can have the same address.
    address: AtomicUsize,
    /// The settings with which the server was started.
    given: Config,
    /// Where they came from, if they can be read again.
    sources: Option<Sources>,
    /// The names that CONFIG SET has changed and that are not written into the file yet. Locked for
    /// the whole of each change.
    changed: Mutex<BTreeSet<&'static str>>,
    /// The connections that the limit on open files allows.
    most_clients: usize,
}

/// Settings before and after a change.
pub struct Change {
    /// Those before.
    pub before: Arc<Config>,
    /// Those that hold now.
    pub now: Arc<Config>,
}

impl RunningConfig {
    /// The settings of a server that starts. `most_clients`: the connections that the limit on open
    /// files allows, if it is known.
    pub fn new(
        given: Config,
        sources: Option<Sources>,
        most_clients: Option<usize>,
    ) -> RunningConfig {
        let most_clients = most_clients.unwrap_or(MOST_CLIENTS as usize);
        let current = Arc::new(fitted(given.clone(), most_clients));
        RunningConfig {
            address: AtomicUsize::new(address(&current)),
            current: Mutex::new(current),
            given,
            sources,
            changed: Mutex::default(),
            most_clients,
        }
    }

    /// The current settings.
    pub fn now(&self) -> Arc<Config> {
        Arc::clone(&self.current.lock())
    }

    /// Replaces a copy of the settings that is not current any more.
    pub fn refresh(&self, copy: &mut Arc<Config>) {
        if self.address.load(Ordering::Acquire) != address(copy) {
            *copy = self.now();
        }
    }

    /// Reads the sources again, and changes nothing. `None`: there are none.
    pub fn read(&self) -> Option<Result<Config, ConfigError>> {
        self.sources.as_ref().map(|sources| Ok(sources.load()?.config))
    }

    /// The file that CONFIG REWRITE writes, if there is one.
    pub fn file(&self) -> Option<PathBuf> {
        self.sources.as_ref()?.file.clone()
    }

    /// Changes settings, all of them or, with an error, none.
    pub fn set(&self, wanted: &[(&'static Setting, String)]) -> Result<Change, ConfigError> {
        let mut changed = self.changed.lock();
        let mut config = Config::clone(&self.now());
        for (setting, text) in wanted {
            self.set_one(&mut config, setting, text).map_err(|what| ConfigError::Value { what })?;
        }
        config.check()?;
        changed.extend(wanted.iter().map(|(setting, _)| setting.name));
        Ok(self.replace(config))
    }

    fn set_one(&self, config: &mut Config, setting: &Setting, text: &str) -> Result<(), String> {
        let name = setting.name;
        if !setting.live {
            return Err(format!(
                "{name} is read at the start only: set it in the configuration file, and restart"
            ));
        }
        setting.set(config, text)?;
        let most = self.most_clients;
        if config.limits.max_clients > most && name == "limits.max_clients" {
            return Err(format!(
                "{name} is {text}, and the limit on open files allows {most}: raise it \
                 (ulimit -Hn), and restart"
            ));
        }
        Ok(())
    }

    /// Reads the sources again, and takes from them what may change at run time. With an error
    /// nothing changes. `apply` is given the new settings before they hold, and may refuse them.
    pub fn reload(
        &self,
        apply: impl FnOnce(&Config) -> Result<(), ConfigError>,
    ) -> Result<Change, ConfigError> {
        let mut changed = self.changed.lock();
        let before = self.now();
        let Some(sources) = &self.sources else {
            return Ok(Change { now: Arc::clone(&before), before });
        };
        let loaded = sources.load()?.config;
        let mut config = Config::clone(&before);
        for setting in settings() {
            if setting.live {
                setting.copy(&loaded, &mut config);
            } else if !setting.is_same(&loaded, &self.given) {
                let setting = setting.name;
                warn!(setting, "a changed setting takes effect at the next start");
            }
        }
        config.check()?;
        apply(&config)?;
        changed.clear();
        Ok(self.replace(config))
    }

    /// Writes what CONFIG SET has changed into the file. Reads and writes the disk.
    pub fn rewrite(&self) -> Result<(), ConfigError> {
        let mut changed = self.changed.lock();
        let Some(path) = self.file() else {
            return Err(ConfigError::Value {
                what: "the server was started without a configuration file: start it with --config"
                    .into(),
            });
        };
        let config = self.now();
        let values: Vec<(&str, Plain)> = settings()
            .filter(|setting| changed.contains(setting.name))
            .map(|setting| (setting.name, setting.plain(&config)))
            .collect();
        rewrite(&path, &values)?;
        for setting in settings().filter(|setting| changed.contains(setting.name)) {
            self.warn_of_override(setting);
        }
        changed.clear();
        Ok(())
    }

    fn warn_of_override(&self, setting: &Setting) {
        let origin = self.sources.as_ref().and_then(|sources| sources.override_of(setting));
        if let Some(origin) = origin {
            warn!(
                setting = setting.name,
                %origin,
                "a setting was written into the file, and is overridden at the next start"
            );
        }
    }

    /// The caller holds the lock of changes.
    fn replace(&self, config: Config) -> Change {
        let now = Arc::new(fitted(config, self.most_clients));
        let mut current = self.current.lock();
        let before = std::mem::replace(&mut *current, Arc::clone(&now));
        self.address.store(address(&now), Ordering::Release);
        drop(current);
        for setting in settings().filter(|setting| !setting.is_same(&before, &now)) {
            let (name, before, now) = (setting.name, setting.shown(&before), setting.shown(&now));
            info!(setting = name, before, now, "a setting has changed");
        }
        Change { before, now }
    }
}

fn address(config: &Arc<Config>) -> usize {
    Arc::as_ptr(config) as usize
}

/// The settings as they hold: within what other settings and the operating system allow.
fn fitted(mut config: Config, most_clients: usize) -> Config {
    let limits = &mut config.limits;
    limits.reply_bytes = limits.reply_bytes_that_fit();
    limits.max_clients = limits.max_clients.min(most_clients);
    config
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "this is no file of the engine's")]
mod tests {
    use super::*;
    use crate::config::table::find;

    fn wanted(pairs: &[(&str, &str)]) -> Vec<(&'static Setting, String)> {
        let get = |name| find(name).expect("it is in the table");
        pairs.iter().map(|(name, text)| (get(name), (*text).to_owned())).collect()
    }

    #[test]
    fn a_change_reaches_every_copy_and_a_refused_one_changes_nothing() {
        let running = RunningConfig::new(Config::default(), None, Some(100));
        let mut copy = running.now();
        assert_eq!(copy.limits.max_clients, 100, "as many as there are files for");
        let set = |pairs: &[(&str, &str)]| running.set(&wanted(pairs));
        assert!(set(&[("limits.idle_seconds", "7"), ("limits.max_clients", "50")]).is_ok());
        running.refresh(&mut copy);
        assert_eq!((copy.limits.idle_seconds, copy.limits.max_clients), (7, 50));
        for (pairs, needed) in [
            ([("limits.idle_seconds", "8"), ("port", "1")], "at the start only"),
            ([("limits.idle_seconds", "8"), ("limits.max_clients", "101")], "open files"),
            ([("limits.idle_seconds", "8"), ("limits.auth_seconds", "0")], "from 1"),
        ] {
            let refused = set(&pairs).err().expect("it is refused").to_string();
            assert!(refused.contains(needed), "{refused}");
            running.refresh(&mut copy);
            assert_eq!(copy.limits.idle_seconds, 7);
        }
        let refused = running.rewrite().expect_err("there is no file").to_string();
        assert!(refused.contains("without a configuration file"), "{refused}");
    }

    #[test]
    fn a_reload_takes_what_may_change_and_keeps_everything_if_the_file_is_wrong() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("strandline.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("it is written");
        write("threads = 2\n[limits]\nauth_seconds = 3\n");
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let given = sources.load().expect("they are valid").config;
        let running = RunningConfig::new(given, Some(sources), None);
        running.set(&wanted(&[("limits.auth_seconds", "9")])).expect("it may change");
        write("threads = 3\n[limits]\nauth_seconds = 4\nidle_seconds = 5\n");
        let change = running.reload(|_| Ok(())).expect("the file is valid");
        assert_eq!((change.before.limits.auth_seconds, change.now.limits.auth_seconds), (9, 4));
        assert_eq!((change.now.limits.idle_seconds, change.now.threads), (5, 2));
        write("[limits]\nauth_seconds = 0\n");
        assert!(running.reload(|_| Ok(())).is_err());
        assert_eq!(running.now().limits.auth_seconds, 4);
    }
}
