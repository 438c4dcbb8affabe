//! Redis missed an invalidation because it was away. How do we make sure that nobody sees the old value?
//!
//! Invariant: a read that starts after a change was answered is answered with that change or a later one.
//!
//! A process believes Redis only for one [`period`](Trust::period) after the start of a *confirmation*: it reads the
//! invalidations that are pending in PostgreSQL, carries them all out in Redis, and finds Redis well. It confirms three
//! times in a period. If a change cannot reach Redis, its writer waits one period before it answers. By then each
//! process has either begun a confirmation after the change, and so has carried it out, or no longer believes Redis
//! and asks PostgreSQL. Clocks need not agree; they only have to run equally fast.
//!
//! This is also the circuit breaker. When the connection fails, it is gone for everyone at once; requests go around
//! Redis without trying it, and only the watcher connects again. When one command is slow, the watcher asks Redis
//! whether it is well, and its answer decides.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    link::{Address, Away, Link},
    store::Store,
};

/// Invalidations that are carried out in one go.
const BATCH: u32 = 1_000;
/// The shortest pause between two confirmations, however many readers ask for one. It doubles while confirmations fail.
const PAUSE: Duration = Duration::from_millis(10);

/// A link, and until when it may be believed.
type State = Option<(Arc<Link>, Instant)>;

/// Whether Redis is to be believed.
#[derive(Debug)]
pub struct Trust {
    /// How long a confirmation is good for.
    pub period: Duration,
    address: Address,
    state: watch::Sender<State>,
    /// Wakes the watcher before its time.
    nudge: Notify,
}

impl Trust {
    /// Does not believe Redis yet.
    pub fn new(address: Address, period: Duration) -> Self {
        Self { period, address, state: watch::Sender::new(None), nudge: Notify::new() }
    }

    /// The link, if what it says may be believed now.
    pub fn believed(&self) -> Option<Arc<Link>> {
        let state = self.state.borrow();
        let (link, until) = state.as_ref()?;
        (Instant::now() < *until).then(|| Arc::clone(link))
    }

    /// The link, whether it is believed or not. That is enough to tell Redis something.
    pub fn any_link(&self) -> Option<Arc<Link>> {
        self.state.borrow().as_ref().map(|(link, _)| Arc::clone(link))
    }

    /// Call it when a command has failed. The watcher confirms at once. If the command was not just slow, nobody else
    /// tries this connection.
    pub fn doubt(&self, link: &Arc<Link>, why: &Away) {
        if !why.is_slow {
            self.change(link, None);
        }
        tracing::debug!(%why, "going around Redis");
        self.nudge.notify_one();
    }

    /// Changes the state, if it is still about this link.
    fn change(&self, link: &Arc<Link>, new: State) {
        self.state.send_if_modified(|state| {
            let same = state.as_ref().is_some_and(|(it, _)| Arc::ptr_eq(it, link));
            if same {
                *state = new;
            }
            same
        });
    }

    /// Confirms again and again, until it is told to stop.
    pub async fn watch(self: Arc<Self>, store: Store, stop: CancellationToken) {
        let watch = async {
            let mut pause = PAUSE;
            loop {
                if let Err(trouble) = self.confirm(&store).await {
                    tracing::debug!(%trouble, "Redis is not confirmed");
                    sleep(pause).await;
                    pause = (pause * 2).min(self.period / 3);
                } else {
                    pause = PAUSE;
                    sleep(PAUSE).await;
                    // The time-out means that nobody asked for a confirmation sooner.
                    let _ = timeout(self.period / 3, self.nudge.notified()).await;
                }
            }
        };
        stop.run_until_cancelled(watch).await;
    }

    // ANCHOR: confirm
    /// Carries out all pending invalidations. Then Redis holds no value that was replaced before this began.
    async fn confirm(&self, store: &Store) -> Result<(), Trouble> {
        loop {
            // Read before the query, because what is committed after this instant may be missing from its answer.
            let asked = Instant::now();
            let (origin, pending) = store.pending(BATCH).await?;
            let known = self.any_link().filter(|link| link.origin == origin);
            let link = if let Some(link) = known {
                link
            } else {
                let link = Arc::new(self.address.link(origin).await?);
                // Not believed yet.
                self.state.send_replace(Some((Arc::clone(&link), asked)));
                link
            };
            let (done, users): (Vec<_>, Vec<_>) = pending.into_iter().unzip();
            if let Err(away) = link.forget(&users).await {
                self.change(&link, None);
                return Err(away.into());
            }
            if !done.is_empty() {
                store.all_carried_out(&done).await?;
            }
            // A full batch may have left something behind.
            if done.len() < BATCH as usize {
                self.change(&link, Some((Arc::clone(&link), asked + self.period)));
                return Ok(());
            }
        }
    }
    // ANCHOR_END: confirm
}

/// Why something could not be done through Redis.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Redis failed. The database can still answer.
    #[error(transparent)]
    Redis(#[from] Away),
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] Error),
}
