//! The table of all settings. Everything else about settings is derived from it: variables, flags,
//! bounds, CONFIG, and the documents.
//!
//! To add a setting: a field in the settings of its area, and a row here. To add a section: a
//! struct in `<area>/settings.rs` (serde with `default` and `deny_unknown_fields`, `Default`,
//! `Clone`, `PartialEq`), a field of [`Config`](super::Config), and its rows here, in the order of
//! the document: those without a section come first, for TOML's sake. A field of a type of its own
//! implements `Field` (`words!` for a choice of words). A list or a map of tables is a row of
//! `list_setting!`, and its field is `NamedParts`. If a live setting must be handed to someone who
//! does not read the settings each time, do so in `Shared::apply`.

use strandline::{LEAST_OPEN_FILES, MAX_BODY_BYTES, MAX_SEQUENCE};

use super::setting::{
    Field, FieldAccess, NamedParts, Plain, Setting, list_setting, setting, words,
};
use crate::access::{Secret, TokenKeySettings, UserTable};
use crate::backups::{MOST_KEPT, Schedule};
use crate::observe::LogFormat;
use crate::tls::{ClientCertificates, TlsVersion};

/// With less memory the engine, or the connections, could not work.
const LEAST_MEMORY_BYTES: u64 = 1024 * 1024;

/// A tebibyte, 2^40. More is a typing error, and sums must not overflow.
const MOST_BYTES: u64 = 1 << 40;

/// A gibibyte, 2^30: one reply is built in memory as a whole.
const MOST_REPLY_BYTES: u64 = 1 << 30;

/// More than the ports of one address; files limit it further.
pub(super) const MOST_CLIENTS: u64 = 1_000_000;

/// A mebi, 2^20: by default no operating system gives one process more files.
const MOST_OPEN_FILES: u64 = 1 << 20;

/// More than the cores of one machine.
const MOST_THREADS: u64 = 1024;

/// For one connection.
const MOST_SUBSCRIPTIONS: u64 = 10_000_000;

/// For all connections: at 250 bytes and two names each, they take about 50 GB.
const MOST_TOTAL_SUBSCRIPTIONS: u64 = 100_000_000;

/// The limit of Linux, 2^15 - 1.
const MOST_KEEPALIVE_SECONDS: u64 = 32_767;

/// About as many names fit into the largest batch of the engine.
const MOST_MEMBERS: u64 = 200_000;

/// Commands in a second: more than one machine runs.
const MOST_COMMANDS: u64 = 100_000_000;

/// At up to 5 KB each they take half a gigabyte.
const MOST_SLOW_COMMANDS: u64 = 100_000;

/// A year, 365 · 24 · 3600: times that far ahead can still be computed.
const MOST_SECONDS: u64 = 31_536_000;

/// All settings, in the order of the document.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    [SERVER, LIMITS, ACCESS, TLS, OBSERVING, BACKUP, MESSAGING].into_iter().flatten()
}

/// The setting with this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.name == name)
}

static SERVER: &[Setting] = &[
    setting!(dir).unit("path").help("Directory of the data."),
    setting!(bind).unit("address").help("Address to listen on."),
    setting!(port).help("Port to listen on; 0 takes a free one."),
    setting!(password).unit("text").secret().help("Clients must log in with it."),
    setting!(allow_unprotected)
        .help("Listen on any address although nobody must log in: for closed networks."),
    setting!(backup_dir).unit("path").example("/var/backups/strandline").help(
        "The directory of scheduled backups, below which TL.BACKUP writes, too. Without it \
             there are none, and TL.BACKUP is refused.",
    ),
    setting!(read_only).help("Serve what is intact, take no writes."),
    setting!(sync_ttl_ms)
        .unit("ms")
        .bounds(0, MAX_SEQUENCE)
        .help("TTL of the store `sync` when it is made: seven days; 0: none."),
    setting!(compact_bytes_per_second)
        .unit("bytes/s")
        .bounds(0, MOST_BYTES)
        .live()
        .help("What merging writes at most; 0: as much as it can."),
    setting!(reserve_bytes)
        .unit("bytes")
        .bounds(0, MOST_BYTES)
        .help("Space kept for getting space back, at most; 0: none."),
    setting!(max_open_files)
        .unit("files")
        .bounds(LEAST_OPEN_FILES as u64, MOST_OPEN_FILES)
        .help("Files of segments that are kept open, at most."),
    setting!(threads)
        .bounds(0, MOST_THREADS)
        .help("Event loops that serve connections; 0: one for each core."),
    setting!(memory_budget_bytes)
        .unit("bytes")
        .bounds(LEAST_MEMORY_BYTES, MOST_BYTES)
        .help("The engine's memory."),
    list_setting!(users).live().help("The users, `[users.NAME]`: see access.md."),
];

