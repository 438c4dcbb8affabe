//! Which keys does a verifier trust at this moment, and how does it learn of a new one?
//!
//! Invariant: whatever clients send, it makes us ask the source at most once in [`COOLDOWN`], one request at a time.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use jsonwebtoken::DecodingKey;
use tokio::sync::Mutex;

use crate::{error::Error, jwks::PublicKey};

/// A key that we do not know makes us ask again, but not more often than this: anybody can invent a `kid`.
pub const COOLDOWN: Duration = Duration::from_secs(5);
/// How long the keys are used while their source is away. Longer would keep a stolen key alive that the source
/// has withdrawn.
pub const STALE_FOR: Duration = Duration::from_hours(1);

/// Asks the source: the database of the issuer, or a [`Remote`](crate::jwks::Remote) key set.
pub type Load = Box<dyn Fn() -> BoxFuture<'static, Result<Vec<PublicKey>, Error>> + Send + Sync>;

/// The keys that are trusted.
pub struct Keyring {
    load: Load,
    keys: RwLock<Arc<Keys>>,
    /// When a request last made us ask the source, and whether it answered. Held while it is asked.
    asked: Mutex<Option<(Instant, Result<(), Error>)>>,
}

#[derive(Default)]
struct Keys {
    by_kid: HashMap<String, Arc<DecodingKey>>,
    public: Vec<PublicKey>,
    loaded_at: Option<Instant>,
}

impl Keyring {
    /// Knows no key until it is asked for one.
    pub fn new(load: Load) -> Self {
        Self { load, keys: RwLock::default(), asked: Mutex::new(None) }
    }

    // ANCHOR: find_key
    /// The key of this name. One that is not known may be new: then the source is asked, if it has not just been.
    pub async fn get(&self, kid: &str) -> Result<Arc<DecodingKey>, Error> {
        if let Some(key) = self.fresh()?.and_then(|keys| keys.by_kid.get(kid).cloned()) {
            return Ok(key);
        }
        self.load_unless_asked_within(COOLDOWN).await?;
        let keys = self.fresh()?.ok_or(Error::Away("the keys"))?;
        keys.by_kid.get(kid).cloned().ok_or(Error::InvalidToken("unknown key"))
    }
    // ANCHOR_END: find_key

    /// All keys, for publishing.
    pub async fn public(&self) -> Result<Vec<PublicKey>, Error> {
        if self.fresh()?.is_none() {
            self.load_unless_asked_within(COOLDOWN).await?;
        }
        Ok(self.fresh()?.ok_or(Error::Away("the keys"))?.public.clone())
    }

    // ANCHOR: load_keys
    /// Asks the source, unless another request made us ask a short while ago. What is loaded by the clock does not count:
    /// a key that was made just after it, in an emergency, is found at its first use.
    pub async fn load_unless_asked_within(&self, time: Duration) -> Result<(), Error> {
        // Those that come meanwhile wait here, and then find that it was just asked.
        let mut asked = self.asked.lock().await;
        if let Some((when, outcome)) = &*asked
            && when.elapsed() < time
        {
            return outcome.clone();
        }
        let outcome = self.load().await;
        *asked = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Asks the source. A key that has gone from there is trusted no more.
    pub async fn load(&self) -> Result<(), Error> {
        (self.load)().await.map(|public| self.replace(public))
    }
    // ANCHOR_END: load_keys

    fn replace(&self, public: Vec<PublicKey>) {
        let by_kid = public
            .iter()
            .map(|key| (key.kid.clone(), Arc::new(DecodingKey::from_ed_der(&key.bytes))))
            .collect();
        let keys = Keys { by_kid, public, loaded_at: Some(Instant::now()) };
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// The keys, if there are any yet; an error if they are too old to be trusted.
    fn fresh(&self) -> Result<Option<Arc<Keys>>, Error> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        match keys.loaded_at {
            None => Ok(None),
            Some(when) if when.elapsed() < STALE_FOR => Ok(Some(keys)),
            Some(_) => Err(Error::Away("the keys")),
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
        let ring = Keyring::new(Box::new(|| Box::pin(async { Err(Error::Away("it")) })));
        assert!(matches!(ring.get("any").await, Err(Error::Away(_))));
        assert!(matches!(ring.get("any").await, Err(Error::Away(_))), "nor within the cooldown");
    }
}
