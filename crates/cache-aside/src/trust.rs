//! Redis missed an invalidation because it was away. How does nobody ever see the old value?
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
    user::UserId,
};

/// Invalidations that are carried out in one go.
const BATCH: u32 = 1_000;
/// The shortest time between two confirmations, however many readers wish for one. It doubles while they fail.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether Redis is to be believed.
#[derive(Debug)]
pub struct Trust {
    /// How long a confirmation is good for.
    pub period: Duration,
    address: Address,
    state: watch::Sender<State>,
    /// Wakes the watcher before its time.
    nudge: Notify,
    /// How long a reader waits for a confirmation that is due.
    patience: Duration,
}

#[derive(Clone, Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Until then the link may be believed.
    until: Option<Instant>,
    /// The last confirmation failed. To wait for the next would be in vain.
    failed: bool,
}

impl State {
    fn believed(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|_| self.until.is_some_and(|until| Instant::now() < until))
    }
}

impl Trust {
    /// No trust as yet.
    pub fn new(address: Address, period: Duration, patience: Duration) -> Self {
        let state = watch::Sender::default();
        Self { period, address, state, nudge: Notify::new(), patience }
    }

    /// The link, if what it says may be believed now.
    pub fn believed(&self) -> Option<Arc<Link>> {
        self.state.borrow().believed().map(Arc::clone)
    }

    /// The same, but when only the confirmation is late (this process was paused) waits for it a little.
    pub async fn link(&self) -> Option<Arc<Link>> {
        let is_late = {
            let state = self.state.borrow();
            if let Some(link) = state.believed() {
                return Some(Arc::clone(link));
            }
            state.link.is_some() && !state.failed
        };
        if is_late {
            self.nudge.notify_one();
            self.wait(self.patience).await;
        }
        self.believed()
    }

    /// Waits until Redis may be believed, but no longer than this.
    pub async fn wait(&self, patience: Duration) {
        let mut changes = self.state.subscribe();
        // The next look says whether it came.
        let _ = timeout(patience, changes.wait_for(|state| state.believed().is_some())).await;
    }

    /// The link, believed or not: to tell Redis something.
    pub fn any_link(&self) -> Option<Arc<Link>> {
        self.state.borrow().link.clone()
    }

    /// A command has failed. The watcher looks at once, and if the connection is gone nobody else tries it.
    pub fn doubt(&self, link: &Arc<Link>, why: &Away) {
        if !why.is_slow {
            self.lose(link, why);
        }
        self.nudge.notify_one();
    }

    fn lose(&self, link: &Arc<Link>, why: &Away) {
        let lost = self.state.send_if_modified(|state| {
            let same = state.link.as_ref().is_some_and(|it| Arc::ptr_eq(it, link));
            if same {
                state.link = None;
            }
            same
        });
        if lost {
            tracing::warn!(%why, "going around Redis");
        }
    }

    /// Confirms again and again, until it is told to stop.
    pub async fn watch(self: Arc<Self>, store: Store, stop: CancellationToken) {
        let watch = async {
            let mut pause = PAUSE;
            loop {
                let confirmed = self.confirm(&store).await;
                self.state.send_modify(|state| state.failed = confirmed.is_err());
                sleep(pause).await;
                if let Err(trouble) = confirmed {
                    tracing::debug!(%trouble, "Redis is not confirmed");
                    pause = (pause * 2).min(self.period / 3);
                } else {
                    pause = PAUSE;
                    // An error: nobody has asked for it sooner.
                    let _ = timeout(self.period / 3, self.nudge.notified()).await;
                }
            }
        };
        stop.run_until_cancelled(watch).await;
    }

    // ANCHOR: confirm
    /// Carries out all that is pending. What was committed before this began is then unknown to Redis.
    async fn confirm(&self, store: &Store) -> Result<(), Trouble> {
        loop {
            // Before the question: what is committed after this instant may be missing from the answer.
            let asked = Instant::now();
            let (origin, pending) = store.pending(BATCH).await?;
            let link = self.link_for(&origin).await?;
            let users: Vec<_> = pending.iter().map(|pending| pending.user_id).collect();
            if let Err(away) = carry_out(&link, &users).await {
                self.lose(&link, &away);
                return Err(away.into());
            }
            let done: Vec<_> = pending.iter().map(|pending| pending.id).collect();
            if !done.is_empty() {
                store.all_carried_out(&done).await?;
            }
            // A full batch may have left something behind.
            if pending.len() < BATCH as usize {
                self.believe(&link, asked + self.period);
                return Ok(());
            }
        }
    }
    // ANCHOR_END: confirm

    /// The link that there is, if it is for this database, or a new one. That one is not believed yet.
    async fn link_for(&self, origin: &str) -> Result<Arc<Link>, Away> {
        if let Some(link) = self.any_link().filter(|link| link.origin == origin) {
            return Ok(link);
        }
        let link = Arc::new(self.address.link(origin).await?);
        tracing::info!("connected to Redis");
        self.state.send_modify(|state| {
            *state = State { link: Some(Arc::clone(&link)), ..State::default() };
        });
        Ok(link)
    }

    /// Unless it was lost in the meantime.
    fn believe(&self, link: &Arc<Link>, until: Instant) {
        self.state.send_if_modified(|state| {
            let same = state.link.as_ref().is_some_and(|it| Arc::ptr_eq(it, link));
            if same {
                state.until = Some(until);
            }
            same
        });
    }
}

async fn carry_out(link: &Link, users: &[UserId]) -> Result<(), Away> {
    if !users.is_empty() {
        link.forget(users).await?;
    }
    link.set_clock().await
}

/// Why something could not be done through Redis.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Redis: then it can be done without.
    #[error(transparent)]
    Redis(#[from] Away),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Error),
}
