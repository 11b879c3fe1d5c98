//! Open files: each connection needs one, and the engine needs some for its log and segments.
//!
//! The limit is raised as far as the process may; if that is not enough for all connections that are allowed, fewer are, so that
//! the engine never lacks a file because of strangers.

use tracing::{info, warn};

/// Files that are kept for the engine at least.
const LEAST_RESERVE: u64 = 64;

/// Raises the limit on open files, and tells how many connections of those wanted it allows.
pub fn most_clients(wanted: usize) -> usize {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            warn!(%error, "cannot raise the limit on open files");
            match rlimit::getrlimit(rlimit::Resource::NOFILE) {
                Ok((soft, _)) => soft,
                Err(_) => return wanted,
            }
        }
    };
    let allowed = allowed_clients(limit);
    if allowed >= wanted {
        return wanted;
    }
    info!(
        max_clients = allowed,
        wanted, limit, "the limit on open files allows fewer connections: raise it (ulimit -Hn)"
    );
    allowed
}

/// A quarter is the engine's.
fn allowed_clients(limit: u64) -> usize {
    let reserve = (limit / 4).max(LEAST_RESERVE);
    usize::try_from(limit.saturating_sub(reserve)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_keeps_a_quarter_of_the_files_and_at_least_some() {
        assert_eq!([1024, 200, 65, 10].map(allowed_clients), [768, 136, 1, 1]);
        assert_eq!(allowed_clients(u64::MAX), (u64::MAX - u64::MAX / 4) as usize);
    }

    #[test]
    fn no_more_connections_are_allowed_than_were_wanted() {
        assert_eq!(most_clients(1), 1);
    }
}
