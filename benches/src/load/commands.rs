//! The commands of each workload for each target.
//!
//! Redis Streams are used because Redis users build timelines with them: XADD, XREVRANGE, and for a
//! fan-out one EVAL that adds the body to each key, which is atomic and costs one command instead
//! of N + 3. Durability is a setting of the server in Redis, and of the command in Strandline
//! (`DURABILITY os`), with fsync as the default.

use std::sync::Arc;

use clap::ValueEnum;

use super::resp::{begin_command, write_command, write_part};
use crate::workload::{Bodies, GROUPS, Random, TIMELINES, Zipf, timeline};

/// The target server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// This project's server.
    Strandline,
    /// Redis, with Streams.
    Redis,
}

/// The workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One entry to one timeline, by Zipf over 100 k timelines.
    Append,
    /// One message to a conversation and its members.
    Fanout,
    /// The newest 50 entries of one of a thousand timelines, which are filled first.
    Latest,
}

/// Timelines that `Workload::Latest` reads.
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
    pub workload: Workload,
    /// Whether to ask Strandline for `DURABILITY os`.
    pub relaxed: bool,
    /// The members of each group.
    pub groups: Vec<Vec<u32>>,
    bodies: Bodies,
    zipf: Zipf,
}

impl Shared {
    /// Makes the data.
    pub fn new(target: Target, workload: Workload, relaxed: bool, groups: Vec<Vec<u32>>) -> Shared {
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
    random: Random,
}

impl Commands {
    /// Those of client `client`.
    pub fn new(shared: Arc<Shared>, client: u64) -> Commands {
        Commands { shared, random: Random::new(0x10AD + client) }
    }

    /// Appends the next command to `out`.
    pub fn write_next(&mut self, out: &mut Vec<u8>) {
        match self.shared.workload {
            Workload::Append => {
                let to = timeline(&self.shared.zipf, &mut self.random);
                self.write_append(out, to);
            }
            Workload::Fanout => self.write_fan_out(out),
            Workload::Latest => {
                let key = conversation_key(self.random.below(READ_TIMELINES));
                match self.shared.target {
                    Target::Strandline => {
                        write_command(out, &[b"TL.REVRANGE", &key, b"+", b"-", b"COUNT", LATEST]);
                    }
                    Target::Redis => {
                        write_command(out, &[b"XREVRANGE", &key, b"+", b"-", b"COUNT", LATEST]);
                    }
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

    fn text(target: Target, workload: Workload, relaxed: bool) -> String {
        let groups = (0..GROUPS).map(|group| vec![group, group + 1]).collect();
        let shared = Arc::new(Shared::new(target, workload, relaxed, groups));
        let mut out = Vec::new();
        Commands::new(shared, 0).write_next(&mut out);
        String::from_utf8(out).expect("bodies are text")
    }

    #[test]
    fn a_fan_out_names_as_many_keys_as_it_says() {
        for (target, parts) in [(Target::Strandline, 6), (Target::Redis, 7)] {
            let command = text(target, Workload::Fanout, false);
            assert!(command.starts_with(&format!("*{parts}\r\n")), "{command}");
            assert_eq!(command.matches("\r\n$").count(), parts, "{command}");
            assert_eq!(command.matches("sync:u/").count(), 2);
            assert!(command.contains("\r\n$1\r\n3\r\n"), "{command}");
        }
    }

    #[test]
    fn relaxed_durability_is_asked_for_by_the_command() {
        for workload in [Workload::Append, Workload::Fanout] {
            assert!(
                text(Target::Strandline, workload, true)
                    .ends_with("$10\r\nDURABILITY\r\n$2\r\nos\r\n")
            );
            assert!(!text(Target::Strandline, workload, false).contains("DURABILITY"));
        }
    }

    #[test]
    fn redis_gets_its_own_words() {
        assert!(text(Target::Redis, Workload::Append, false).starts_with("*5\r\n$4\r\nXADD\r\n"));
        assert!(
            text(Target::Redis, Workload::Latest, false).starts_with("*6\r\n$9\r\nXREVRANGE\r\n")
        );
    }
}
