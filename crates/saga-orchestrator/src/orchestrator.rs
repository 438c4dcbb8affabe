//! Who drives the saga? Any process that claims it: it writes down what is next, does it, and writes down what became
//! of it. Killed at any point, it leaves a log from which another goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    error::Error,
    log::Status,
    next::Next,
    participants::Participants,
    saga::Record,
    store::{Claim, Claims, Lease, Store},
};

/// Somebody else may hold the row of an order that is due; looking again at once would only heat the room.
const SHORTEST_REST: Duration = Duration::from_millis(2);

/// With the database away, nobody knows when the next order falls due.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// How patient the orchestrator is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a claim lasts without a sign of life. It should be longer than a call may take: shorter is safe,
    /// and only makes others take over in vain.
    pub lease: Duration,
    /// How long a call is tried before it is given up, or the order is parked.
    pub deadline: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause.
    pub longest_backoff: Duration,
    /// How often to look for orders that others left behind. New ones of this process are seen at once.
    pub poll: Duration,
    /// How many sagas at a time.
    pub concurrency: usize,
}

/// Works on orders.
pub struct Orchestrator {
    store: Store,
    participants: Participants,
    patience: Patience,
    wake: Notify,
    fenced: AtomicU64,
}

impl Orchestrator {
    /// Ready to run.
    pub fn new(store: Store, participants: Participants, patience: Patience) -> Self {
        let (wake, fenced) = (Notify::new(), AtomicU64::new(0));
        Self { store, participants, patience, wake, fenced }
    }

    /// There is a new order, or one that goes on.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// How many writes came too late, since somebody else had claimed the order.
    pub fn fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Works until it is told to stop, and then until each saga has come to its next record.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // As many permits as sagas at a time; orders wait in the table, which is the queue and has no bound.
        let places = Arc::new(Semaphore::new(self.patience.concurrency));
        let sagas = TaskTracker::new();
        while !stop.is_cancelled() {
            let Ok(place) = places.acquire().await else { break };
            let free = places.available_permits() + 1;
            drop(place);
            let claims = match self.store.claim(free, self.patience.lease).await {
                Ok(Claims::Some(claims)) => claims,
                Ok(Claims::None(next)) => {
                    self.rest(next, &stop).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look for orders");
                    self.rest(Some(AFTER_ERROR), &stop).await;
                    continue;
                }
            };
            for claim in claims {
                // There are as many as there were free places, and only this loop takes them.
                let Ok(place) = places.clone().acquire_owned().await else { break };
                let (orchestrator, stop) = (Arc::clone(&self), stop.clone());
                sagas.spawn(async move {
                    let id = claim.id;
                    if let Err(error) = orchestrator.drive(claim, &stop).await {
                        // The lease ends by itself, and then somebody goes on from the log.
                        tracing::warn!(%id, %error, "left an order");
                    }
                    drop(place);
                });
            }
        }
        sagas.close();
        sagas.wait().await;
    }

    /// Until there is a new order, or the next one falls due, or it is time to look for those of other processes.
    async fn rest(&self, next: Option<Duration>, stop: &CancellationToken) {
        let time = next.map_or(self.patience.poll, |next| next.min(self.patience.poll));
        let rest = timeout(time.max(SHORTEST_REST), self.wake.notified());
        let _ = stop.run_until_cancelled(rest).await;
    }

    // ANCHOR: drive
    /// Drives one saga until it ends, is parked, has to wait, or belongs to somebody else.
    async fn drive(&self, claim: Claim, stop: &CancellationToken) -> Result<(), Error> {
        let Claim { id, order, fence, mut log, now: claimed } = claim;
        let since = Instant::now();
        // Learnt or decided, and not yet written.
        let mut news: Vec<Record> = Vec::new();
        loop {
            let now = claimed + since.elapsed();
            let call = match log.next(now, self.patience.deadline) {
                Next::Write(record) => {
                    log.push(&record, now);
                    news.push(record);
                    continue;
                }
                Next::Rest => {
                    self.write(id, fence, &news, log.status(), Lease::End).await?;
                    return Ok(());
                }
                Next::Ask(call) => call,
            };
            let has_failed = matches!(news.last(), Some(Record::Failed { .. }));
            if has_failed || stop.is_cancelled() {
                let pause = if has_failed {
                    self.patience.pause(log.of(call).failures)
                } else {
                    Duration::ZERO
                };
                self.write(id, fence, &news, log.status(), Lease::Release(pause)).await?;
                return Ok(());
            }
            if !log.was_asked(call) {
                log.push(&Record::Asked { call }, now);
                news.push(Record::Asked { call });
            }
            // First the decision is written, together with what led to it; then it is acted on.
            let keep = Lease::Keep(self.patience.lease);
            if !news.is_empty() && !self.write(id, fence, &news, log.status(), keep).await? {
                return Ok(());
            }
            let record = self.participants.call(call, id, &order).await;
            log.push(&record, claimed + since.elapsed());
            news = vec![record];
        }
    }
    // ANCHOR_END: drive

    /// Writes the news; whether they were written. If not, the order belongs to somebody else, and nothing
    /// may be done for it any more.
    async fn write(
        &self,
        id: Uuid,
        fence: i64,
        news: &[Record],
        status: Status,
        lease: Lease,
    ) -> Result<bool, Error> {
        let written = self.store.append(id, fence, news, status, lease).await?;
        if !written {
            self.fenced.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%id, fence, "fenced off: somebody else has claimed this order");
        }
        Ok(written)
    }
}

impl Patience {
    // ANCHOR: backoff
    /// Twice as long after each failure, and anything from half to all of it, or all who failed together
    /// would come back together.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 1 << failures.saturating_sub(1).min(20);
        let whole = self.backoff.saturating_mul(doubled).min(self.longest_backoff);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }
    // ANCHOR_END: backoff
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PATIENCE: Patience = Patience {
        lease: Duration::from_secs(15),
        deadline: Duration::from_secs(30),
        backoff: Duration::from_millis(100),
        longest_backoff: Duration::from_secs(5),
        poll: Duration::from_millis(200),
        concurrency: 32,
    };

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_only_shortens_them() {
        let wholes = [(1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (99, 5_000)];
        for (failures, whole) in wholes.into_iter().chain([(u32::MAX, 5_000)]) {
            let whole = Duration::from_millis(whole);
            for _ in 0..50 {
                let pause = PATIENCE.pause(failures);
                assert!(pause <= whole && pause >= whole / 2, "{pause:?} after {failures}");
            }
        }
    }

    #[test]
    fn those_who_failed_together_do_not_come_back_together() {
        let pauses: HashSet<_> = (0..50).map(|_| PATIENCE.pause(7)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
