//! Who drives the saga? Any process that claims it. It writes down what is next, does it, and writes down the result.
//! Killed at any point, it leaves a log from which another process goes on.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    caller::Caller,
    error::Error,
    next::Next,
    saga::Record,
    store::{Claim, Lease, Store},
};

/// Another process may hold the row of an order that is due. Looking again at once would only use up the processor.
const SHORTEST_REST: Duration = Duration::from_millis(2);

/// With the database away, nobody knows when the next order falls due.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// How patient the orchestrator is.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Patience {
    /// How long an order is claimed for; after that long a silence another orchestrator takes it over. It should be
    /// longer than a call may take: shorter is safe, and others take over in vain
    #[arg(long = "lease-ms", default_value = "15000", value_parser = milliseconds)]
    pub lease: Duration,
    /// After so many failed attempts an action is given up and the order turns round; what must be done waits for a
    /// human. Twenty, with the pauses between them, take half a minute at least
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// The first pause after a failure; each further one is twice as long, with jitter
    #[arg(long = "backoff-ms", default_value = "100", value_parser = milliseconds)]
    pub backoff: Duration,
    /// The longest pause
    #[arg(long = "longest-backoff-ms", default_value = "5000", value_parser = milliseconds)]
    pub longest_backoff: Duration,
    /// How often to look for orders that others left behind. New ones of this process are seen at once
    #[arg(long = "poll-ms", default_value = "200", value_parser = milliseconds)]
    pub poll: Duration,
    /// How many sagas at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub concurrency: u16,
}

/// From a millisecond to an hour, as the options take it.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(milliseconds @ 1..=3_600_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("must be from 1 to 3600000".to_owned()),
    }
}

/// Works on orders.
pub struct Orchestrator {
    /// Where its orders are.
    pub store: Store,
    caller: Caller,
    patience: Patience,
    /// There is a new order, or one that goes on.
    pub wake: Notify,
}

impl Orchestrator {
    /// Ready to run.
    pub fn new(store: Store, caller: Caller, patience: Patience) -> Self {
        Self { store, caller, patience, wake: Notify::new() }
    }

    /// Works until it is told to stop, and then until each saga has come to its next record.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // As many permits as sagas at a time; orders wait in the table, which is the queue and has no bound.
        let places = Arc::new(Semaphore::new(self.patience.concurrency.into()));
        let sagas = TaskTracker::new();
        while !stop.is_cancelled() {
            let Ok(place) = places.acquire().await else { break };
            let free = places.available_permits() + 1;
            drop(place);
            let claimed = self.store.claim(free, self.patience.lease).await;
            let (claims, next_due) = claimed.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot look for orders");
                (Vec::new(), Some(AFTER_ERROR))
            });
            if claims.is_empty() {
                self.rest(next_due, &stop).await;
            }
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
    /// Drives one saga until it ends, is parked, has to wait, or belongs to another orchestrator.
    async fn drive(&self, claim: Claim, stop: &CancellationToken) -> Result<(), Error> {
        let Claim { id, order, fence, mut log } = claim;
        // Heard or decided, and not yet written.
        let mut pending_records: Vec<Record> = Vec::new();
        loop {
            let next = log.next(self.patience.attempts);
            if let Next::Write(record) = next {
                log.push(&record, OffsetDateTime::now_utc());
                pending_records.push(record);
                continue;
            }
            // Without a readable order the log is damaged, and there is nothing to ask for.
            let (Next::Ask(call), Some(order)) = (next, &order) else {
                self.store.append(id, fence, &pending_records, log.status(), Lease::End).await?;
                return Ok(());
            };
            let has_failed = matches!(pending_records.last(), Some(Record::Failed { .. }));
            if has_failed || stop.is_cancelled() {
                let failures = if has_failed { log.of(call).failures } else { 0 };
                let release = Lease::Release(self.patience.pause(failures));
                self.store.append(id, fence, &pending_records, log.status(), release).await?;
                return Ok(());
            }
            if !log.asked.contains(&call) {
                log.push(&Record::Asked { call }, OffsetDateTime::now_utc());
                pending_records.push(Record::Asked { call });
            }
            // First the decision is written, together with what led to it; then it is acted on.
            let keep = Lease::Keep(self.patience.lease);
            if !pending_records.is_empty()
                && !self.store.append(id, fence, &pending_records, log.status(), keep).await?
            {
                return Ok(());
            }
            let record = self.caller.call(call, id, order).await;
            log.push(&record, OffsetDateTime::now_utc());
            pending_records = vec![record];
        }
    }
    // ANCHOR_END: drive
}

impl Patience {
    // ANCHOR: backoff
    /// Twice as long after each failure, and a random share of it, from half to all: otherwise all orders that failed
    /// together would be tried again together.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX) / 2;
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
        attempts: 20,
        backoff: Duration::from_millis(100),
        longest_backoff: Duration::from_secs(5),
        poll: Duration::from_millis(200),
        concurrency: 32,
    };

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_only_shortens_them() {
        let wholes = [(0, 0), (1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (99, 5_000)];
        for (failures, whole) in wholes.into_iter().chain([(u32::MAX, 5_000)]) {
            let whole = Duration::from_millis(whole);
            for _ in 0..50 {
                let pause = PATIENCE.pause(failures);
                assert!(pause <= whole && pause >= whole / 2, "{pause:?} after {failures}");
            }
        }
    }

    #[test]
    fn by_default_no_order_is_given_up_or_parked_within_thirty_seconds() {
        let pauses = (1..PATIENCE.attempts).map(|failures| PATIENCE.pause(failures));
        let shortest: Duration = pauses.sum();
        assert!(shortest > Duration::from_secs(30), "{shortest:?}");
    }

    #[test]
    fn those_who_failed_together_do_not_come_back_together() {
        let pauses: HashSet<_> = (0..50).map(|_| PATIENCE.pause(7)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
