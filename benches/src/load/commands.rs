//! The commands of each workload for each target.
//!
//! Redis Streams are used because Redis users build timelines with them: XADD, XREVRANGE, and for a
//! fan-out one EVAL that adds the body to each key, which is atomic and costs one command instead
//! of N + 3. Durability is a setting of the server in Redis, and of the command in Strandline
//! (`DURABILITY os`), with fsync as the default.

use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;

use super::nats::write_publish;
use super::resp::{begin_command, write_command, write_part};
use crate::workload::{Bodies, GROUPS, Random, TIMELINES, Zipf, timeline};

/// The arguments with which Redis syncs each write before its reply.
pub const REDIS_SYNCED: [&str; 8] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--auto-aof-rewrite-percentage",
    "0",
];

/// The target server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// This project's server.
    Strandline,
    /// Redis, with Streams.
    Redis,
    /// NATS, with a stream of `JetStream`. Appends only.
    Nats,
}

impl Target {
    /// The command that starts such a server on `address`, a host and a port.
    pub fn start_command(self, address: &str) -> String {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let host = host.trim_matches(['[', ']']);
        let bind = match host.parse::<IpAddr>() {
            Ok(host) => format!(" --bind {host}"),
            // The servers bind to addresses, not to names; by default to the local one.
            Err(_) => String::new(),
        };
        let port = format!(" --port {port}");
        match self {
            Target::Strandline => format!("cargo run --release -- serve{bind}{port}"),
            Target::Redis => {
                let shown = |word: &'static str| if word.is_empty() { "\"\"" } else { word };
                format!("redis-server{bind}{port} {}", REDIS_SYNCED.map(shown).join(" "))
            }
            Target::Nats => format!("nats-server --jetstream{port}"),
        }
    }

    /// Whether there are commands for this workload.
    pub fn can(self, workload: Traffic) -> bool {
        self != Target::Nats || workload == Traffic::Append
    }
}

/// What the clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Traffic {
    /// One entry to one timeline, by Zipf over 100 k timelines.
    Append,
    /// One message to a conversation and its members.
    Fanout,
    /// The newest 50 entries of one of a thousand timelines, which are filled first.
    Latest,
}

/// Timelines that `Traffic::Latest` reads.
pub const READ_TIMELINES: u32 = 1_000;

/// Entries in each of them.
pub const READ_ENTRIES: u32 = 60;

const LATEST: &[u8] = b"50";

const FAN_OUT_SCRIPT: &[u8] =
    b"for i = 1, #KEYS do redis.call('XADD', KEYS[i], '*', 'b', ARGV[1]) end return #KEYS";

/// The data that all clients share.
#[derive(Debug)]
pub struct Shared {
    /// The target server.
    pub target: Target,
    /// The workload.
    pub workload: Traffic,
    /// Whether to ask Strandline for `DURABILITY os`.
    pub relaxed: bool,
    /// The members of each group.
    pub groups: Vec<Vec<u32>>,
    bodies: Bodies,
    zipf: Zipf,
}

impl Shared {
    /// Makes the data.
    pub fn new(target: Target, workload: Traffic, relaxed: bool, groups: Vec<Vec<u32>>) -> Shared {
        Shared {
            target,
            workload,
            relaxed,
            groups,
            bodies: Bodies::new(1),
            zipf: Zipf::new(TIMELINES),
        }
    }
}

/// An endless sequence of commands for one client.
pub struct Commands {
    shared: Arc<Shared>,
    client: u64,
    random: Random,
}

impl Commands {
    /// Those of client `client`.
    pub fn new(shared: Arc<Shared>, client: u64) -> Commands {
        Commands { shared, client, random: Random::new(0x10AD + client) }
    }

    /// The client that sends them.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The server that they are for.
    pub fn target(&self) -> Target {
        self.shared.target
    }

    /// Appends the next command to `out`.
    pub fn write_next(&mut self, out: &mut Vec<u8>) {
        match self.shared.workload {
            Traffic::Append => {
                let to = timeline(&self.shared.zipf, &mut self.random);
                self.write_append(out, to);
            }
            Traffic::Fanout => self.write_fan_out(out),
            Traffic::Latest => {
                let key = conversation_key(self.random.below(READ_TIMELINES));
                match self.shared.target {
                    Target::Strandline => {
                        write_command(out, &[b"TL.REVRANGE", &key, b"+", b"-", b"COUNT", LATEST]);
                    }
                    Target::Redis => {
                        write_command(out, &[b"XREVRANGE", &key, b"+", b"-", b"COUNT", LATEST]);
                    }
                    Target::Nats => unreachable!("`Target::can` says that it cannot"),
                }
            }
        }
    }

