//! How is a hot link served without a database, and how wrong can that be?
//!
//! Invariant: no link is served from here after it has expired.
//!
//! If another process deletes or changes a link, this one serves the old link for at most [`FRESH_FOR`]. Only while the
//! database does not answer, it serves the old link for up to [`STALE_FOR`]: an old answer is then better than none
//! (`stale-if-error` of RFC 5861).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};

use crate::{code::Code, error::Error, ring::Shards, store::Link};

/// How long a link is served without asking the database again.
pub const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long we believe that a code leads nowhere. It is short, because another process may make the link at any time,
/// and its owner wants to see it work.
const NOWHERE_FOR: Duration = Duration::from_secs(1);
/// How long an old link may be served while the database is away.
pub const STALE_FOR: Duration = Duration::from_mins(10);
/// Links in each of the caches; some 500 bytes each, with URLs of usual length.
const CAPACITY: u64 = 100_000;

/// What a redirect needs of a link.
#[derive(Debug)]
pub struct HotLink {
    /// The link as it was read.
    pub link: Link,
    /// Its shard.
    pub shard: usize,
    /// When it expires, by this process's monotonic clock.
    expires_at: Option<Instant>,
}

/// Where a code leads, or the error for 404 or 410.
type Leads = Result<Arc<HotLink>, Error>;

/// The codes that were asked for lately.
pub struct HotLinks {
    shards: Arc<Shards>,
    fresh: Cache<Code, Leads>,
    /// Asked only when the database is away.
    stale: Cache<Code, Leads>,
}

impl HotLinks {
    /// An empty cache in front of these databases.
    pub fn new(shards: Arc<Shards>) -> Self {
        let cache = |longest| {
            let cache = Cache::builder().max_capacity(CAPACITY).time_to_live(longest);
            cache.expire_after(UntilTheEnd).build()
        };
        Self { shards, fresh: cache(FRESH_FOR), stale: cache(STALE_FOR) }
    }

    /// The link, if it leads anywhere. If many requests ask for it at once, the database is asked once.
    pub async fn get(&self, code: &Code) -> Leads {
        let load = async {
            // Read before the query. The database counts the seconds from a later moment, so the link never stays too
            // long.
            let asked_at = Instant::now();
            let leads = match self.shards.link(code).await {
                Ok(link) => Ok(Arc::new(HotLink {
                    shard: self.shards.number_of(code),
                    expires_at: link.seconds_left.map(|it| asked_at + Duration::from_secs_f64(it)),
                    link,
                })),
                Err(error @ (Error::NotFound | Error::Gone)) => Err(error),
                Err(error @ Error::DatabaseAway) => return self.stale.get(code).await.ok_or(error),
                Err(error) => return Err(error),
            };
            self.stale.insert(code.clone(), leads.clone()).await;
            Ok(leads)
        };
        self.fresh.try_get_with_by_ref(code, load).await.map_err(Arc::unwrap_or_clone)?
    }

    /// Forgets a code whose link was just made, changed or deleted. A read that is under way may bring the old link
    /// back, for [`FRESH_FOR`].
    pub async fn forget(&self, code: &Code) {
        self.fresh.invalidate(code).await;
        self.stale.invalidate(code).await;
    }
}

// ANCHOR: cache_expiry
/// An entry stays no longer than until its link expires.
struct UntilTheEnd;

impl Expiry<Code, Leads> for UntilTheEnd {
    fn expire_after_create(&self, _: &Code, leads: &Leads, now: Instant) -> Option<Duration> {
        match leads {
            Ok(link) => link.expires_at.map(|end| end.saturating_duration_since(now)),
            Err(_) => Some(NOWHERE_FOR),
        }
    }

    fn expire_after_update(
        &self,
        code: &Code,
        leads: &Leads,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(code, leads, now)
    }
}
// ANCHOR_END: cache_expiry
