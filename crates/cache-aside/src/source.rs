//! Where did an answer come from, and what does the client learn of that?

use std::{fmt, time::Duration};

use crate::{link::Link, user::UserJson, value::Value};

/// What was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// `None`: nobody has this id.
    pub user: Option<UserJson>,
    /// From where.
    pub source: Source,
}

impl Read {
    /// Found in Redis.
    pub fn hit(value: Value, link: &Link) -> Self {
        let ttl = Duration::from_millis(value.expires_at.saturating_sub(link.now()));
        Self { user: value.user, source: Source::Hit { ttl } }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Redis, where it stays for so long.
    Hit {
        /// What is left of its time to live.
        ttl: Duration,
    },
    /// The database, and perhaps it was put into Redis.
    Miss {
        /// Whether it was.
        stored: bool,
    },
    /// The database, and Redis was not asked.
    Bypass,
}

/// As `Cache-Status` says it: RFC 9211.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { ttl } => write!(f, "redis; hit; ttl={}", ttl.as_secs()),
            Self::Miss { stored: true } => f.write_str("redis; fwd=miss; stored"),
            Self::Miss { stored: false } => f.write_str("redis; fwd=miss"),
            Self::Bypass => f.write_str("redis; fwd=bypass"),
        }
    }
}
