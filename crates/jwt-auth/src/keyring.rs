//! Which keys does a verifier trust at this moment, and how does it learn of a new one?
//!
//! Invariant: whatever clients send, it makes us ask the source at most once in [`COOLDOWN`], one request at a time.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::DecodingKey;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    error::{Error, Result},
    jwks::{Load, PublicKey},
};

/// A key that we do not know makes us ask again, but not more often than this: anybody can invent a `kid`.
pub const COOLDOWN: Duration = Duration::from_secs(5);
/// How long the keys are used while their source is away. Longer would keep a stolen key alive that the source
/// has withdrawn.
pub const STALE_FOR: Duration = Duration::from_hours(1);

/// The keys that are trusted.
pub struct Keyring {
    load: Load,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When a request last made us ask the source, and whether it answered. Held while anybody asks, so that of two
    /// answers the older one never comes last.
    asked: Mutex<Option<(Instant, Result<()>)>>,
}

struct Keys {
    by_kid: HashMap<String, Arc<DecodingKey>>,
    public: Vec<PublicKey>,
    loaded_at: Instant,
}

impl Keyring {
    /// Knows no key until it is asked for one.
    pub fn new(load: Load) -> Self {
        Self { load, keys: RwLock::default(), asked: Mutex::default() }
    }

    // ANCHOR: find_key
    /// The key of this name. One that is not known may be new: then the source is asked, if it has not just been.
    pub async fn get(&self, kid: &str) -> Result<Arc<DecodingKey>> {
        let keys = self.keys(|keys| keys.by_kid.contains_key(kid)).await?;
        keys.by_kid.get(kid).cloned().ok_or(Error::InvalidToken("unknown key"))
    }

    /// All keys, for publishing.
    pub async fn public(&self) -> Result<Vec<PublicKey>> {
        Ok(self.keys(|_| true).await?.public.clone())
    }

    async fn keys(&self, will_do: impl Fn(&Keys) -> bool) -> Result<Arc<Keys>> {
        if let Some(keys) = self.fresh().filter(|keys| will_do(keys)) {
            return Ok(keys);
        }
        self.load_unless_just_asked().await?;
        self.fresh().ok_or(Error::Unavailable("there are no keys"))
    }
    // ANCHOR_END: find_key

    // ANCHOR: load_keys
    /// Asks the source, unless another request made us ask a short while ago. What is loaded by the clock does not count:
    /// a key that was made just after it, in an emergency, is found at its first use.
    pub async fn load_unless_just_asked(&self) -> Result<()> {
        // Those that come meanwhile wait here, and then find that it was just asked.
        let mut asked = self.asked.lock().await;
        let just = asked.as_ref().filter(|(when, _)| when.elapsed() < COOLDOWN);
        if let Some((_, outcome)) = just {
            return outcome.clone();
        }
        let outcome = (self.load)().await.map(|public| self.replace(public));
        *asked = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Asks the source. A key that has gone from there is trusted no more; if there is no answer, the old ones are.
    pub async fn load(&self) -> Result<()> {
        let _one_at_a_time = self.asked.lock().await;
        (self.load)().await.map(|public| self.replace(public))
    }
    // ANCHOR_END: load_keys

    fn replace(&self, public: Vec<PublicKey>) {
        let key = |it: &PublicKey| (it.kid.clone(), Arc::new(DecodingKey::from_ed_der(&it.bytes)));
        let by_kid = public.iter().map(key).collect();
        let keys = Arc::new(Keys { by_kid, public, loaded_at: Instant::now() });
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// The keys, unless there are none yet or they are too old to be trusted.
    fn fresh(&self) -> Option<Arc<Keys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        keys.filter(|keys| keys.loaded_at.elapsed() < STALE_FOR)
    }

    /// Loads the keys at once and then so often, for ever. Where the source is our own database, this is also what
    /// rotates them. It may be cut off at any point.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        loop {
            if let Err(error) = self.load().await {
                tracing::warn!(%error, "the keys stay as they are for now");
            }
            sleep(every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A ring whose source counts how often it is asked, and has one key more each time.
    fn ring(asked: &'static AtomicUsize) -> Keyring {
        Keyring::new(Box::new(move || {
            let n = u8::try_from(asked.fetch_add(1, Ordering::SeqCst)).unwrap();
            Box::pin(async move {
                // It takes a moment, in which everybody else asks too.
                tokio::task::yield_now().await;
                Ok((0..=n).map(|n| PublicKey::new([n; 32])).collect())
            })
        }))
    }

    #[tokio::test]
    async fn a_hundred_unknown_keys_at_once_ask_the_source_once() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let ring = ring(&ASKED);
        let unknown = (0..100).map(|n| {
            let ring = &ring;
            async move { ring.get(&n.to_string()).await }
        });
        let answers = futures_util::future::join_all(unknown).await;
        assert!(answers.iter().all(|key| matches!(key, Err(Error::InvalidToken(_)))));
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        assert!(ring.get(&PublicKey::new([0; 32]).kid).await.is_ok());
        assert_eq!(ASKED.load(Ordering::SeqCst), 1, "a known key asks nobody");
    }

    #[tokio::test]
    async fn a_new_key_is_found_at_its_first_use_and_the_next_one_by_the_clock() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let ring = ring(&ASKED);
        // By the clock: that does not use up the one time that a request may ask.
        ring.load().await.unwrap();
        assert!(ring.get(&PublicKey::new([1; 32]).kid).await.is_ok());
        assert!(ring.get(&PublicKey::new([2; 32]).kid).await.is_err(), "not twice in a row");
        ring.load().await.unwrap();
        assert!(ring.get(&PublicKey::new([2; 32]).kid).await.is_ok());
    }

    #[tokio::test]
    async fn a_source_that_is_away_is_no_verdict_on_a_token() {
        let ring = Keyring::new(Box::new(|| Box::pin(async { Err(Error::Unavailable("it")) })));
        assert!(matches!(ring.get("any").await, Err(Error::Unavailable(_))));
        assert!(
            matches!(ring.get("any").await, Err(Error::Unavailable(_))),
            "nor within the cooldown"
        );
    }

    #[tokio::test]
    async fn keys_that_are_too_old_are_asked_for_again_before_anybody_is_refused() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let ring = ring(&ASKED);
        ring.load().await.unwrap();
        age(&ring);
        assert!(ring.get(&PublicKey::new([0; 32]).kid).await.is_ok());
        age(&ring);
        ring.asked.lock().await.take();
        assert_eq!(ring.public().await.unwrap().len(), 3);
    }

    /// Makes the keys as old as they may be, and no longer.
    fn age(ring: &Keyring) {
        let mut keys = ring.keys.write().unwrap();
        let old = keys.take().unwrap();
        let loaded_at = old.loaded_at.checked_sub(STALE_FOR).unwrap();
        let (by_kid, public) = (old.by_kid.clone(), old.public.clone());
        *keys = Some(Arc::new(Keys { by_kid, public, loaded_at }));
    }

    #[tokio::test]
    async fn of_two_loads_that_overlap_the_older_one_does_not_win() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        // The first answer takes its time, and the second does not.
        let ring = Keyring::new(Box::new(|| {
            let n = u8::try_from(ASKED.fetch_add(1, Ordering::SeqCst)).unwrap();
            Box::pin(async move {
                if n == 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(vec![PublicKey::new([n; 32])])
            })
        }));
        let (one, two) = tokio::join!(ring.load(), ring.load());
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(ring.public().await.unwrap(), [PublicKey::new([1; 32])]);
    }
}
