//! Redis missed an invalidation because it was away. How does nobody ever see the old value?
//!
//! Invariant: a read that starts after a change was answered is answered with that change or a later one.
//!
//! A process believes Redis only for [`period`](Trust::period) after the start of a *confirmation*: it reads
//! the invalidations that are pending in PostgreSQL, carries them all out in Redis, and finds Redis well. It
//! confirms three times in a period. Whoever changes a user and cannot tell Redis waits one period before
//! answering. By then each process has either begun a confirmation after the change, and so carried it out,
//! or believes Redis no more and asks PostgreSQL. Clocks need not agree, only run equally fast.
//!
//! This is also the circuit breaker: when a command fails the link is gone for everyone at once, requests
//! go around Redis without trying it, and only the watcher knocks again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    link::{Address, Away, Link},
    store::{Pending, Store},
};

/// Invalidations that are carried out in one go.
const BATCH: u32 = 1_000;

/// Whether Redis is to be believed.
#[derive(Debug)]
pub struct Trust {
    /// How long a confirmation is good for.
    pub period: Duration,
    address: Address,
    state: watch::Sender<Option<State>>,
    /// Wakes the watcher before its time.
    nudge: Notify,
    /// How long a reader waits for a confirmation that is due.
    patience: Duration,
}

/// There is a link.
#[derive(Clone, Debug)]
struct State {
    link: Arc<Link>,
    /// Until then it may be believed.
    until: Instant,
}

impl Trust {
    /// No trust as yet.
    pub fn new(address: Address, period: Duration, patience: Duration) -> Self {
        let state = watch::Sender::new(None);
        Self { period, address, state, nudge: Notify::new(), patience }
    }

    /// The link, if what it says may be believed now.
    pub fn believed(&self) -> Option<Arc<Link>> {
        let state = self.state.borrow();
        let state = state.as_ref().filter(|state| Instant::now() < state.until)?;
        Some(Arc::clone(&state.link))
    }

    /// The same, but when only the confirmation is late (this process was paused) waits for it a little.
    pub async fn link(&self) -> Option<Arc<Link>> {
        let believed = self.believed();
        if believed.is_some() || self.state.borrow().is_none() {
            return believed;
        }
        self.nudge.notify_one();
        self.wait(self.patience).await;
        self.believed()
    }

    /// Waits until Redis may be believed, but no longer than this.
    pub async fn wait(&self, patience: Duration) {
        let mut changes = self.state.subscribe();
        let is_trusted = |state: &Option<State>| {
            state.as_ref().is_some_and(|state| Instant::now() < state.until)
        };
        // Whether it came is seen by whoever looks next.
        let _ = timeout(patience, changes.wait_for(is_trusted)).await;
    }

    /// The link, believed or not: to tell Redis something.
    pub fn any_link(&self) -> Option<Arc<Link>> {
        self.state.borrow().as_ref().map(|state| Arc::clone(&state.link))
    }

    /// Gives up a link that has failed, for all who use it.
    pub fn lose(&self, link: &Arc<Link>, why: &Away) {
        let lost = self.state.send_if_modified(|state| {
            let same = state.as_ref().is_some_and(|state| Arc::ptr_eq(&state.link, link));
            if same {
                *state = None;
            }
            same
        });
        if lost {
            tracing::warn!(%why, "going around Redis");
        }
    }

    /// Confirms again and again, until it is told to stop.
    pub async fn watch(self: Arc<Self>, store: Store, stop: CancellationToken) {
        loop {
            let confirm = async {
                if let Err(trouble) = self.confirm(&store).await {
                    tracing::debug!(%trouble, "Redis is not confirmed");
                }
                tokio::select! {
                    () = sleep(self.period / 3) => {}
                    () = self.nudge.notified() => {}
                }
            };
            if stop.run_until_cancelled(confirm).await.is_none() {
                return;
            }
        }
    }

    // ANCHOR: confirm
    /// Carries out all that is pending. What was committed before this began is then unknown to Redis.
    async fn confirm(&self, store: &Store) -> Result<(), Trouble> {
        let link = match self.any_link() {
            Some(link) => link,
            None => self.connect().await?,
        };
        loop {
            // Before the question: what is committed after this instant may be missing from the answer.
            let asked = Instant::now();
            let pending = store.pending(BATCH).await?;
            if let Err(away) = carry_out(&link, &pending).await {
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

    async fn connect(&self) -> Result<Arc<Link>, Away> {
        let link = Arc::new(self.address.link().await?);
        tracing::info!(life = link.life(), "connected to Redis");
        // Not believed yet.
        self.state.send_replace(Some(State { link: Arc::clone(&link), until: Instant::now() }));
        Ok(link)
    }

    /// Unless it was lost in the meantime.
    fn believe(&self, link: &Arc<Link>, until: Instant) {
        self.state.send_if_modified(|state| match state {
            Some(state) if Arc::ptr_eq(&state.link, link) => {
                state.until = until;
                true
            }
            _ => false,
        });
    }
}

async fn carry_out(link: &Link, pending: &[Pending]) -> Result<(), Away> {
    let keys: Vec<_> = pending.iter().map(|pending| link.key(pending.user_id)).collect();
    if !keys.is_empty() {
        link.delete(&keys).await?;
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