impl NamedParts for UserTable {
    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

impl NamedParts for Vec<TokenKeySettings> {
    fn names(&self) -> Vec<&str> {
        self.iter().map(|key| key.id.as_str()).collect()
    }
}

static LIMITS: &[Setting] = &[
    setting!(limits.max_clients)
        .bounds(1, MOST_CLIENTS)
        .live()
        .redis("maxclients")
        .help("Connections; further ones are refused."),
    setting!(limits.max_body_bytes)
        .unit("bytes")
        .bounds(1, MAX_BODY_BYTES as u64)
        .live()
        .redis("max-body-bytes")
        .help("Largest body."),
    setting!(limits.max_subscriptions)
        .bounds(1, MOST_SUBSCRIPTIONS)
        .live()
        .help("Subscriptions of one connection, the keys that it is blocked on included."),
    setting!(limits.max_total_subscriptions)
        .bounds(1, MOST_TOTAL_SUBSCRIPTIONS)
        .live()
        .help("The same of all connections together."),
    setting!(limits.client_memory_bytes).unit("bytes").bounds(LEAST_MEMORY_BYTES, MOST_BYTES).help(
        "Input and output of all connections, half each; at least four times \
             `limits.max_body_bytes`.",
    ),
    setting!(limits.output_high_water_bytes)
        .unit("bytes")
        .bounds(1024, MOST_BYTES)
        .live()
        .help("Output of one connection above which it runs nothing."),
    setting!(limits.read_ahead_bytes)
        .unit("bytes")
        .bounds(0, MOST_BYTES)
        .live()
        .help("Input of one connection that is read while it runs nothing."),
    setting!(limits.total_read_ahead_bytes)
        .unit("bytes")
        .bounds(0, MOST_BYTES)
        .live()
        .help("The same for all connections together."),
    setting!(limits.reply_bytes)
        .unit("bytes")
        .bounds(1024, MOST_REPLY_BYTES)
        .live()
        .help("Bodies in one reply; at most a quarter of `limits.client_memory_bytes` is used."),
    setting!(limits.auth_seconds).unit("s").bounds(1, MOST_SECONDS).live().help("Time to log in."),
    setting!(limits.client_stall_seconds).unit("s").bounds(1, MOST_SECONDS).live().help(
        "Time in which a client that is waited for must take or send 16 KiB. What it moved \
             before counts for up to five such times, since TCP reports it in steps.",
    ),
    setting!(limits.keepalive_seconds)
        .unit("s")
        .bounds(0, MOST_KEEPALIVE_SECONDS)
        .live()
        .redis("tcp-keepalive")
        .help(
            "Silence after which TCP asks whether the peer is still there, for connections that \
             are accepted from then on; 0: never.",
        ),
    setting!(limits.idle_seconds)
        .unit("s")
        .bounds(0, MOST_SECONDS)
        .live()
        .redis("timeout")
        .help("Time without a command after which an idle connection is closed; 0: never."),
    setting!(limits.stop_seconds)
        .unit("s")
        .bounds(0, MOST_SECONDS)
        .live()
        .help("Time that connections get when the server stops."),
];

static ACCESS: &[Setting] = &[
    list_setting!(tokens.keys)
        .live()
        .help("The keys of terminals' tokens, `[[tokens.keys]]`: see access.md."),
    setting!(tokens.audience)
        .unit("text")
        .example("chat")
        .live()
        .help("The audience that tokens must have."),
    setting!(tokens.issuer)
        .unit("text")
        .example("https://accounts.example.org")
        .live()
        .help("The issuer that tokens must have."),
    setting!(rates.connection_per_second)
        .unit("commands/s")
        .bounds(0, MOST_COMMANDS)
        .live()
        .help("Commands of one connection; 0: no limit."),
    setting!(rates.connection_burst)
        .unit("commands")
        .bounds(1, MOST_COMMANDS)
        .live()
        .help("Commands that one connection may run at once."),
    setting!(rates.user_per_second)
        .unit("commands/s")
        .bounds(0, MOST_COMMANDS)
        .live()
        .help("Commands of all connections of one user; 0: no limit."),
    setting!(rates.user_burst)
        .unit("commands")
        .bounds(1, MOST_COMMANDS)
        .live()
        .help("Commands that the connections of one user may run at once."),
];

impl Field for Secret {
    fn plain(&self) -> Plain {
        Plain::Text(self.reveal().into())
    }

