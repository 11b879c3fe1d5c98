//! Two samples as lines of text.

use std::collections::BTreeMap;

use super::sample::Sample;
use crate::remote::login::Login;
use crate::remote::paint::Paint;
use crate::remote::show::{aligned, escaped};

/// Commands that are shown.
const COMMANDS: usize = 8;

/// Busiest keys that are shown.
const BUSIEST: usize = 5;

/// Connections that are shown where there is room for any number.
const CONNECTIONS: usize = 20;

/// Figures that a person must act on when they are not 0, and what to do.
const ALARMS: [(&str, &str); 6] = [
    ("poisoned", "a write failed: check the disk, then restart the server"),
    ("reserve_is_out", "the disk is full: make room"),
    ("merges_wait_for_space", "merging waits for space: make room, or trim"),
    ("damaged_segments", "there is damage: TL.VERIFY names it, and repairs what is kept twice"),
    ("damaged_log_places", "the log is damaged: see docs/operations.md, Salvage"),
    ("expiry_held_by_clock", "expiry waits for the clock: check the time of the machine"),
];

/// What is shown of a server.
pub struct Picture<'a> {
    before: &'a Sample,
    now: &'a Sample,
    address: String,
}

impl<'a> Picture<'a> {
    /// The picture of the time between two samples.
    pub fn new(before: &'a Sample, now: &'a Sample, login: &Login) -> Picture<'a> {
        Picture { before, now, address: login.address.to_string() }
    }

    /// As lines that fit into this many lines and columns.
    pub fn lines(&self, (most_lines, columns): (usize, usize), paint: Paint) -> Vec<String> {
        let mut lines = vec![paint.heading(&self.title()), String::new()];
        lines.extend(aligned(&self.load(paint)).lines().map(str::to_owned));
        let alarms = ALARMS.iter().filter(|(name, _)| self.now.figure(name) > 0);
        lines.extend(alarms.map(|(name, what)| paint.error(&format!("{name}: {what}"))));
        let commands = self.commands();
        if commands.len() > 1 {
            lines.push(String::new());
            lines.extend(with_heading(&commands, paint));
        }
        let busiest = self.now.busiest();
        if !busiest.is_empty() {
            let heading = ["busiest key", "of the last writes"].map(str::to_owned);
            let rows = busiest.into_iter().take(BUSIEST).map(|(key, share)| {
                // Keys are chosen by clients.
                [escaped(key.as_bytes(), false), format!("{share} %")]
            });
            let rows: Vec<Vec<String>> =
                [heading].into_iter().chain(rows).map(|row| row.to_vec()).collect();
            lines.push(String::new());
            lines.extend(with_heading(&rows, paint));
        }
        lines.push(String::new());
        let room = most_lines.saturating_sub(lines.len() + 1).min(CONNECTIONS);
        lines.extend(with_heading(&self.connections(room), paint));
        lines.truncate(most_lines);
        if columns < usize::MAX {
            for line in &mut lines {
                *line = console::truncate_str(line, columns, "").into_owned();
            }
        }
        lines
    }

    fn title(&self) -> String {
        let fact = |name: &str| self.now.info.get(name).map_or("", String::as_str);
        let up: u64 = fact("uptime_in_seconds").parse().unwrap_or_default();
        let version = fact("strandline_version");
        format!("strandline {version} at {}, up {}", self.address, duration(up))
    }

    /// How much a counter grew in a second.
    fn rate(&self, name: &str) -> f64 {
        per_second(self.before, self.now, self.before.figure(name), self.now.figure(name))
    }

    /// The same for a counter of bytes, with a unit.
    fn bytes_rate(&self, name: &str) -> String {
        bytes(self.rate(name))
    }

    fn load(&self, paint: Paint) -> Vec<Vec<String>> {
        let figure = |name: &str| self.now.figure(name);
        let size = |name: &str| bytes(self.now.figure(name) as f64);
        let rate = |name: &str| number(self.rate(name));
        let (entries, groups) = (self.rate("entries"), self.rate("groups"));
        let each = if groups > 0.0 { entries / groups } else { 0.0 };
        let of = |used: &str, limit: &str| format!("{} of {}", size(used), size(limit));
        let connections = figure("client_input_bytes") + figure("client_output_bytes");
        let rows = [
            (
                "commands",
                format!("{}/s", rate("total_commands_processed")),
                format!("{} errors/s", rate("total_error_replies")),
                format!("{} pushed/s", rate("pushed_frames")),
            ),
            (
                "appends",
                format!("{} entries/s", number(entries)),
                format!("{}/s of bodies", self.bytes_rate("body_bytes")),
                format!("{} groups/s of {each:.1} entries", number(groups)),
            ),
            (
                "network",
                format!("{}/s in", self.bytes_rate("total_net_input_bytes")),
                format!("{}/s out", self.bytes_rate("total_net_output_bytes")),
                format!(
                    "{} connections, {} blocked",
                    figure("connected_clients"),
                    figure("blocked_clients")
                ),
            ),
            (
                "memory",
                format!("{} resident", size("process_resident_bytes")),
                format!("memtables {}", of("memtable_bytes", "memtable_limit_bytes")),
                format!("cache {}, connections {}", size("cache_bytes"), bytes(connections as f64)),
            ),
            (
                "disk",
                format!("{} in {} segments", size("segment_bytes"), figure("segments")),
                format!("{} free", size("disk_free_bytes")),
                format!(
                    "fsync p99 {:.1} ms, {} to merge",
                    figure("wal_sync_us_p99") as f64 / 1e3,
                    size("compaction_debt_bytes")
                ),
            ),
        ];
        rows.into_iter()
            .map(|(name, first, second, third)| vec![paint.name(name), first, second, third])
            .collect()
    }

    /// The commands that ran most often, if the server counts them.
    fn commands(&self) -> Vec<Vec<String>> {
        let before = self.before.commands();
        let mut rows: Vec<(f64, Vec<String>)> = Vec::new();
        for (name, (calls, us)) in self.now.commands() {
            let (old_calls, old_us) = before.get(&name).copied().unwrap_or_default();
            let called = calls.saturating_sub(old_calls);
            if called == 0 {
                continue;
            }
            let rate = per_second(self.before, self.now, old_calls, calls);
            let each = us.saturating_sub(old_us) as f64 / called as f64;
            rows.push((rate, vec![name, number(rate), format!("{each:.0}")]));
        }
        rows.sort_by(|one, other| other.0.total_cmp(&one.0));
        let heading = ["command", "calls/s", "µs each"].map(str::to_owned).to_vec();
        [heading].into_iter().chain(rows.into_iter().take(COMMANDS).map(|(_, row)| row)).collect()
    }

    /// The busiest connections: by the commands that they ran since the last sample, if the server
    /// counts these, then by how short they have been idle.
    fn connections(&self, most: usize) -> Vec<Vec<String>> {
        let word = |line: &BTreeMap<String, String>, name: &str| {
            line.get(name).cloned().unwrap_or_default()
        };
        let count = |line: &BTreeMap<String, String>, name: &str| {
            word(line, name).parse::<u64>().unwrap_or_default()
        };
        let before: BTreeMap<String, u64> = self
            .before
            .connections
            .iter()
            .map(|line| (word(line, "id"), count(line, "tot-cmds")))
            .collect();
        let ran = |line: &BTreeMap<String, String>| {
            let old = before.get(&word(line, "id")).copied().unwrap_or_default();
            count(line, "tot-cmds").saturating_sub(old)
        };
        let mut lines: Vec<&BTreeMap<String, String>> = self.now.connections.iter().collect();
        lines.sort_by_key(|line| {
            (std::cmp::Reverse(ran(line)), count(line, "idle"), count(line, "id"))
        });
        let heading = ["connection", "user", "name", "command", "idle", "age", "follows"];
        let rows = lines.into_iter().take(most).map(|line| {
            // Names are chosen by clients.
            let shown = |name: &str| escaped(word(line, name).as_bytes(), false);
            vec![
                shown("addr"),
                shown("user"),
                shown("name"),
                shown("cmd").to_ascii_uppercase(),
                duration(count(line, "idle")),
                duration(count(line, "age")),
                (count(line, "sub") + count(line, "ssub")).to_string(),
            ]
        });
        [heading.map(str::to_owned).to_vec()].into_iter().chain(rows).collect()
    }
}

