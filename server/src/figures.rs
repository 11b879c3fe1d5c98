//! The figures of INFO and TL.STATS: those of the engine, the server's counters, connections and
//! their memory, scheduled backups, the process, and stores.
//!
//! docs/operations.md lists the names, and a test compares the two. The allocator is the system's,
//! which reports nothing without unsafe code: resident memory is measured by the kernel.
//!
//! It does not know how figures are shown.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clients::Client;
use crate::shared::Shared;

/// A name and a value.
pub type Figure = (Cow<'static, str>, u64);

/// All figures, as TL.STATS shows them.
pub fn all(shared: &Shared) -> Vec<Figure> {
    let fixed = |(name, value): (&'static str, u64)| (Cow::Borrowed(name), value);
    let mut figures: Vec<Figure> = shared.engine.stats().figures().map(fixed).collect();
    figures.extend(shared.metrics.fields().into_iter().map(fixed));
    figures.extend(clients(shared).into_iter().map(fixed));
    figures.extend(shared.backups.figures(shared.now_ms()).into_iter().map(fixed));
    figures.extend(process().into_iter().map(fixed));
    figures.extend(stores(shared));
    figures
}

/// The numbers of connections, the memory of connections and of messaging's ledgers, and the
/// limits.
pub fn clients(shared: &Shared) -> Vec<(&'static str, u64)> {
    let all = shared.clients.all();
    let count = |holds: fn(&Client) -> &AtomicBool| {
        all.iter().filter(|client| holds(client).load(Ordering::Relaxed)).count() as u64
    };
    let memory = &shared.memory;
    let mut figures = vec![
        ("connected_clients", all.len() as u64),
        ("blocked_clients", count(|client| &client.activity.is_blocked)),
        ("behind_clients", count(|client| &client.is_behind)),
        ("client_input_bytes", memory.input.used() as u64),
        ("client_output_bytes", memory.output.used() as u64),
        ("client_stranger_bytes", memory.strangers.used() as u64),
        ("client_memory_limit_bytes", shared.config.now().limits.client_memory_bytes as u64),
    ];
    if let Some(messaging) = &shared.messaging {
        let (bytes, limit) = messaging.ledger_memory();
        figures.extend([("ledger_memory_bytes", bytes), ("ledger_memory_limit_bytes", limit)]);
    }
    figures
}

/// The memory of the process and of the machine, as far as the operating system reports it.
pub fn process() -> Vec<(&'static str, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figures = [
        ("process_resident_bytes", kilobytes(&status, "VmRSS:")),
        ("process_resident_peak_bytes", kilobytes(&status, "VmHWM:")),
        ("machine_memory_bytes", kilobytes(&machine, "MemTotal:")),
        ("machine_memory_available_bytes", kilobytes(&machine, "MemAvailable:")),
    ];
    figures.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect()
}

/// The value of a line such as `VmRSS:     1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// Three figures for each store on the disk; their names contain the name of the store.
pub fn stores(shared: &Shared) -> Vec<Figure> {
    let figures = shared.engine.store_figures();
    let of_store = |store: strandline::StoreFigures| {
        let name = store.name;
        [
            (format!("store_{name}_oldest_ms").into(), store.oldest_ms),
            (format!("store_{name}_entries").into(), store.entries),
            (format!("store_{name}_bytes").into(), store.bytes),
        ]
    };
    figures.into_iter().flat_map(of_store).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_and_a_missing_one_is_no_figure() {
        let text = "VmPeak:\t  10 kB\nVmRSS:\t    12 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(text, "VmRSS:"), Some(12 * 1024));
        assert_eq!((kilobytes(text, "VmHWM:"), kilobytes(text, "Threads:")), (None, None));
    }
}
