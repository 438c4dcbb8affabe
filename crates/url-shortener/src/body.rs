//! What do the bodies of requests and answers look like?

use edge::FieldError;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use url::Url;

use crate::{
    alias::Alias,
    code::Code,
    create::NewLink,
    error::Error,
    long_url::LongUrl,
    store::{Link, Sum},
};

/// Ten years of 365 days.
const MAX_SECONDS: i32 = 315_360_000;
/// Hosts in the statistics of a link, the largest.
const MAX_REFERRERS: usize = 100;

/// What a client sends to make a link.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `url` and perhaps `alias` and `expires_in_seconds`"
)]
pub struct CreateLink {
    url: String,
    alias: Option<String>,
    expires_in_seconds: Option<i64>,
}

impl CreateLink {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self, own: &Url) -> Result<NewLink, Error> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::new(field, message));
        };
        let url = LongUrl::parse(&self.url, own).map_err(|message| wrong("url", message)).ok();
        let alias = self
            .alias
            .and_then(|alias| Alias::parse(&alias).map_err(|message| wrong("alias", message)).ok());
        let expires_in_seconds = self.expires_in_seconds.and_then(|seconds| {
            let seconds = i32::try_from(seconds).ok();
            let seconds = seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
            if seconds.is_none() {
                wrong("expires_in_seconds", "must be from 1 to 315360000, which is ten years");
            }
            seconds
        });
        match url {
            Some(url) if errors.is_empty() => Ok(NewLink { url, alias, expires_in_seconds }),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// A link, as clients see it.
#[derive(Debug, Serialize)]
pub struct LinkBody {
    code: Code,
    short_url: String,
    url: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

impl LinkBody {
    /// The link, under the address of this service.
    pub fn new(link: Link, own: &Url) -> Self {
        let short_url = format!("{}/{}", own.as_str().trim_end_matches('/'), link.code);
        let Link { code, url, created_at, expires_at, .. } = link;
        Self { code, short_url, url, created_at, expires_at }
    }
}

/// The clicks of a link.
#[derive(Debug, Serialize)]
pub struct Stats {
    code: Code,
    clicks: i64,
    by_day: Vec<Day>,
    referrers: Vec<Host>,
}

#[derive(Debug, Serialize)]
struct Day {
    /// As `YYYY-MM-DD`, in UTC.
    day: Date,
    clicks: i64,
}

#[derive(Debug, Serialize)]
struct Host {
    host: String,
    clicks: i64,
}

impl Stats {
    /// Sorts the sums into their places.
    pub fn new(code: Code, sums: Vec<Sum>) -> Self {
        let mut stats = Self { code, clicks: 0, by_day: Vec::new(), referrers: Vec::new() };
        for Sum { day, referrer, clicks } in sums {
            match (day, referrer) {
                (Some(day), _) => stats.by_day.push(Day { day, clicks }),
                (None, Some(host)) => stats.referrers.push(Host { host, clicks }),
                (None, None) => stats.clicks = clicks,
            }
        }
        stats.referrers.truncate(MAX_REFERRERS);
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(url: &str, alias: Option<&str>, seconds: Option<i64>) -> Vec<String> {
        let body = CreateLink {
            url: url.to_owned(),
            alias: alias.map(str::to_owned),
            expires_in_seconds: seconds,
        };
        match body.parse(&Url::parse("http://sho.rt").unwrap()) {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn expiry_is_from_a_second_to_ten_years() {
        for seconds in [1, 60, 315_360_000] {
            assert!(errors("http://a.example", None, Some(seconds)).is_empty(), "{seconds}");
        }
        for seconds in [i64::MIN, -1, 0, 315_360_001, 1 << 32, i64::MAX] {
            assert_eq!(errors("http://a.example", None, Some(seconds)), ["expires_in_seconds"]);
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(errors("ftp://a", Some("a.b"), Some(0)), ["url", "alias", "expires_in_seconds"]);
    }
}
