//! How is the service put together, started and stopped, and what can be tuned?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    flight::Flights,
    link::Address,
    store::Store,
    trust::Trust,
    ttl::{Lives, Ttl},
};

const YEAR: f64 = 365.0 * 24.0 * 3_600.0;

/// Everything that can be tuned. Times are in seconds.
#[derive(clap::Args, Clone, Debug)]
pub struct Tuning {
    /// What the keys in Redis begin with
    #[arg(long, default_value = "worked-answers:cache-aside:", value_name = "PREFIX")]
    pub key_prefix: String,
    /// How long a user stays in Redis, at most
    #[arg(long, default_value = "3600", value_parser = seconds, value_name = "SECONDS")]
    pub ttl: Duration,
    /// How much of --ttl and --absence-ttl a random part may take off: 0.1 for a tenth
    #[arg(long, default_value = "0.1", value_parser = |it: &str| between(it, 1.0), value_name = "SHARE")]
    pub jitter: f64,
    /// How long the absence of a user stays in Redis, at most; 0 to keep no absences
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub absence_ttl: Duration,
    /// How early hot users are reloaded before they expire: 1 as in the paper on `XFetch`, 0 never
    #[arg(long, default_value = "1", value_parser = |it: &str| between(it, 1e6))]
    pub beta: f64,
    /// How many users each process keeps in its own memory; reads may then be old for a moment. 0 for none
    #[arg(long, default_value = "0", value_name = "USERS")]
    pub near: usize,
    /// How long Redis is believed after a confirmation. A change that cannot reach Redis waits this long
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    pub trust: Duration,
    /// How long a command to Redis may take, and how long a reader waits for another process's load
    #[arg(long, default_value = "0.1", value_parser = seconds, value_name = "SECONDS")]
    pub redis_timeout: Duration,
    /// How long a call to the database may take. A lease, the right to fill a key, lasts twice as long
    #[arg(long, default_value = "0.7", value_parser = seconds, value_name = "SECONDS")]
    pub database_timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    between(text, YEAR).map(Duration::from_secs_f64)
}

fn between(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(format!("must be 0 to {most}")) }
}

/// The running service, which every handler and every background task shares. What it does is in `read.rs`, `lease.rs`
/// and `write.rs`.
#[derive(Debug)]
pub struct Service {
    /// Where users are kept.
    pub store: Store,
    /// The way to Redis, and whether it is to be believed.
    pub trust: Arc<Trust>,
    /// What is being loaded.
    pub flights: Arc<Flights>,
    /// How long a loaded value may stay in Redis.
    pub lives: Lives,
    /// How long a lease, the right to fill a key, lasts. It is longer than any load, so that a slow load can still be
    /// stored.
    pub lease: Duration,
    /// How long a reader waits for a load by somebody else, who may be dead, or cut off from Redis.
    pub patience: Duration,
    /// For early refreshes: 1 as the paper has it, 0 for none.
    pub beta: f64,
    /// What runs in the background. A load goes on even if the client that asked first has gone.
    pub tasks: TaskTracker,
    stop: CancellationToken,
}

impl Service {
    /// Starts what runs in the background. The servers need not be there yet; the error is a malformed URL.
    pub fn start(
        database_url: &str,
        redis_url: &str,
        tuning: &Tuning,
    ) -> Result<Arc<Self>, Box<dyn StdError + Send + Sync>> {
        let store = Store::new(database_url, tuning.database_timeout)?;
        let patience = tuning.redis_timeout;
        let address = Address::new(redis_url, &tuning.key_prefix, patience, tuning.near)?;
        let trust = Arc::new(Trust::new(address, tuning.trust));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(Arc::clone(&trust).watch(store.clone(), stop.clone()));
        let ttl = |longest| Ttl { longest, jitter: tuning.jitter };
        let lives = Lives { user: ttl(tuning.ttl), absence: ttl(tuning.absence_ttl) };
        let (flights, lease, beta) = (Arc::default(), 2 * tuning.database_timeout, tuning.beta);
        Ok(Arc::new(Self { store, trust, flights, lives, lease, patience, beta, tasks, stop }))
    }

    /// Ends what runs in the background. Call it when no request is in flight any more; it takes as long as a load at
    /// most.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_are_refused() {
        for text in ["", "x", "-1", "NaN", "inf", "1e300"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(seconds("0").is_ok() && between("1.1", 1.0).is_err());
    }
}
