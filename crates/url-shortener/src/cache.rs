//! How is a hot link served without a database, and how wrong can that be?
//!
//! Invariant: no link is served from here after it has expired.
//!
//! What another process has deleted is served for at most [`FRESH_FOR`] more. Only while the database cannot
//! be asked at all is it served longer, up to [`STALE_FOR`]: an old answer is then better than none
//! (`stale-if-error` of RFC 5861).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use moka::{Expiry, future::Cache};

use crate::{code::Code, error::Error, shards::Shards};

/// How long we believe what we read.
pub const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long we fall back on it while the database is away.
pub const STALE_FOR: Duration = Duration::from_mins(10);
/// Links in each of the caches; some 300 bytes each, with URLs of usual length.
const CAPACITY: u64 = 100_000;

/// What a redirect needs of a link.
#[derive(Debug)]
pub struct HotLink {
    /// Its code.
    pub code: Code,
    /// Where it leads, ready to be sent.
    pub location: HeaderValue,
    /// When it expires, by the clock of this process, which no one sets back.
    expires_at: Option<Instant>,
}

impl HotLink {
    async fn load(shards: &Shards, code: &Code) -> Result<Self, Error> {
        // Before the question, since the database counts the seconds from some moment after it.
        let asked_at = Instant::now();
        let link = shards.link(code).await?;
        let left = link.seconds_left.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
        Ok(Self {
            code: link.code,
            location: HeaderValue::try_from(link.url).map_err(Error::internal)?,
            expires_at: left.map(|left| asked_at + left),
        })
    }
}

/// The links that were followed lately.
pub struct HotLinks {
    shards: Arc<Shards>,
    fresh: Cache<Code, Arc<HotLink>>,
    /// Asked only when the database is away.
    stale: Cache<Code, Arc<HotLink>>,
}

impl HotLinks {
    /// An empty cache in front of these databases.
    pub fn new(shards: Arc<Shards>) -> Self {
        let cache = |longest| {
            Cache::builder().max_capacity(CAPACITY).expire_after(Lifetime { longest }).build()
        };
        Self { shards, fresh: cache(FRESH_FOR), stale: cache(STALE_FOR) }
    }

    /// The link, if it leads anywhere. However many ask for it at once, the database is asked once.
    ///
    /// Codes that nobody has are not remembered: they would push out links that somebody follows, and a
    /// link must work as soon as it is made, whichever process made it.
    pub async fn get(&self, code: &Code) -> Result<Arc<HotLink>, Error> {
        let load = async {
            match HotLink::load(&self.shards, code).await {
                Ok(link) => {
                    let link = Arc::new(link);
                    self.stale.insert(code.clone(), Arc::clone(&link)).await;
                    Ok(link)
                }
                Err(Error::DatabaseAway) => self.stale.get(code).await.ok_or(Error::DatabaseAway),
                Err(error) => {
                    self.stale.invalidate(code).await;
                    Err(error)
                }
            }
        };
        self.fresh.try_get_with_by_ref(code, load).await.map_err(Arc::unwrap_or_clone)
    }

    /// Forgets a link that was deleted. One that is just being read may come back, for [`FRESH_FOR`].
    pub async fn forget(&self, code: &Code) {
        self.fresh.invalidate(code).await;
        self.stale.invalidate(code).await;
    }
}

// ANCHOR: cache_expiry
/// Until the link expires, and no longer than the longest.
struct Lifetime {
    longest: Duration,
}

impl Expiry<Code, Arc<HotLink>> for Lifetime {
    fn expire_after_create(&self, _: &Code, link: &Arc<HotLink>, now: Instant) -> Option<Duration> {
        let left = link.expires_at.map(|expires_at| expires_at.saturating_duration_since(now));
        Some(left.map_or(self.longest, |left| left.min(self.longest)))
    }

    fn expire_after_update(
        &self,
        code: &Code,
        link: &Arc<HotLink>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(code, link, now)
    }
}
// ANCHOR_END: cache_expiry
