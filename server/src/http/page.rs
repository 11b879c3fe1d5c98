//! The page `/metrics`, in the text format of Prometheus or in that of `OpenMetrics`.
//!
//! All values are read when the page is made: nothing is kept for it between two scrapes. Commands
//! that were never called, and figures that are not known, are left out.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};

use strandline::metrics::{METRICS, Metric, MetricKind, MetricUnit};

use super::families::{
    BUILD, COMMAND_FAILURES, COMMAND_TIMES, ERROR_REPLIES, FIGURES, Family, FamilyKind, READY,
    SLOW_COMMANDS, START_TIME, STORE_BYTES, STORE_ENTRIES, STORE_OLDEST,
};
use super::health::readiness;
use crate::commands;
use crate::figures;
use crate::metrics::Distribution;
use crate::shared::Shared;

/// The bounds of times, as powers of two of microseconds: from 8 µs to 17 s.
const TIME_POWERS: (u32, u32) = (3, 24);

/// The bounds of numbers of entries: from 1 to 2^18, the most operations of a batch.
const COUNT_POWERS: (u32, u32) = (0, 18);

/// The form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

impl PageFormat {
    /// The form for a client that accepts these types. Prometheus asks for `OpenMetrics` first.
    pub fn wanted_by(accepted: &str) -> PageFormat {
        if accepted.contains("application/openmetrics-text") {
            PageFormat::OpenMetrics
        } else {
            PageFormat::Text
        }
    }

    /// The type of its content.
    pub fn content_type(self) -> &'static str {
        match self {
            PageFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            PageFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page of this moment.
pub fn render(shared: &Shared, format: PageFormat) -> String {
    let mut page = Page { text: String::with_capacity(64 * 1024), format };
    let figures = figures::all(shared);
    let by_name: HashMap<&str, u64> =
        figures.iter().map(|(name, value)| (&**name, *value)).collect();
    for metric in METRICS {
        page.metric_of_engine(metric, shared, &by_name);
    }
    let mut before = "";
    for row in FIGURES {
        let Some(value) = by_name.get(row.figure) else { continue };
        if row.name != before {
            page.head(row.name, row.kind, row.meaning);
            before = row.name;
        }
        page.sample(row.name, row.labels, *value as f64 * row.scale);
    }
    page.commands(shared);
    page.stores(shared);
    page.single(SLOW_COMMANDS, "", shared.slowlog.count() as f64);
    page.single(READY, "", f64::from(u8::from(readiness(shared).is_ok())));
    page.single(START_TIME, "", shared.since_ms as f64 / 1000.0);
    page.single(BUILD, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1.0);
    if format == PageFormat::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// A page that is being written.
struct Page {
    text: String,
    format: PageFormat,
}

impl Page {
    /// The lines before the values of a metric. In `OpenMetrics` the name of a counter has no
    /// ending.
    fn head(&mut self, name: &str, kind: FamilyKind, meaning: &str) {
        let name = match self.format {
            PageFormat::OpenMetrics if kind == FamilyKind::Counter => {
                name.strip_suffix("_total").unwrap_or(name)
            }
            _ => name,
        };
        self.line(format_args!("# HELP {name} {}", meaning.replace('`', "")));
        self.line(format_args!("# TYPE {name} {}", kind.word()));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("a string takes all that is written");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn family(&mut self, family: Family) {
        self.head(family.name, family.kind, family.meaning);
    }

    fn single(&mut self, family: Family, labels: &str, value: f64) {
        self.family(family);
        self.sample(family.name, labels, value);
    }

    fn metric_of_engine(&mut self, metric: &Metric, shared: &Shared, figures: &HashMap<&str, u64>) {
        let kind = metric.kind.into();
        if metric.kind == MetricKind::Histogram {
            let Some(values) = shared.engine_metrics.histogram(metric.name) else { return };
            self.head(metric.name, kind, metric.meaning);
            return self.histogram(metric.name, "", metric.unit, &values);
        }
        let value = match (metric.figure, metric.kind) {
            (Some(figure), _) => figures.get(figure).map(|value| *value as f64),
            (None, MetricKind::Counter) => {
                shared.engine_metrics.counter(metric.name).map(|value| value as f64)
            }
            // The only gauge; 0 means that there was no backup.
            (None, _) => figures
                .get("last_backup_ms")
                .filter(|time_ms| **time_ms > 0)
                .map(|time_ms| *time_ms as f64 / 1000.0),
        };
        if let Some(value) = value {
            self.head(metric.name, kind, metric.meaning);
            self.sample(metric.name, "", value);
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, unit: MetricUnit, values: &Distribution) {
        let is_time = unit == MetricUnit::Seconds;
        let (first, last) = if is_time { TIME_POWERS } else { COUNT_POWERS };
        let scale = if is_time { 1e6 } else { 1.0 };
        let comma = if labels.is_empty() { "" } else { "," };
        for (most, count) in values.up_to_powers(first, last) {
            let bound = most as f64 / scale;
            self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"));
        }
        let count = values.count();
        self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}"));
        self.sample(&format!("{name}_sum"), labels, values.sum as f64 / scale);
        self.sample(&format!("{name}_count"), labels, count as f64);
    }

    fn commands(&mut self, shared: &Shared) {
        let label = |name: &str| format!("command=\"{name}\"");
        self.family(COMMAND_TIMES);
        for (position, name) in commands::names().enumerate() {
            let times = shared.calls.of(position).micros.read();
            if times.count() > 0 {
                let (name, unit) = (label(&name), MetricUnit::Seconds);
                self.histogram(COMMAND_TIMES.name, &name, unit, &times);
            }
        }
        self.family(COMMAND_FAILURES);
        for (position, name) in commands::names().enumerate() {
            let calls = shared.calls.of(position);
            for (kind, count) in [("failed", &calls.failed), ("rejected", &calls.rejected)] {
                if count.get() > 0 {
                    let labels = format!("{},kind=\"{kind}\"", label(&name));
                    self.sample(COMMAND_FAILURES.name, &labels, count.get() as f64);
                }
            }
        }
        self.family(ERROR_REPLIES);
        for (word, count) in shared.metrics.error_words.all() {
            self.sample(ERROR_REPLIES.name, &format!("word=\"{word}\""), count as f64);
        }
    }

    fn stores(&mut self, shared: &Shared) {
        let stores = shared.engine.store_figures();
        // Names of stores have no character that a label would have to escape.
        let label = |name: &str| format!("store=\"{name}\"");
        self.family(STORE_OLDEST);
        for store in stores.iter().filter(|store| store.oldest_ms > 0) {
            self.sample(STORE_OLDEST.name, &label(&store.name), store.oldest_ms as f64 / 1000.0);
        }
        self.family(STORE_ENTRIES);
        for store in &stores {
            self.sample(STORE_ENTRIES.name, &label(&store.name), store.entries as f64);
        }
        self.family(STORE_BYTES);
        for store in &stores {
            self.sample(STORE_BYTES.name, &label(&store.name), store.bytes as f64);
        }
    }
}