    fn parsed(text: &str) -> Result<Secret, String> {
        Ok(text.into())
    }
}

words!(ClientCertificates:
    "none" => ClientCertificates::None,
    "optional" => ClientCertificates::Optional,
    "required" => ClientCertificates::Required
);

words!(TlsVersion: "1.2" => TlsVersion::V12, "1.3" => TlsVersion::V13);

static TLS: &[Setting] = &[
    setting!(tls.port).example("7413").help(
        "Port for TLS, beside the plain one; 0 takes a free one. Without it there is no TLS.",
    ),
    setting!(tls.bind)
        .unit("address")
        .example("0.0.0.0")
        .help("Address to listen on for TLS, if it is not `bind`."),
    setting!(tls.certificate)
        .unit("path")
        .example("/etc/strandline/tls.crt")
        .help("PEM file with the server's certificate, and those that lead to its authority."),
    setting!(tls.key)
        .unit("path")
        .example("/etc/strandline/tls.key")
        .help("PEM file with the private key of the certificate."),
    setting!(tls.client_ca)
        .unit("path")
        .example("/etc/strandline/clients-ca.crt")
        .help("PEM file with the certificates of the authorities that sign clients' certificates."),
    setting!(tls.client_certificates).words(&["none", "optional", "required"]).help(
        "Whether clients are asked for a certificate, and must show one. One that is shown must \
         be valid.",
    ),
    setting!(tls.minimum_version)
        .words(&["1.2", "1.3"])
        .help("The oldest version of TLS that is accepted."),
];

words!(LogFormat: "text" => LogFormat::Text, "json" => LogFormat::Json);

static OBSERVING: &[Setting] = &[
    setting!(http.port).example("7412").help(
        "Port for metrics and health; 0 takes a free one. Without it there is none. It has no \
         password.",
    ),
    setting!(http.bind).unit("address").help("Address to listen on for metrics and health."),
    setting!(http.tls).help(
        "Whether this port has TLS, with the certificates of `tls`. If `tls.client_certificates` \
         asks for some, it does so here, too.",
    ),
    setting!(log.format).words(&["text", "json"]).help("The form of the log's lines."),
    setting!(log.filter)
        .unit("text")
        .live()
        .help("Which lines the log has: a level, or levels by module."),
    setting!(slowlog.threshold_us)
        .unit("µs")
        .bounds(0, MOST_SECONDS * 1_000_000)
        .live()
        .redis("slowlog-log-slower-than")
        .help("The time from which a command, a commit or an fsync is slow."),
    setting!(slowlog.length)
        .bounds(0, MOST_SLOW_COMMANDS)
        .live()
        .redis("slowlog-max-len")
        .help("Slow commands that are kept, at most; 0: none."),
];

impl Field for Schedule {
    fn plain(&self) -> Plain {
        Plain::Text(self.to_string())
    }

