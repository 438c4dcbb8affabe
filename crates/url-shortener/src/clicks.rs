//! How are clicks counted without making anybody wait?
//!
//! A redirect adds one to a counter in memory. Twice a second a task for each shard writes the sums, so that a link
//! clicked a thousand times costs one row, and a shard that is away holds up no other. No IP address is kept.
//!
//! Clicks are statistics. A crash loses those of the last second, or more if the database is slow. A batch whose answer
//! got lost on the way is written again, and counted twice.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header::REFERER};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::store::{Link, MOST_REFERRERS, Store, Visit};

/// How often the sums are written.
const EVERY: Duration = Duration::from_millis(500);
/// Sums that wait for one shard. When there are as many, a new one is dropped, and counted as dropped.
const PENDING: usize = 50_000;
/// Rows in one statement.
const BATCH: usize = 1_000;
/// On a clean stop, how long we try to write what is left.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The longest name in the DNS (RFC 1035).
const LONGEST_HOST: usize = 253;

/// The host of the page on which a link was clicked; `direct` if there is no usable `Referer`. Paths and queries tell
/// too much about people.
pub fn referrer(headers: &HeaderMap) -> Cow<'static, str> {
    let host = headers.get(REFERER).and_then(|value| {
        let url = Url::parse(value.to_str().ok()?).ok()?;
        // A name may end in a dot and mean the same.
        let host = url.host_str()?.trim_end_matches('.');
        let fits = (1..=LONGEST_HOST).contains(&host.len());
        (fits && matches!(url.scheme(), "http" | "https")).then(|| host.to_owned())
    });
    host.map_or(Cow::Borrowed("direct"), Cow::Owned)
}

/// What the redirects and the writer share.
#[derive(Default)]
struct Counters {
    sums: HashMap<Visit, i64>,
    dropped: u64,
}

impl Counters {
    // ANCHOR: add_clicks
    /// Adds to a sum, or begins one if there is room.
    fn add(&mut self, visit: Visit, clicks: i64) {
        if self.sums.len() >= PENDING && !self.sums.contains_key(&visit) {
            self.dropped += clicks.unsigned_abs();
        } else {
            *self.sums.entry(visit).or_default() += clicks;
        }
    }
    // ANCHOR_END: add_clicks
}

/// The clicks on the links of one shard.
pub struct Clicks {
    store: Store,
    /// Nothing is awaited while it is locked, so a redirect waits for nanoseconds at most.
    counters: Mutex<Counters>,
}

impl Clicks {
    /// Nothing is counted yet. What will be is written until the stop.
    pub fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Arc<Self> {
        let clicks = Arc::new(Self { store: store.clone(), counters: Mutex::default() });
        tasks.spawn(Arc::clone(&clicks).write_until(stop.clone()));
        clicks
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a click.
    pub fn record(&self, link: &Link, referrer: Cow<'static, str>) {
        let (code, day) = (link.code.clone(), OffsetDateTime::now_utc().date());
        self.counters().add(Visit { code, link: link.id, day, referrer }, 1);
    }

    /// How many were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.counters().dropped
    }

    /// Writes until it is told to stop, and then what is left.
    async fn write_until(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            self.write(&stop).await;
        }
        let in_time = timeout(LAST_WORDS, self.write(&CancellationToken::new())).await.is_ok();
        if !in_time || !self.counters().sums.is_empty() {
            tracing::error!("stopped with clicks unwritten");
        }
    }

    // ANCHOR: write_clicks
    /// Writes all sums, or as many as it can before it is told to stop. What could not be written waits for the next
    /// time, whatever the error was.
    async fn write(&self, stop: &CancellationToken) {
        let sums = mem::take(&mut self.counters().sums);
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|(visit, clicks)| (visit.link, visit.day, Reverse(*clicks)));
        for of_day in sums.chunk_by_mut(|(a, _), (b, _)| (a.link, a.day) == (b.link, b.day)) {
            for (visit, _) in of_day.iter_mut().skip(MOST_REFERRERS.into()) {
                visit.referrer = Cow::Borrowed("other");
            }
        }
        let mut left = &sums[..];
        while !left.is_empty() && !stop.is_cancelled() {
            let (batch, rest) = left.split_at(BATCH.min(left.len()));
            if let Err(error) = self.store.add_clicks(batch).await {
                let dropped = self.dropped();
                tracing::warn!(%error, ?error, rows = left.len(), dropped, "clicks wait");
                break;
            }
            left = rest;
        }
        let mut counters = self.counters();
        for (visit, clicks) in left {
            counters.add(visit.clone(), *clicks);
        }
    }
    // ANCHOR_END: write_clicks
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use time::Date;
    use uuid::Uuid;

    use super::*;
    use crate::code::Code;

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
            assert_eq!(referrer(&HeaderMap::from_iter([(REFERER, value)])), host, "{header}");
        }
        assert_eq!(referrer(&HeaderMap::new()), "direct");
    }

    fn visit(link: u128, referrer: &'static str) -> Visit {
        let (code, link) = (Code::from_number(1), Uuid::from_u128(link));
        Visit { code, link, day: Date::MIN, referrer: Cow::Borrowed(referrer) }
    }

    #[test]
    fn when_there_is_no_more_room_only_old_sums_grow() {
        let mut counters = Counters::default();
        for link in 0..PENDING as u128 {
            counters.add(visit(link, "a.example"), 1);
        }
        counters.add(visit(0, "a.example"), 2);
        assert_eq!(counters.dropped, 0);
        counters.add(visit(0, "b.example"), 3);
        assert_eq!((counters.dropped, counters.sums.len()), (3, PENDING));
        assert_eq!(counters.sums[&visit(0, "a.example")], 3);
    }
}