fn per_second(before: &Sample, now: &Sample, old: u64, new: u64) -> f64 {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    if seconds > 0.0 { new.saturating_sub(old) as f64 / seconds } else { 0.0 }
}

/// Aligned rows; the first is the heading.
fn with_heading(rows: &[Vec<String>], paint: Paint) -> Vec<String> {
    let text = aligned(rows);
    let mut lines = text.lines();
    let heading = lines.next().map(|line| paint.dim(line));
    heading.into_iter().chain(lines.map(str::to_owned)).collect()
}

/// A rate: with a digit after the point only if it is small.
fn number(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Bytes with a unit that fits.
fn bytes(count: f64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024.0 {
        return format!("{count:.0} B");
    }
    let (mut value, mut unit) = (count / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds in the two largest units.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::sample::fixture::sample;
    use super::*;

    const LIST: &str = "id=1 addr=1.1.1.1:1 name= age=70 idle=9 sub=0 ssub=0 cmd=ping user=ann\n\
                        id=2 addr=2.2.2.2:2 name=\x1b[x age=3700 idle=0 sub=2 ssub=1 cmd=tl.append \
                        user=ann\n";

    fn lines(size: (usize, usize)) -> Vec<String> {
        let start = Instant::now();
        let info = |calls: u64| {
            format!(
                "strandline_version:0.1.0\nuptime_in_seconds:3700\n\
                 cmdstat_tl.append:calls={calls},usec={}\n",
                calls * 50
            ) + "busiest_0:share=7.5,key=messages:a\n"
        };
        let before = sample(start, &[("entries", 100), ("groups", 10)], &info(5), LIST);
        let figures =
            [("entries", 300), ("groups", 50), ("poisoned", 1), ("segment_bytes", 5_000_000)];
        let now = sample(start + Duration::from_secs(2), &figures, &info(25), LIST);
        let picture = Picture { before: &before, now: &now, address: "db:1".into() };
        picture.lines(size, Paint::NONE)
    }

    #[test]
    fn rates_are_differences_by_second_and_alarms_say_what_to_do() {
        let text = lines((usize::MAX, usize::MAX)).join("\n");
        for part in [
            "strandline 0.1.0 at db:1, up 1 h 1 min",
            "100 entries/s",
            "20 groups/s of 5.0 entries",
            "4.8 MiB in 0 segments",
            "poisoned: a write failed",
            "TL.APPEND  10       50",
            "messages:a   7.5 %",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn the_busiest_connections_come_first_and_names_cannot_change_the_terminal() {
        let lines = lines((usize::MAX, usize::MAX));
        let text = lines.join("\n");
        let rows: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("TL.APPEND") || line.contains("PING"))
            .collect();
        let position = |wanted: &str| lines.iter().position(|line| line.starts_with(wanted));
        assert!(position("2.2.2.2:2") < position("1.1.1.1:1"), "{rows:?}");
        assert!(text.contains("\\x1b[x") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_picture_fits_its_screen() {
        let lines = lines((10, 40));
        assert_eq!(lines.len(), 10);
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 40), "{lines:#?}");
    }

    #[test]
    fn bytes_and_durations_have_fitting_units() {
        assert_eq!(
            [1.0, 1_536.0, 5.0 * 1024.0 * 1024.0 * 1024.0].map(bytes),
            ["1 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!([5, 65, 90_000].map(duration), ["5 s", "1 min 5 s", "1 d 1 h"]);
    }
}
