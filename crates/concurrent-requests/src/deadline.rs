//! Until when does the client want an answer? It says so, and each service on the way hands the time on.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use edge::header::only;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::error::{Error, Result};

/// A time in RFC 3339. gRPC sends the time that is left instead, which needs no clocks that agree, but does not count the
/// time on the way.
pub const HEADER: &str = "x-request-deadline";

// ANCHOR: deadline
/// When the answer has to be there: at the client's deadline, but never later than `longest` from now. So a deadline in the
/// far future buys nothing.
pub fn deadline(headers: &HeaderMap, longest: Duration) -> Result<Instant> {
    let now = Instant::now();
    if !headers.contains_key(HEADER) {
        return Ok(now + longest);
    }
    let at = only(headers, HEADER).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    let left = at.ok_or(Error::BAD_DEADLINE)? - OffsetDateTime::now_utc();
    // Negative if it has passed: nobody waits any more, so we do not even begin.
    let left = Duration::try_from(left).map_err(|_| Error::TOO_LATE)?;
    Ok(now + left.min(longest))
}
// ANCHOR_END: deadline

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    /// What is left until the deadline that these headers tell.
    fn left(values: &[&str]) -> Result<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        deadline(&headers, LONGEST).map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn from_now(left: time::Duration) -> String {
        (OffsetDateTime::now_utc() + left).format(&Rfc3339).unwrap()
    }

    #[test]
    fn the_clients_deadline_counts_unless_it_is_later_than_ours() {
        let soon = left(&[&from_now(time::Duration::seconds(3))]).unwrap();
        assert!((Duration::from_secs(1)..=Duration::from_secs(3)).contains(&soon), "{soon:?}");
        for long in
            [&[][..], &[from_now(time::Duration::days(1)).as_str()], &["9999-12-31T23:59:59Z"]]
        {
            let left = left(long).unwrap();
            assert!(left > Duration::from_secs(3) && left <= LONGEST, "{long:?}: {left:?}");
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_too_late() {
        for past in [from_now(-time::Duration::seconds(1)), "0001-01-01T00:00:00Z".to_owned()] {
            assert!(matches!(left(&[&past]), Err(Error::NotNow(_))), "{past}");
        }
    }

    #[test]
    fn what_is_no_time_or_is_there_twice_is_refused() {
        let good = from_now(time::Duration::seconds(3));
        for bad in [&["soon"][..], &["3"], &["2026-13-01T00:00:00Z"], &[&good, &good]] {
            assert!(matches!(left(bad), Err(Error::Refused(400, _))), "{bad:?}");
        }
    }
}
