//! How are clicks counted without making anybody wait?
//!
//! A redirect adds one to a counter in memory. Twice a second a task for each shard writes the sums, so that a link
//! clicked a thousand times costs one row, and a shard that is away holds up no other. No IP address is kept.
//!
//! Clicks are statistics. A crash loses those of the last second, or more if the database is slow. A batch whose answer
//! got lost on the way is written again, and counted twice.

use std::{
    borrow::Cow,
    collections::HashMap,
    convert::Infallible,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::REFERER, request::Parts},
};
use time::{Date, OffsetDateTime};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    cache::HotLink,
    code::Code,
    error::Error,
    store::{MOST_REFERRERS, Store, Visit},
};

/// How often the sums are written.
const EVERY: Duration = Duration::from_millis(500);
/// Sums that wait for one shard. When there are more, new ones are dropped, and counted as dropped; a link that is
/// among them is counted on.
const PENDING: usize = 50_000;
/// Rows in one statement.
const BATCH: usize = 1_000;
/// On a clean stop, how long we try to write what is left.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The longest name in the DNS (RFC 1035).
const LONGEST_HOST: usize = 253;

/// The host of the page on which a link was clicked. Paths and queries tell too much about people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Referrer(Cow<'static, str>);

impl Referrer {
    /// Without a usable `Referer`.
    const DIRECT: Self = Self(Cow::Borrowed("direct"));
    /// All hosts that are not among the largest.
    const OTHER: Self = Self(Cow::Borrowed("other"));

    fn of(headers: &HeaderMap) -> Self {
        let host = headers.get(REFERER).and_then(|value| {
            let url = Url::parse(value.to_str().ok()?).ok()?;
            // A name may end in a dot and mean the same.
            let host = url.host_str()?.trim_end_matches('.');
            let fits = (1..=LONGEST_HOST).contains(&host.len());
            (fits && matches!(url.scheme(), "http" | "https")).then(|| host.to_owned())
        });
        host.map_or(Self::DIRECT, |host| Self(Cow::Owned(host)))
    }
}

impl<S: Sync> FromRequestParts<S> for Referrer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Clicks that wait for one shard, added up.
#[derive(Default)]
struct Sums {
    days: HashMap<(Uuid, Date), LinkDay>,
    /// How many sums there are in all.
    rows: usize,
}

/// One link on one day.
struct LinkDay {
    code: Code,
    referrers: HashMap<Referrer, i64>,
}

impl Sums {
    // ANCHOR: add_click
    /// Adds to a sum, or begins one if there is room. Whether there was.
    ///
    /// Strangers choose the `Referer`. So a link has a limited number of them, here as well as in the database.
    fn add(&mut self, link: (Uuid, Date), code: &Code, referrer: Referrer, clicks: i64) -> bool {
        if self.rows >= PENDING {
            let sum = self.days.get_mut(&link).and_then(|day| day.referrers.get_mut(&referrer));
            return sum.map(|sum| *sum += clicks).is_some();
        }
        let new = || LinkDay { code: code.clone(), referrers: HashMap::new() };
        let referrers = &mut self.days.entry(link).or_insert_with(new).referrers;
        let before = referrers.len();
        let has_place = before < MOST_REFERRERS || referrers.contains_key(&referrer);
        let referrer = if has_place { referrer } else { Referrer::OTHER };
        *referrers.entry(referrer).or_default() += clicks;
        self.rows += referrers.len() - before;
        true
    }
    // ANCHOR_END: add_click

    /// As rows, in the order in which the database locks them.
    fn into_visits(self) -> Vec<Visit> {
        let visits =
            self.days.into_iter().flat_map(|((link, day), LinkDay { code, referrers })| {
                referrers.into_iter().map(move |(Referrer(referrer), clicks)| Visit {
                    code: code.clone(),
                    link,
                    day,
                    referrer,
                    clicks,
                })
            });
        let mut visits: Vec<_> = visits.collect();
        visits.sort_unstable();
        visits
    }
}

/// What the redirects and the writer of one shard share.
#[derive(Default)]
struct Counters {
    /// Nothing is awaited while it is locked, so a redirect waits for nanoseconds at most.
    sums: Mutex<Sums>,
    dropped: AtomicU64,
}

impl Counters {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, link: (Uuid, Date), code: &Code, referrer: Referrer, clicks: i64) {
        if !self.sums().add(link, code, referrer, clicks) {
            self.dropped.fetch_add(clicks.unsigned_abs(), Ordering::Relaxed);
        }
    }
}

/// Counts clicks.
pub struct Clicks {
    /// One for each shard.
    counters: Vec<Arc<Counters>>,
}

