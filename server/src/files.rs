//! Open files: each connection needs one, and the engine needs some for its log and segments.
//!
//! The limit is raised as far as the process may. If that is not enough for all allowed connections
//! and all segment files that the engine may keep open, both get fewer: connections of strangers
//! never take the files that the engine needs, and connections are not refused for segment files
//! that are open only for speed.

use tracing::{info, warn};

/// Twenty for the engine besides segments (see `max_open_files`), and a dozen for the server: the
/// standard ones, the listener, those of two event loops.
const RESERVED: u64 = 32;
const RESERVED_LOOPS: u64 = 2;

/// The files of an event loop: its poll, its wake-up, and that of signals.
const LOOP_FILES: u64 = 3;

/// The files of connections and of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The number of connections.
    pub clients: usize,
    /// The files of segments that the engine keeps open.
    pub segment_files: usize,
}

/// Raises the limit on open files. Returns how much of `wanted` the limit allows, with at least
/// `least_files` for segments, for a server with this number of event loops, and of files for other
/// purposes; and how many connections it would allow with these segment files.
pub fn share(wanted: Shares, least_files: usize, loops: usize, others: u64) -> (Shares, usize) {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            warn!(%error, "cannot raise the limit on open files");
            match rlimit::getrlimit(rlimit::Resource::NOFILE) {
                Ok((soft, _)) => soft,
                Err(_) => return (wanted, usize::MAX),
            }
        }
    };
    let more = LOOP_FILES * (loops as u64).saturating_sub(RESERVED_LOOPS) + others;
    let limit = limit.saturating_sub(more);
    let allowed = divide(limit, wanted, least_files);
    if allowed != wanted {
        info!(
            max_clients = allowed.clients,
            max_open_files = allowed.segment_files,
            ?wanted,
            limit = limit + more,
            "the limit on open files allows fewer than wanted: raise it (ulimit -Hn)"
        );
    }
    (allowed, unreserved(limit).saturating_sub(allowed.segment_files).max(allowed.clients))
}

fn unreserved(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(usize::MAX)
}

/// Segments get a quarter of the files that are not reserved, connections the rest. What one of
/// them does not want goes to the other.
fn divide(limit: u64, wanted: Shares, least_files: usize) -> Shares {
    let left = unreserved(limit);
    let quarter = (left / 4).max(left.saturating_sub(wanted.clients));
    let segment_files = quarter.clamp(least_files, wanted.segment_files.max(least_files));
    Shares { clients: wanted.clients.min(left.saturating_sub(segment_files)).max(1), segment_files }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(limit: u64, clients: usize, segment_files: usize) -> (usize, usize) {
        let Shares { clients, segment_files } = divide(limit, Shares { clients, segment_files }, 8);
        (clients, segment_files)
    }

    #[test]
    fn most_of_the_descriptors_that_are_left_are_for_clients() {
        assert_eq!(divided(64, 10_000, 256), (24, 8));
        assert_eq!(divided(200, 10_000, 256), (126, 42));
        assert_eq!(divided(1024, 10_000, 256), (744, 248));
        assert_eq!(divided(10, 10_000, 256), (1, 8), "it starts, and says what it lacks");
        assert_eq!(divided(u64::MAX, 10_000, 256), (10_000, 256));
    }

    #[test]
    fn files_that_one_does_not_want_go_to_the_other() {
        assert_eq!(divided(1024, 100, 2000), (100, 892));
        assert_eq!(divided(1024, 10_000, 16), (976, 16));
    }

    #[test]
    fn no_more_files_are_given_than_were_wanted() {
        let wanted = Shares { clients: 1, segment_files: 8 };
        let (allowed, most_clients) = share(wanted, 8, 2, 0);
        assert_eq!(allowed, wanted);
        assert!(most_clients >= 1);
    }
}
