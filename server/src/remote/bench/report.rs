//! The result of a call: a table for people, and JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Plan;
use super::tally::Tally;
use super::workload::Workload;
use crate::remote::show::aligned;

/// One workload at one speed.
pub struct Measurement {
    /// What was measured.
    pub workload: Workload,
    /// Commands a second that were asked for; `None`: full speed.
    pub rate: Option<f64>,
    /// What the clients have seen.
    pub tally: Tally,
    /// How long it was measured.
    pub time: Duration,
}

/// All measurements of a call.
pub struct Report {
    /// The settings.
    pub plan: Plan,
    /// The version of the server.
    pub version: String,
    /// In the order of their runs.
    pub measurements: Vec<Measurement>,
}

impl Measurement {
    /// Replies, or pushed entries, a second.
    pub fn rate(&self) -> f64 {
        self.tally.replies as f64 / self.time.as_secs_f64()
    }

    /// The seconds that were measured completely; at least one.
    pub fn whole_seconds(&self) -> usize {
        self.time.as_secs().max(1) as usize
    }

    /// At which speed it ran.
    pub fn speed(&self) -> String {
        self.rate.map_or("full speed".to_owned(), |rate| format!("fixed {}/s", thousands(rate)))
    }

    /// The cells of a table.
    pub fn cells(&self) -> [String; 8] {
        let tally = &self.tally;
        let times = [0.5, 0.9, 0.99, 0.999].map(|part| tally.latency_us(part));
        let times = [times[0], times[1], times[2], times[3], tally.longest_us()].map(time_text);
        let [half, nine_tenths, hundredth, thousandth, longest] = times;
        [
            self.workload.name().to_owned(),
            self.speed(),
            thousands(self.rate()),
            half,
            nine_tenths,
            hundredth,
            thousandth,
            longest,
        ]
    }

    /// An object of all figures.
    pub fn json(&self, plan: &Plan) -> Value {
        let tally = &self.tally;
        json!({
            "workload": self.workload.name(),
            "rate_wanted": self.rate,
            "rate": self.rate(),
            "replies": tally.replies,
            "errors": tally.errors,
            "seconds": self.time.as_secs_f64(),
            "connections": plan.connections,
            "pipeline": plan.pipeline,
            "body_bytes": plan.body,
            "members": plan.members,
            "durability": if plan.relaxed { "os" } else { "disk" },
            "latency_us": {
                "p50": tally.latency_us(0.5),
                "p90": tally.latency_us(0.9),
                "p99": tally.latency_us(0.99),
                "p99.9": tally.latency_us(0.999),
                "max": tally.longest_us(),
            },
            "replies_by_second": tally.by_second,
        })
    }
}

/// The headings of `Measurement::cells`.
pub const HEADINGS: [&str; 8] =
    ["workload", "speed", "replies/s", "p50", "p90", "p99", "p99.9", "max"];

impl Report {
    /// Without measurements.
    pub fn new(plan: Plan, version: String) -> Report {
        Report { plan, version, measurements: Vec::new() }
    }

    /// The settings in a sentence.
    pub fn settings(&self) -> String {
        let Plan { connections, pipeline, body, members, relaxed, .. } = self.plan;
        let durability = if relaxed { "logged" } else { "on the disk" };
        format!(
            "server {}; {connections} connections, pipelines of {pipeline}, bodies of {body} \
             bytes, {members} receivers of a fan-out; a reply means: {durability}",
            self.version
        )
    }

    /// A table, with the settings below it.
    pub fn table(&self) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
        rows.extend(self.measurements.iter().map(|measurement| measurement.cells().to_vec()));
        // Numbers end at the same column.
        for column in 2..HEADINGS.len() {
            let widest = rows.iter().map(|row| row[column].chars().count()).max();
            let widest = widest.unwrap_or_default();
            for row in &mut rows {
                let gap = widest - row[column].chars().count();
                row[column].insert_str(0, &" ".repeat(gap));
            }
        }
        format!("{}\n\n{}", aligned(&rows), self.settings())
    }
}

/// A number with a comma between thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds with a unit that fits.
pub fn time_text(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!((thousands(12.0), thousands(123.0)), ("12".into(), "123".into()));
        assert_eq!(
            [999, 1_500, 15_000, 2_000_000].map(time_text),
            ["999 µs", "1.50 ms", "15.0 ms", "2.00 s"]
        );
    }

    #[test]
    fn a_table_has_a_line_for_each_measurement_and_aligned_numbers() {
        let mut tally = Tally::new();
        (0..2_000).for_each(|_| tally.add(Duration::ZERO, Duration::from_micros(100), None));
        let measurement = |rate| Measurement {
            workload: Workload::Append,
            rate,
            tally: tally.clone(),
            time: Duration::from_secs(1),
        };
        let plan = Plan {
            connections: 1,
            pipeline: 1,
            body: 16,
            members: 1,
            relaxed: false,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
        };
        let mut report = Report::new(plan, "0.1.0".into());
        report.measurements = vec![measurement(None), measurement(Some(50.0))];
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[1],
            "append    full speed      2,000  100 µs  100 µs  100 µs  100 µs  100 µs"
        );
        assert_eq!(
            lines[2],
            "append    fixed 50/s      2,000  100 µs  100 µs  100 µs  100 µs  100 µs"
        );
        assert!(lines[4].starts_with("server 0.1.0; 1 connections"), "{table}");
        assert_eq!(report.measurements[1].json(&plan)["latency_us"]["p99"], 100);
    }
}