impl Clicks {
    /// Nothing is counted yet. Each writer is to be run.
    pub fn new(stores: &[Store]) -> (Self, Vec<Writer>) {
        let writer = |store: &Store| Writer { store: store.clone(), counters: Arc::default() };
        let writers: Vec<_> = stores.iter().map(writer).collect();
        let counters = writers.iter().map(|writer| Arc::clone(&writer.counters)).collect();
        (Self { counters }, writers)
    }

    /// Counts a click.
    pub fn record(&self, link: &HotLink, referrer: Referrer) {
        let today = OffsetDateTime::now_utc().date();
        self.counters[link.shard].add((link.id, today), &link.code, referrer, 1);
    }

    /// How many were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.counters.iter().map(|it| it.dropped.load(Ordering::Relaxed)).sum()
    }
}

/// Writes what is counted for one shard.
pub struct Writer {
    store: Store,
    counters: Arc<Counters>,
}

impl Writer {
    /// Writes until it is told to stop, and then what is left.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.write(&stop).await;
        }
        let rest = async {
            while self.counters.sums().rows > 0 {
                self.write(&CancellationToken::new()).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(LAST_WORDS, rest).await.is_err() {
            tracing::error!("stopped with clicks unwritten");
        }
    }

    // ANCHOR: write_clicks
    /// Writes all sums, or as many as it can before it is told to stop.
    async fn write(&self, stop: &CancellationToken) {
        let visits = mem::take(&mut *self.counters.sums()).into_visits();
        let (mut left, mut size) = (&visits[..], BATCH);
        while !left.is_empty() && !stop.is_cancelled() {
            let (batch, rest) = left.split_at(size.min(left.len()));
            match self.store.add_clicks(batch).await {
                Ok(()) => (left, size) = (rest, BATCH),
                Err(Error::DatabaseAway) => {
                    tracing::warn!(rows = left.len(), "clicks wait for a database that is away");
                    break;
                }
                Err(error) if size == 1 => {
                    tracing::error!(%error, ?error, ?batch, "clicks are dropped: they are refused");
                    let lost = batch.iter().map(|visit| visit.clicks.unsigned_abs()).sum();
                    self.counters.dropped.fetch_add(lost, Ordering::Relaxed);
                    left = rest;
                }
                // One of its rows is refused. The others must not go with it, so it has to be found.
                Err(_) => size = batch.len().div_ceil(2).min(size - 1),
            }
        }
        for Visit { code, link, day, referrer, clicks } in left {
            self.counters.add((*link, *day), code, Referrer(referrer.clone()), *clicks);
        }
    }
    // ANCHOR_END: write_clicks
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_host_of_a_web_page_is_kept() {
        for (header, host) in [
            ("https://News.Example:8443/secret?q=1", "news.example"),
            ("https://news.example./", "news.example"),
            ("http://[::1]/", "[::1]"),
            ("http://./", "direct"),
            ("android-app://com.example/", "direct"),
            ("about:blank", "direct"),
            ("no URL", "direct"),
            (&format!("http://{}/", "a.".repeat(200)), "direct"),
        ] {
            let value = HeaderValue::from_str(header).unwrap();
            assert_eq!(Referrer::of(&HeaderMap::from_iter([(REFERER, value)])).0, host, "{header}");
        }
        assert_eq!(Referrer::of(&HeaderMap::new()), Referrer::DIRECT);
    }

    fn add(sums: &mut Sums, link: u128, referrer: String) -> bool {
        let code = Code::from_number(1);
        let link = (Uuid::from_u128(link), Date::MIN);
        sums.add(link, &code, Referrer(referrer.into()), 1)
    }

    #[test]
    #[allow(clippy::cast_possible_wrap, reason = "it is a hundred")]
    fn a_link_has_a_limited_number_of_referrers_and_the_rest_are_other() {
        let mut sums = Sums::default();
        for n in 0..1_000 {
            assert!(add(&mut sums, 1, format!("h{n}.example")));
        }
        assert_eq!(sums.rows, MOST_REFERRERS + 1);
        let visits = sums.into_visits();
        let other = visits.iter().find(|visit| visit.referrer == "other");
        assert_eq!(other.map(|visit| visit.clicks), Some(1_000 - MOST_REFERRERS as i64));
    }

    #[test]
    fn when_there_is_no_more_room_only_old_sums_grow() {
        let mut sums = Sums::default();
        for link in 0..PENDING as u128 {
            assert!(add(&mut sums, link, "a.example".to_owned()));
        }
        assert!(!add(&mut sums, u128::MAX, "a.example".to_owned()));
        assert!(!add(&mut sums, 0, "b.example".to_owned()));
        assert!(add(&mut sums, 0, "a.example".to_owned()));
        assert_eq!(sums.into_visits().len(), PENDING);
    }
}