    fn parsed(text: &str) -> Result<Schedule, String> {
        text.parse()
            .map_err(|_| "an interval from 1m to 366d, or a time of the day such as 03:30".into())
    }
}

static BACKUP: &[Setting] = &[
    setting!(backup.schedule).example("03:30").help(
        "When backups are taken: an interval from 1m to 366d, or a time of the day in UTC, \
             such as 03:30. Without it there are none.",
    ),
    setting!(backup.keep)
        .unit("backups")
        .bounds(1, MOST_KEPT)
        .help("Complete scheduled backups that are kept."),
];

static MESSAGING: &[Setting] = &[
    setting!(messaging.push_members).unit("members").bounds(0, MOST_MEMBERS).help(
        "Conversations of mode auto are pushed up to so many, and pulled above; 0: always \
             pulled.",
    ),
    setting!(messaging.max_members)
        .unit("members")
        .bounds(1, MOST_MEMBERS)
        .help("Members of one conversation."),
    setting!(messaging.change_window_ms)
        .unit("ms")
        .bounds(0, MAX_SEQUENCE)
        .help("How long a message may be edited or recalled; 0: for ever."),
    setting!(messaging.ledger_memory_bytes)
        .unit("bytes")
        .bounds(LEAST_MEMORY_BYTES, MOST_BYTES)
        .help(
            "Memory for what is known of conversations and users, an eighth of it for lists of \
             which pages are to come; what does not fit is read again.",
        ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::*;
    use crate::config::Config;

    fn names(prefix: &str, value: &Json, found: &mut BTreeSet<String>) {
        let is_list = find(prefix).is_some_and(|setting| setting.in_file_only);
        match value {
            Json::Object(fields) if !is_list => fields.iter().for_each(|(name, value)| {
                let dot = if prefix.is_empty() { "" } else { "." };
                names(&format!("{prefix}{dot}{name}"), value, found);
            }),
            _ => drop(found.insert(prefix.into())),
        }
    }

    #[test]
    fn the_table_has_every_field_of_the_settings_and_no_other() {
        let mut of_config = BTreeSet::new();
        let defaults = serde_json::to_value(Config::default()).expect("settings are plain values");
        names("", &defaults, &mut of_config);
        let of_table: BTreeSet<_> = settings().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(of_table, of_config);
        assert_eq!(settings().count(), of_table.len());
    }

    #[test]
    fn names_in_the_environment_and_in_redis_are_unique_and_every_setting_is_explained() {
        let variables: BTreeSet<_> = settings().map(Setting::variable).collect();
        assert_eq!(variables.len(), settings().count());
        assert_eq!(
            find("limits.max_clients").map(Setting::variable).as_deref(),
            Some("STRANDLINE_LIMITS_MAX_CLIENTS")
        );
        let all = || settings().flat_map(|setting| setting.redis.into_iter().chain([setting.name]));
        assert_eq!(all().collect::<BTreeSet<_>>().len(), all().count());
        for setting in settings() {
            assert!(setting.help.ends_with('.') && !setting.help.contains('|'), "{}", setting.name);
        }
    }

    #[test]
    fn every_default_can_be_written_as_text() {
        let mut config = Config::default();
        for setting in settings().filter(|setting| !setting.in_file_only) {
            let text = setting.plain(&config).to_string();
            assert_eq!(setting.set(&mut config, &text), Ok(()), "{}", setting.name);
            assert!(setting.is_same(&config, &Config::default()), "{}", setting.name);
        }
    }
}
