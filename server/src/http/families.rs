//! The metrics that the server adds to those of the engine (`strandline::metrics::METRICS`): one
//! row for each figure of TL.STATS that is not among them, and one for each metric with labels.
//! docs/observability.md has the table, rendered from here.

use std::fmt::Write as _;

use strandline::metrics::{METRICS, MetricKind};

/// How the values of a metric are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// A sum that only grows.
    Counter,
    /// The last value.
    Gauge,
    /// The distribution of single values.
    Histogram,
}

impl FamilyKind {
    /// The word of the format.
    pub fn word(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        }
    }
}

impl From<MetricKind> for FamilyKind {
    fn from(kind: MetricKind) -> FamilyKind {
        match kind {
            MetricKind::Counter => FamilyKind::Counter,
            MetricKind::Histogram => FamilyKind::Histogram,
            _ => FamilyKind::Gauge,
        }
    }
}

/// A metric of a figure.
#[derive(Clone, Copy, Debug)]
pub struct FigureMetric {
    /// The name of the metric. Rows of one name stand together, and the first has the meaning.
    pub name: &'static str,
    /// How its values are combined.
    pub kind: FamilyKind,
    /// Its labels, as in the format.
    pub labels: &'static str,
    /// The figure.
    pub figure: &'static str,
    /// What the figure is multiplied by.
    pub scale: f64,
    /// Its meaning, in one sentence.
    pub meaning: &'static str,
}

/// A metric that is no single figure.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name of the metric.
    pub name: &'static str,
    /// How its values are combined.
    pub kind: FamilyKind,
    /// The names of its labels.
    pub labels: &'static str,
    /// Its meaning, in one sentence.
    pub meaning: &'static str,
}

const MICROS: f64 = 1e-6;

const MILLIS: f64 = 1e-3;

macro_rules! figure_metrics {
    ($(
        $kind:ident $name:literal { $labels:literal } =
            $figure:literal * $scale:expr, $meaning:literal;
    )*) => {
        /// The metrics of figures, in the order of the page.
        pub const FIGURES: &[FigureMetric] = &[$(FigureMetric {
            name: $name,
            kind: FamilyKind::$kind,
            labels: $labels,
            figure: $figure,
            scale: $scale,
            meaning: $meaning,
        },)*];
    };
}

