//! How much may a client have, and what does a limiter say of a request?

use std::{fmt, str::FromStr, time::Duration};

/// Microseconds: of a clock that starts at any moment, or between two moments.
pub type Micros = u64;

/// A year and a bit. Counting for longer is billing, and not a rate limit.
const LONGEST: Duration = Duration::from_hours(366 * 24);
/// The most policies that anybody needs at once.
pub const MAX_POLICIES: usize = 4;
/// The largest limit of a sliding log, which keeps a time for each request of each client.
pub const LONGEST_LOG: u64 = 10_000;
/// The largest `limit × window`. It fits an `i64` also after Lua has rounded it to a double.
const LARGEST_PRODUCT: u128 = 1 << 62;

/// A number of units (requests, unless they are weighted) in a window of time.
///
/// Invariant: neither is zero, the window is whole milliseconds, and their product is at most 2⁶², so that no
/// algorithm can overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u64,
    window: Micros,
    /// Kept, because a division for each request would cost time.
    interval: Micros,
}

/// Why something is no quota.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    /// Nobody could ever pass: that is a closed door, and not a limit.
    #[error("a limit of zero lets nobody in")]
    NoLimit,
    /// The window is zero, or too long, or not whole milliseconds.
    #[error("a time is 1ms to 366d in whole milliseconds, such as 500ms, 1s, 15m, 1h or 1d")]
    Window,
    /// `limit × window` is too large to count with.
    #[error("the limit is too large for this window: lower one of the two")]
    TooLarge,
    /// The text is not a policy.
    #[error("write a policy as NAME=LIMIT/WINDOW, such as burst=10/1s")]
    Syntax,
    /// The name would not survive in a header.
    #[error("a policy's name has 1 to 32 characters of a-z, 0-9 and -")]
    Name,
    /// There is one of this name already.
    #[error("two policies have the same name (--limit and --window make the policy `api`)")]
    SameName,
    /// More than we decide at once.
    #[error("there can be at most 4 policies")]
    TooMany,
    /// A log holds a time for each request.
    #[error("a sliding log remembers every request: its limit is at most 10000")]
    LongLog,
}

impl Quota {
    /// This many units in this time.
    pub fn new(limit: u32, window: Duration) -> Result<Self, InvalidQuota> {
        let whole = window.subsec_nanos().is_multiple_of(1_000_000);
        if window.is_zero() || window > LONGEST || !whole {
            return Err(InvalidQuota::Window);
        }
        let micros = u64::try_from(window.as_micros()).map_err(|_| InvalidQuota::Window)?;
        let limit = u64::from(limit);
        if limit == 0 {
            return Err(InvalidQuota::NoLimit);
        }
        if u128::from(limit) * u128::from(micros) > LARGEST_PRODUCT {
            return Err(InvalidQuota::TooLarge);
        }
        Ok(Self { limit, window: micros, interval: micros.div_ceil(limit) })
    }

    /// Units in a window.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a window is.
    pub fn window(&self) -> Micros {
        self.window
    }

    /// The time that one unit takes at the long-run rate, as GCRA counts it: rounded *up* to a microsecond, so
    /// that rounding never lets more through.
    pub fn interval(&self) -> Micros {
        self.interval
    }
}

/// A quota with a name: `"api";q=100;w=900`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: String,
    quota: Quota,
}

impl Policy {
    /// A policy of this name.
    pub fn new(name: &str, quota: Quota) -> Result<Self, InvalidQuota> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=32).contains(&name.len()) && name.bytes().all(letter) {
            Ok(Self { name: name.to_owned(), quota })
        } else {
            Err(InvalidQuota::Name)
        }
    }

    /// Its name in headers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it allows.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }
}

/// `burst=10/1s`
impl FromStr for Policy {
    type Err = InvalidQuota;

    fn from_str(text: &str) -> Result<Self, InvalidQuota> {
        let (name, quota) = text.split_once('=').ok_or(InvalidQuota::Syntax)?;
        let (limit, window) = quota.split_once('/').ok_or(InvalidQuota::Syntax)?;
        let limit = limit.parse().map_err(|_| InvalidQuota::Syntax)?;
        Self::new(name, Quota::new(limit, parse_duration(window)?)?)
    }
}

/// `burst=10/1000ms`, as it stands in Redis keys.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}ms", self.name, self.quota.limit, self.quota.window / 1_000)
    }
}

/// `15m`, `1s`, `500ms`, `1h`, `1d`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidQuota> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().map_err(|_| InvalidQuota::Window)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(InvalidQuota::Window),
    };
    let window = count.checked_mul(millis).map(Duration::from_millis);
    window.filter(|it| !it.is_zero() && *it <= LONGEST).ok_or(InvalidQuota::Window)
}

/// What one policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Units that could be taken now, after this request.
    pub remaining: u64,
    /// How long until this request would pass: zero if it did.
    pub wait: Micros,
    /// How long until the whole quota is there again, if nothing more is taken.
    pub whole: Micros,
}

/// What all policies say together. It holds no heap memory: it is made for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass: every policy had room for it.
    pub allowed: bool,
    outcomes: [Outcome; MAX_POLICIES],
    policies: usize,
}

impl Decision {
    /// A decision by no policy yet.
    pub fn new(allowed: bool) -> Self {
        Self { allowed, outcomes: Default::default(), policies: 0 }
    }

    /// Adds what the next policy says; more than [`MAX_POLICIES`] are left out, and cannot be configured.
    pub fn push(&mut self, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(self.policies) {
            *place = outcome;
            self.policies += 1;
        }
    }

    /// In the order of the policies.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes[..self.policies]
    }

    /// How long until the request would pass every policy.
    pub fn wait(&self) -> Micros {
        self.outcomes().iter().map(|outcome| outcome.wait).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_means_nothing_or_overflows_is_none() {
        let quota = |limit, window: &str| parse_duration(window).and_then(|w| Quota::new(limit, w));
        assert_eq!(quota(0, "1s"), Err(InvalidQuota::NoLimit));
        assert_eq!(quota(u32::MAX, "1d"), Err(InvalidQuota::TooLarge));
        for window in ["0s", "0", "", "s", "-1s", "1.5s", "1y", "367d", "99999999999999999999s"] {
            assert_eq!(quota(1, window), Err(InvalidQuota::Window), "{window:?}");
        }
        assert_eq!(Quota::new(1, Duration::from_nanos(1)), Err(InvalidQuota::Window));
        assert_eq!(quota(u32::MAX, "15m").map(|q| q.interval()), Ok(1));
        assert_eq!(quota(100, "15m").map(|q| q.interval()), Ok(9_000_000));
        assert_eq!(quota(7, "1s").map(|q| q.interval()), Ok(142_858));
    }

    #[test]
    fn a_policy_reads_as_it_is_written() {
        let policy: Policy = "burst=10/1s".parse().unwrap();
        assert_eq!(policy.to_string(), "burst=10/1000ms");
        assert_eq!(policy.to_string().parse(), Ok(policy));
        for bad in ["", "burst", "burst=10", "burst=/1s", "burst=-1/1s", "burst=1e3/1s", "=1/1s"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad:?}");
        }
        assert_eq!("a\"b=1/1s".parse::<Policy>(), Err(InvalidQuota::Name));
    }
}
