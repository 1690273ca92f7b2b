//! Open files: how many this process may have, and how many of them connections may take.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are kept for all else: standard streams, the runtime, the metrics, calls of Ganeti, the
/// broker.
const RESERVE: u64 = 48;
/// Descriptors that one connection to a database takes: an `SQLite` file has a log and an
/// index beside it.
const PER_DATABASE_CONNECTION: u64 = 3;
/// The fewest connections that are served however few descriptors there are.
const LEAST: usize = 8;
/// One connection in so many may be a console, which has a second descriptor towards its node.
pub const CONSOLES: usize = 4;

/// Raises the soft limit of open files to the hard one (`RLIMIT_NOFILE`, setrlimit(2)); returns
/// the limit in force. systemd starts services with a soft limit of 1024.
pub fn raise() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read: 1024 is assumed");
            return 1024;
        }
    };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised");
            soft
        }
    }
}

/// Returns the number of connections that fit into `limit` descriptors, of the `wanted` ones.
pub fn connections(limit: u64, wanted: usize, database_connections: u32) -> usize {
    let reserve = RESERVE
        .saturating_add(u64::from(database_connections).saturating_mul(PER_DATABASE_CONNECTION));
    let left = usize::try_from(limit.saturating_sub(reserve)).unwrap_or(usize::MAX);
    // Of `n` connections `n / CONSOLES` need two.
    let fit = (left / (CONSOLES + 1)).saturating_mul(CONSOLES);
    wanted.min(fit.max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_all_else() {
        assert_eq!(connections(65_536, 1024, 16), 1024);
        assert_eq!(connections(1_000_000, 1024, 4), 1024);
        for (limit, databases) in [(128, 4), (256, 4), (1024, 16), (1024, 100)] {
            let most = connections(limit, 100_000, databases);
            let used = most + most / CONSOLES;
            let kept = u64::from(databases) * 3 + 48;
            assert!(used as u64 + kept <= limit, "{limit}: {most}");
            assert!(most >= 32, "{limit}: {most}");
        }
        assert_eq!(connections(0, 1024, 4), LEAST);
    }

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        let limit = raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, limit);
    }
}