figure_metrics! {
    Gauge "strandline_memory_bytes" { r#"part="memtables""# } = "memtable_bytes" * 1.0,
        "Memory in use, by part.";
    Gauge "strandline_memory_bytes" { r#"part="cache""# } = "cache_bytes" * 1.0, "";
    Gauge "strandline_memory_bytes" { r#"part="client_input""# } = "client_input_bytes" * 1.0, "";
    Gauge "strandline_memory_bytes" { r#"part="client_output""# } = "client_output_bytes" * 1.0, "";
    Gauge "strandline_memory_bytes" { r#"part="client_strangers""# } =
        "client_stranger_bytes" * 1.0, "";
    Gauge "strandline_memory_bytes" { r#"part="ledgers""# } = "ledger_memory_bytes" * 1.0, "";
    Gauge "strandline_memory_limit_bytes" { r#"part="memtables""# } = "memtable_limit_bytes" * 1.0,
        "The most memory that a part may use.";
    Gauge "strandline_memory_limit_bytes" { r#"part="cache""# } = "cache_limit_bytes" * 1.0, "";
    Gauge "strandline_memory_limit_bytes" { r#"part="client_input""# } =
        "client_memory_limit_bytes" * 0.5, "";
    Gauge "strandline_memory_limit_bytes" { r#"part="client_output""# } =
        "client_memory_limit_bytes" * 0.5, "";
    Gauge "strandline_memory_limit_bytes" { r#"part="client_strangers""# } =
        "client_memory_limit_bytes" * 0.125, "";
    Gauge "strandline_memory_limit_bytes" { r#"part="ledgers""# } =
        "ledger_memory_limit_bytes" * 1.0, "";
    Gauge "strandline_memory_budget_bytes" { "" } = "memory_budget_bytes" * 1.0,
        "The setting memory_budget_bytes, the engine's memory.";
    Gauge "strandline_sealed_memtables" { "" } = "sealed_memtables" * 1.0,
        "Memtables that wait for their flush; at 2 commits wait.";
    Counter "strandline_wal_prepared_bytes_total" { "" } = "wal_prepared_bytes" * 1.0,
        "Zeros written ahead of the first log files.";
    Gauge "strandline_wal_files" { "" } = "wal_files" * 1.0, "Files of the log.";
    Counter "strandline_wal_fsync_seconds_total" { "" } = "wal_sync_us_total" * MICROS,
        "Time of the fsyncs of the log.";
    Gauge "strandline_wal_fsync_longest_seconds" { "" } = "wal_sync_us_max" * MICROS,
        "The longest fsync of the log since the start.";
    Gauge "strandline_wal_fsync_recent_p99_seconds" { "" } = "wal_sync_us_p99" * MICROS,
        "99th percentile of the fsyncs of the last one to two minutes.";
    Gauge "strandline_wal_torn_tail_bytes" { "" } = "torn_tail_bytes" * 1.0,
        "Bytes at the end of the log that the open cut off.";
    Gauge "strandline_segments" { "" } = "segments" * 1.0, "Live segments.";
    Gauge "strandline_segment_bytes" { "" } = "segment_bytes" * 1.0, "Files of all segments.";
    Gauge "strandline_segment_timelines" { "" } = "segment_timelines" * 1.0,
        "The timelines of each segment, summed.";
    Gauge "strandline_segment_entries" { "" } = "segment_entries" * 1.0,
        "Entries of all segments.";
    Gauge "strandline_open_segment_files" { "" } = "open_segment_files" * 1.0,
        "Files of segments that are open.";
    Gauge "strandline_damaged_segments" { "" } = "damaged_segments" * 1.0,
        "Segments in which damage was found and not repaired.";
    Gauge "strandline_damaged_log_places" { "" } = "damaged_log_places" * 1.0,
        "Damage of the log that a read-only open skipped.";
    Gauge "strandline_write_amplification_ratio" { "" } = "write_amplification_percent" * 0.01,
        "Bytes written by log, flushes and merges for each byte of bodies.";
    Gauge "strandline_compaction_debt_bytes" { "" } = "compaction_debt_bytes" * 1.0,
        "Bytes that merges still have to read.";
    Gauge "strandline_merges_wait_for_space" { "" } = "merges_wait_for_space" * 1.0,
        "1 if merges wait for space on the disk.";
    Gauge "strandline_expiry_held_by_clock" { "" } = "expiry_held_by_clock" * 1.0,
        "1 if expiry waits because the wall clock jumped ahead.";
    Gauge "strandline_reserve_bytes" { "" } = "reserve_bytes" * 1.0,
        "The reserve for a full disk.";
    Gauge "strandline_reserve_is_out" { "" } = "reserve_is_out" * 1.0,
        "1 if the disk is full and the reserve is released, so that appends are refused.";
    Gauge "strandline_poisoned" { "" } = "poisoned" * 1.0,
        "1 if a write or fsync failed, so that all writes are refused.";
    Gauge "strandline_disk_free_bytes" { "" } = "disk_free_bytes" * 1.0,
        "Free space on the file system of the data.";
    Counter "strandline_connections_total" { "" } = "total_connections_received" * 1.0,
        "Connections that were accepted.";
    Counter "strandline_connections_refused_total" { "" } = "rejected_connections" * 1.0,
        "Connections that were refused by limits.max_clients.";
    Gauge "strandline_connected_clients" { "" } = "connected_clients" * 1.0, "Open connections.";
    Gauge "strandline_blocked_clients" { "" } = "blocked_clients" * 1.0,
        "Connections in a command with BLOCK.";
    Gauge "strandline_behind_clients" { "" } = "behind_clients" * 1.0,
        "Connections whose follows lack entries since the client does not take its output.";
    Counter "strandline_clients_closed_total" { r#"reason="slow""# } = "slow_clients_closed" * 1.0,
        "Clients that were disconnected, by reason.";
    Counter "strandline_clients_closed_total" { r#"reason="memory""# } =
        "memory_clients_closed" * 1.0, "";
    Counter "strandline_clients_closed_total" { r#"reason="idle""# } = "idle_clients_closed" * 1.0,
        "";
    Counter "strandline_clients_closed_total" { r#"reason="no_login""# } =
        "auth_timeouts" * 1.0, "";
    Counter "strandline_clients_closed_total" { r#"reason="protocol""# } = "protocol_errors" * 1.0,
        "";
    Counter "strandline_commands_total" { "" } = "total_commands_processed" * 1.0,
        "Requests, refused ones included.";
    Counter "strandline_errors_total" { "" } = "total_error_replies" * 1.0, "Error replies.";
    Counter "strandline_pushed_frames_total" { "" } = "pushed_frames" * 1.0,
        "Push frames of follows and subscriptions.";
    Counter "strandline_net_received_bytes_total" { "" } = "total_net_input_bytes" * 1.0,
        "Bytes from clients.";
    Counter "strandline_net_sent_bytes_total" { "" } = "total_net_output_bytes" * 1.0,
        "Bytes to clients.";
    Gauge "process_resident_memory_bytes" { "" } = "process_resident_bytes" * 1.0,
        "Memory of the process as the kernel counts it.";
    Gauge "process_resident_memory_peak_bytes" { "" } = "process_resident_peak_bytes" * 1.0,
        "The most of it so far.";
    Gauge "strandline_machine_memory_bytes" { "" } = "machine_memory_bytes" * 1.0,
        "Memory of the machine.";
    Gauge "strandline_machine_memory_available_bytes" { "" } =
        "machine_memory_available_bytes" * 1.0, "Memory that the machine has left.";
    Gauge "strandline_scheduled_backups" { "" } = "scheduled_backups" * 1.0,
        "Complete scheduled backups in the directory.";
    Gauge "strandline_scheduled_backup_timestamp_seconds" { "" } =
        "scheduled_backup_last_ms" * MILLIS, "When the newest scheduled backup was started.";
    Gauge "strandline_scheduled_backup_age_seconds" { "" } =
        "scheduled_backup_age_seconds" * 1.0, "The age of the newest scheduled backup.";
    Gauge "strandline_scheduled_backup_duration_seconds" { "" } =
        "scheduled_backup_duration_ms" * MILLIS, "How long the newest scheduled backup took.";
    Gauge "strandline_scheduled_backup_failed" { "" } = "scheduled_backup_failed" * 1.0,
        "1 if the last attempt of a scheduled backup failed.";
    Counter "strandline_scheduled_backup_failures_total" { "" } =
        "scheduled_backup_failures" * 1.0, "Attempts of scheduled backups that failed.";
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$labels:literal], $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Family = Family {
                name: $name,
                kind: FamilyKind::$kind,
                labels: $labels,
                meaning: $meaning,
            };
        )*

        /// The metrics that are no single figure.
        const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    COMMAND_TIMES: Histogram "strandline_command_duration_seconds" ["command"],
        "Time of each call: writes with their commit, blocked commands without their wait.";
    COMMAND_FAILURES: Counter "strandline_command_failures_total" ["command, kind"],
        "Calls that were answered with an error: `failed`, or `rejected` before they ran.";
    ERROR_REPLIES: Counter "strandline_error_replies_total" ["word"],
        "Error replies by their first word.";
    STORE_OLDEST: Gauge "strandline_store_oldest_timestamp_seconds" ["store"],
        "Time of the oldest entry in the segments of a store; absent if it has none.";
    STORE_ENTRIES: Gauge "strandline_store_entries" ["store"],
        "Entries in the segments of a store.";
    STORE_BYTES: Gauge "strandline_store_bytes" ["store"],
        "Segments of a store on the disk.";
    SLOW_COMMANDS: Gauge "strandline_slow_commands" [""],
        "Commands that SLOWLOG shows.";
    READY: Gauge "strandline_ready" [""],
        "1 if /readyz says that the server takes reads and writes.";
    START_TIME: Gauge "process_start_time_seconds" [""],
        "When the server started, in Unix time.";
    BUILD: Gauge "strandline_build_info" ["version"],
        "1, with the version.";
}

/// The table of all metrics, for docs/observability.md.
pub fn render() -> String {
    let mut text =
        String::from("| metric | kind | labels | figure | meaning |\n|---|---|---|---|---|\n");
    let mut row = |name: &str, kind: FamilyKind, labels: &str, figure: &str, meaning: &str| {
        let figure = if figure.is_empty() { String::new() } else { format!("`{figure}`") };
        writeln!(text, "| `{name}` | {} | {labels} | {figure} | {meaning} |", kind.word())
            .expect("a string takes all that is written");
    };
    for metric in METRICS {
        row(metric.name, metric.kind.into(), "", metric.figure.unwrap_or_default(), metric.meaning);
    }
    let mut before = "";
    for metric in FIGURES {
        let labels =
            if metric.labels.is_empty() { String::new() } else { format!("`{}`", metric.labels) };
        let meaning = if metric.name == before { "the same" } else { metric.meaning };
        row(metric.name, metric.kind, &labels, metric.figure, meaning);
        before = metric.name;
    }
    for family in FAMILIES {
        row(family.name, family.kind, family.labels, "", family.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus_and_are_distinct() {
        let of_engine = METRICS.iter().map(|metric| (metric.name, metric.kind.into()));
        let of_families = FAMILIES.iter().map(|family| (family.name, family.kind));
        let mut of_figures: Vec<_> = FIGURES.iter().map(|row| (row.name, row.kind)).collect();
        of_figures.dedup();
        let all: Vec<_> = of_engine.chain(of_figures).chain(of_families).collect();
        let names: HashSet<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), all.len(), "rows of one name must stand together");
        for (name, kind) in all {
            assert_eq!(name.ends_with("_total"), kind == FamilyKind::Counter, "{name}");
            assert!(name.starts_with("strandline_") || name.starts_with("process_"), "{name}");
            assert!(!name.contains("_us") && !name.contains("_ms"), "{name}: the unit is seconds");
        }
    }

    #[test]
    fn the_first_row_of_a_name_has_its_meaning() {
        let mut before = "";
        for row in FIGURES {
            assert_eq!(row.meaning.is_empty(), row.name == before, "{} {}", row.name, row.labels);
            before = row.name;
        }
    }
}
