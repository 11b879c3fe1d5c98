//! What the house allows: floors, absences, words and lengths.

/// The engine's floors, lowest first. A room is a file or a folder directly in `engine/src`.
pub const FLOORS: &[(&str, &[&str])] = &[
    ("words", &["ids", "entry", "error", "locks", "timeline"]),
    ("the outside world", &["vfs", "clock", "random", "options", "stats", "metrics", "world"]),
    ("bytes", &["format"]),
    (STORES, &["wal", "memtable", "segment", "manifest", "notify"]),
    ("what the paths share", &["state"]),
    ("reading", &["read"]),
    ("writing", &["write"]),
    ("maintenance", &["upkeep"]),
    ("opening", &["recover"]),
    ("care", &["care"]),
    ("the running engine", &["running"]),
    ("the front door", &["engine", "store", "lib"]),
];

pub const STORES: &str = "stores";

/// Folders or files, and the crates and rooms that they must not know.
pub const ABSENCES: &[(&str, &[&str], &str)] = &[
    ("engine/src", &["tokio", "redis", "strandline_server"], "the engine knows nothing of sockets"),
    (
        "server/src/protocol",
        &["strandline", "tokio", "crate"],
        "bytes only: no engine, no sockets, no commands",
    ),
    (
        "server/src/messaging",
        &["tokio", "protocol", "session", "commands", "listener", "connection", "push"],
        "messaging could become a crate of its own in an hour",
    ),
];

/// Words that have a better alternative (docs/glossary.md).
pub const REFUSED_WORDS: &[&str] = &[
    "stream", "seqno", "journal", "sstable", "util", "utils", "helper", "helpers", "manager",
    "common",
];

pub const MOST_LINES: usize = 500;
pub const MOST_FUNCTION_LINES: usize = 70;
/// The columns of a line, in characters: as many as rustfmt uses.
pub const MOST_COLUMNS: usize = 100;