    /// Appends a command that adds some body to conversation `to`.
    pub fn write_append(&mut self, out: &mut Vec<u8>, to: u32) {
        let key = conversation_key(to);
        let body = self.shared.bodies.pick(&mut self.random);
        match (self.shared.target, self.shared.relaxed) {
            (Target::Redis, _) => write_command(out, &[b"XADD", &key, b"*", b"b", body]),
            (Target::Nats, _) => write_publish(out, self.client, to, body),
            (Target::Strandline, false) => write_command(out, &[b"TL.APPEND", &key, body]),
            (Target::Strandline, true) => {
                write_command(out, &[b"TL.APPEND", &key, body, b"DURABILITY", b"os"]);
            }
        }
    }

    fn write_fan_out(&mut self, out: &mut Vec<u8>) {
        let group = self.random.below(GROUPS);
        let members = &self.shared.groups[group as usize];
        let body = self.shared.bodies.pick(&mut self.random);
        let count = (members.len() + 1).to_string();
        let options: &[&[u8]] = if self.shared.relaxed { &[b"DURABILITY", b"os"] } else { &[] };
        let (head, tail): (&[&[u8]], &[&[u8]]) = match self.shared.target {
            Target::Strandline => (&[b"TL.FANOUT", body, count.as_bytes()], options),
            Target::Redis => (&[b"EVAL", FAN_OUT_SCRIPT, count.as_bytes()], &[body]),
            Target::Nats => unreachable!("`Target::can` says that it cannot"),
        };
        begin_command(out, head.len() + members.len() + 1 + tail.len());
        for part in head {
            write_part(out, part);
        }
        write_part(out, &conversation_key(group));
        for &user in members {
            write_part(out, format!("sync:u/{user:08}").as_bytes());
        }
        for part in tail {
            write_part(out, part);
        }
    }
}

fn conversation_key(id: u32) -> Vec<u8> {
    format!("messages:c/{id:08}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(target: Target, workload: Traffic, relaxed: bool) -> String {
        let groups = (0..GROUPS).map(|group| vec![group, group + 1]).collect();
        let shared = Arc::new(Shared::new(target, workload, relaxed, groups));
        let mut out = Vec::new();
        Commands::new(shared, 0).write_next(&mut out);
        String::from_utf8(out).expect("bodies are text")
    }

    #[test]
    fn a_fan_out_names_as_many_keys_as_it_says() {
        for (target, parts) in [(Target::Strandline, 6), (Target::Redis, 7)] {
            let command = text(target, Traffic::Fanout, false);
            assert!(command.starts_with(&format!("*{parts}\r\n")), "{command}");
            assert_eq!(command.matches("\r\n$").count(), parts, "{command}");
            assert_eq!(command.matches("sync:u/").count(), 2);
            assert!(command.contains("\r\n$1\r\n3\r\n"), "{command}");
        }
    }

    #[test]
    fn relaxed_durability_is_asked_for_by_the_command() {
        for workload in [Traffic::Append, Traffic::Fanout] {
            assert!(
                text(Target::Strandline, workload, true)
                    .ends_with("$10\r\nDURABILITY\r\n$2\r\nos\r\n")
            );
            assert!(!text(Target::Strandline, workload, false).contains("DURABILITY"));
        }
    }

    #[test]
    fn redis_gets_its_own_words() {
        assert!(text(Target::Redis, Traffic::Append, false).starts_with("*5\r\n$4\r\nXADD\r\n"));
        assert!(
            text(Target::Redis, Traffic::Latest, false).starts_with("*6\r\n$9\r\nXREVRANGE\r\n")
        );
    }

    #[test]
    fn the_command_that_starts_a_server_has_its_address() {
        let command = |target: Target, address| target.start_command(address);
        assert_eq!(
            command(Target::Strandline, "127.0.0.1:7411"),
            "cargo run --release -- serve --bind 127.0.0.1 --port 7411"
        );
        assert_eq!(
            command(Target::Strandline, "[::1]:9"),
            "cargo run --release -- serve --bind ::1 --port 9"
        );
        assert_eq!(
            command(Target::Redis, "localhost:6379"),
            "redis-server --port 6379 --save \"\" --appendonly yes --appendfsync always \
             --auto-aof-rewrite-percentage 0"
        );
    }
}
