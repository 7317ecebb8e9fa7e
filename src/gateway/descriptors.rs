//! The limit of open files and sockets: raised at the start, and a part of it reserved, so that clients never take
//! what Redis, upstreams, logs and the admin port need.

use std::os::fd::RawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::telemetry;

/// The reserved part: a quarter, but not more than this.
const MOST_RESERVED: u64 = 4096;

/// How many descriptors the process may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    /// `None` = there is no limit.
    limit: Option<u64>,
}

impl Descriptors {
    /// Raises the soft limit to the hard limit, which needs no privilege.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return Self { limit: current };
        }
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => Self { limit: maximum },
            Err(error) => {
                telemetry::process::descriptors_not_raised(current, &error.into());
                Self { limit: current }
            }
        }
    }

    /// The lowest descriptor that no client's connection may have.
    pub fn reserved_from(self) -> RawFd {
        self.limit.map_or(RawFd::MAX, |limit| {
            RawFd::try_from(limit - reserved(limit)).unwrap_or(RawFd::MAX)
        })
    }

    /// The lowest descriptor that no connection to an upstream may have: half of what is reserved is for them.
    pub fn reserved_from_upstreams(self) -> RawFd {
        self.limit.map_or(RawFd::MAX, |limit| {
            RawFd::try_from(limit - reserved(limit) / 2).unwrap_or(RawFd::MAX)
        })
    }

    /// How many connections the admin port may have: at most a quarter of what is reserved.
    pub fn for_admin(self, most: usize) -> usize {
        self.limit
            .map_or(most, |limit| usize::try_from(reserved(limit) / 4).unwrap_or(most).min(most))
    }

    /// How many connections clients may have; fewer if upstreams need many.
    fn for_clients(self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit - reserved(limit))
    }

    /// Warns if the limit of connections cannot be reached.
    pub fn check(self, config: &Config) {
        let max = config.server.max_connections as u64;
        if let Some(limit) = self.limit
            && max > self.for_clients()
        {
            telemetry::process::descriptors_too_few(limit, self.for_clients(), max);
        }
    }
}

fn reserved(limit: u64) -> u64 {
    (limit / 4).min(MOST_RESERVED)
}

#[cfg(test)]
mod tests;
