//! How are clicks counted without making anybody wait?
//!
//! A redirect adds one to a counter in memory. Twice a second a task for each shard writes the sums, so that a link
//! clicked a thousand times costs one row, and a shard that is away holds up no other. No IP address is kept.
//!
//! Clicks are statistics. A crash loses those of the last second, or more if the database is slow. If the answer to a
//! batch gets lost, the batch is written again, and counted twice.

use std::{
    borrow::Cow,
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, header::REFERER};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::store::{Link, Store, Visit};

/// How often the sums are written.
const EVERY: Duration = Duration::from_millis(500);
/// The most sums that wait for one shard. Beyond them, a click that needs a new sum is dropped, and counted as dropped.
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

/// The clicks on the links of one shard.
pub struct Clicks {
    store: Store,
    /// Nothing is awaited while they are locked, so a redirect hardly waits for them.
    sums: Mutex<HashMap<Visit, i64>>,
    /// Clicks for which there was no room.
    dropped: AtomicU64,
}

impl Clicks {
    fn new(store: Store) -> Self {
        Self { store, sums: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    /// Counts from now on. A task writes the sums until the stop.
    pub fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Arc<Self> {
        let clicks = Arc::new(Self::new(store.clone()));
        tasks.spawn(Arc::clone(&clicks).write_until(stop.clone()));
        clicks
    }

    fn sums(&self) -> MutexGuard<'_, HashMap<Visit, i64>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a click.
    pub fn record(&self, link: &Link, referrer: Cow<'static, str>) {
        let (code, day) = (link.code.clone(), OffsetDateTime::now_utc().date());
        self.add(Visit { code, link: link.id, day, referrer }, 1);
    }

    // ANCHOR: add_clicks
    /// Adds to a sum, or begins one if there is room.
    fn add(&self, mut visit: Visit, clicks: i64) {
        let mut sums = self.sums();
        // Half of the room is taken: now a click that needs a new sum counts as one from "other". Strangers choose the
        // `Referer`, and must not use up the room for the clicks of other links.
        if sums.len() >= PENDING / 2 && !sums.contains_key(&visit) {
            visit.referrer = Cow::Borrowed("other");
        }
        if sums.len() >= PENDING && !sums.contains_key(&visit) {
            self.dropped.fetch_add(clicks.unsigned_abs(), Ordering::Relaxed);
        } else {
            *sums.entry(visit).or_default() += clicks;
        }
    }
    // ANCHOR_END: add_clicks

    /// How many were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes the sums until the stop, and then those that are left.
    async fn write_until(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            self.write(&stop).await;
        }
        let in_time = timeout(LAST_WORDS, self.write(&CancellationToken::new())).await.is_ok();
        if !in_time || !self.sums().is_empty() {
            tracing::error!("stopped before all clicks were written; the rest is lost");
        }
    }

    // ANCHOR: write_clicks
    /// Writes all sums, or as many as it can before it is told to stop. What could not be written waits for the next
    /// time, whatever the error was.
    async fn write(&self, stop: &CancellationToken) {
        let sums = mem::take(&mut *self.sums());
        let sums: Vec<_> = sums.into_iter().collect();
        let mut left = &sums[..];
        while !left.is_empty() && !stop.is_cancelled() {
            let (batch, rest) = left.split_at(BATCH.min(left.len()));
            if let Err(error) = self.store.add_clicks(batch).await {
                tracing::warn!(%error, ?error, rows = left.len(), ?self.dropped, "clicks could not be written yet");
                break;
            }
            left = rest;
        }
        for (visit, clicks) in left {
            self.add(visit.clone(), *clicks);
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

    #[tokio::test]
    async fn when_there_is_no_more_room_only_old_sums_grow() {
        let clicks = Clicks::new(Store::new("postgres://nobody@localhost/").unwrap());
        for link in 0..PENDING as u128 {
            clicks.add(visit(link, "a.example"), 1);
        }
        clicks.add(visit(0, "a.example"), 2);
        assert_eq!(clicks.dropped(), 0);
        clicks.add(visit(0, "b.example"), 3);
        assert_eq!(clicks.dropped(), 3);
        let sums = clicks.sums();
        assert_eq!((sums.len(), sums[&visit(0, "a.example")]), (PENDING, 3));
    }

    #[tokio::test]
    async fn made_up_referrers_leave_room_for_other_links() {
        let clicks = Clicks::new(Store::new("postgres://nobody@localhost/").unwrap());
        for n in 0..PENDING {
            clicks.add(Visit { referrer: format!("h{n}.example").into(), ..visit(0, "") }, 1);
        }
        clicks.add(visit(1, "a.example"), 1);
        assert_eq!((clicks.dropped(), clicks.sums()[&visit(1, "other")]), (0, 1));
    }
}
