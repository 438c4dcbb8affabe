//! Act two, deliver. What does a worker do with one message?
//!
//! Claim, attempt, settle, follow up, acknowledge. The worker may die between any two: the message then comes again, and
//! whoever gets it finds in the database how far it came, and does the rest.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::RwLock, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    error::Error,
    hub::Live,
    notification::{Channel, Message, Status},
    push::{Fcm, Refusal},
    retry::{Backoff, CRASHES, SUSPECT, Verdict, verdict},
    store::{
        Entry, Store,
        attempts::{Begun, Settlement},
    },
};

/// While a server is away, between two tries: twice as long each time, from the first to the last.
const WAITS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// Delivers.
pub struct Deliverer {
    /// What its claims bear. Nobody else has this name, and this process has no other.
    pub worker: String,
    /// The database.
    pub store: Store,
    /// For retries, and for the dead.
    pub broker: Arc<Broker>,
    /// To the sockets.
    pub live: Live,
    /// To the devices, if that is set up.
    pub fcm: Option<Fcm>,
    /// When to try again.
    pub backoff: Backoff,
    /// Held by many deliveries, or by one that must be alone.
    pub quarantine: RwLock<()>,
}

impl Deliverer {
    // ANCHOR: deliver
    /// Deals with a message. When this is done, and only then, it may be acknowledged. The error is that we stop while a
    /// server is away.
    pub async fn deliver(&self, payload: &[u8], stop: &CancellationToken) -> Result<(), Error> {
        let reason = match serde_json::from_slice(payload) {
            Err(_) => "no code of ours wrote this".to_owned(),
            Ok(message) => match self.deliver_job(payload, &message, stop).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Away(_)) => return Err(error),
                // Not even its failure can be written down. It must not block its lane; the sweep finds the job.
                Err(error) => {
                    tracing::error!(?message, ?error, "buried what cannot be settled");
                    error.to_string()
                }
            },
        };
        patiently(stop, || self.broker.bury(payload, &reason)).await
    }

    async fn deliver_job(
        &self,
        payload: &[u8],
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        // Before the claim: a job that waits here has not begun, and does not die with the suspect.
        let (_alone, _beside) = if message.alone {
            (Some(self.quarantine.write().await), None)
        } else {
            (None, Some(self.quarantine.read().await))
        };
        let claimed = patiently(stop, || self.store.claim(message, &self.worker)).await?;
        let Some(begun) = claimed else { return self.follow_up(payload, message, stop).await };
        let settlement = match verdict(begun.was_cut_off, begun.crashes) {
            Verdict::Bury => Settlement::Dead(format!("{CRASHES} workers died of it")),
            Verdict::Wait => self.retry(&begun, "its worker died", None),
            Verdict::Try => self.attempt(&begun, stop).await?,
        };
        patiently(stop, || self.store.settle(&begun, &settlement)).await?;
        match settlement {
            Settlement::Delivered(_) => Ok(()),
            _ => self.follow_up(payload, message, stop).await,
        }
    }

    /// One attempt. A panic in it, ours or a library's, and a statement that fails are failures like any other: they
    /// are tried again, and after enough of them the job is dead. Neither takes the queue with it.
    async fn attempt(&self, job: &Begun, stop: &CancellationToken) -> Result<Settlement, Error> {
        let attempt = async {
            match job.channel {
                Channel::Websocket => self.to_sockets(job, stop).await,
                Channel::Push => self.to_devices(job, stop).await,
            }
        };
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(outcome @ (Ok(_) | Err(Error::Away(_)))) => outcome,
            Ok(Err(error)) => {
                tracing::error!(job = %job.job_id, ?error, "an attempt failed");
                Ok(self.retry(job, &error.to_string(), None))
            }
            Err(_) => Ok(self.retry(job, "the attempt panicked", None)),
        }
    }
    // ANCHOR_END: deliver

    // ANCHOR: follow_up
    /// What comes after an attempt has been settled, also when the worker that settled it has died since; and what
    /// becomes of a message that is too early or void.
    async fn follow_up(
        &self,
        payload: &[u8],
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        // Nothing follows if somebody else has begun it in the meantime, or if it was taken back or forgotten.
        let state = patiently(stop, || self.store.state(&message.job_id)).await?;
        let Some(state) = state else { return Ok(()) };
        match state.status {
            Status::Queued | Status::Retrying if state.generation >= message.generation => {
                let alone = state.crashes >= SUSPECT;
                let next = Message { generation: state.generation, alone, ..message.clone() };
                let wait = Duration::from_secs_f64(state.due_in);
                patiently(stop, || self.broker.delay(&next, state.priority, wait)).await
            }
            Status::Dead if state.generation == message.generation => {
                let reason = state.last_error.unwrap_or_default();
                patiently(stop, || self.broker.bury(payload, &reason)).await
            }
            _ => Ok(()),
        }
    }
    // ANCHOR_END: follow_up

    // ANCHOR: to_sockets
    /// The place in the stream is what delivers: an open socket is told, and one that opens later reads it. The same
    /// place twice is shown once, so this may be done again and again. While Redis is away nobody is told; the sockets
    /// look by themselves now and then.
    async fn to_sockets(&self, job: &Begun, stop: &CancellationToken) -> Result<Settlement, Error> {
        let entry = Entry {
            seq: patiently(stop, || self.store.place(&job.job_id)).await?,
            job_id: job.job_id.clone(),
            title: job.title.clone(),
            body: job.body.clone(),
        };
        if let Err(error) = self.live.tell(&job.user_id, &entry).await {
            tracing::debug!(%error, "the sockets have to look by themselves");
        }
        Ok(Settlement::Delivered(None))
    }
    // ANCHOR_END: to_sockets

    // ANCHOR: to_devices
    /// Between FCM's answer and our record of it we may die, and then the device gets it twice: FCM takes no
    /// idempotency key, so at least once is all that can be had. The app can tell by the `job_id`.
    async fn to_devices(&self, job: &Begun, stop: &CancellationToken) -> Result<Settlement, Error> {
        let Some(fcm) = &self.fcm else {
            return Ok(Settlement::Dead("push is not set up: --fcm-credentials".to_owned()));
        };
        let (devices, mut any) = patiently(stop, || self.store.devices_left(job)).await?;
        let (mut later, mut invalid) = (None, None);
        for device in devices {
            match fcm.send(&device, job).await {
                Ok(()) => {
                    patiently(stop, || self.store.pushed(&job.job_id, &device)).await?;
                    any = true;
                }
                Err(Refusal::Unregistered) => {
                    patiently(stop, || self.store.remove_device(&job.user_id, &device)).await?;
                    invalid.get_or_insert_with(|| "a device is not registered any more".to_owned());
                }
                Err(Refusal::Invalid(error)) => invalid = Some(error),
                Err(Refusal::Later(error, retry_after)) => later = Some((error, retry_after)),
            }
        }
        Ok(match (later, any) {
            (Some((error, retry_after)), _) => self.retry(job, &error, retry_after),
            (None, true) => Settlement::Delivered(invalid),
            (None, false) => {
                Settlement::Dead(invalid.unwrap_or_else(|| "the user has no device".to_owned()))
            }
        })
    }
    // ANCHOR_END: to_devices

    /// Another attempt, later, unless there have been enough; not before the channel wants it.
    fn retry(&self, job: &Begun, error: &str, retry_after: Option<u64>) -> Settlement {
        let failures = u16::try_from(job.failures.saturating_add(1)).unwrap_or(u16::MAX);
        match self.backoff.after(failures, retry_after) {
            Some(wait) => Settlement::Retry(error.to_owned(), wait.as_secs_f64()),
            None => Settlement::Dead(format!("gave up after {failures} failures: {error}")),
        }
    }
}

// ANCHOR: patiently
/// Asks until the server behind it answers, or we stop. What was done outside has to be written down, however long the
/// database takes: a message that is given back would only come again, out of its place, and ring the phone again.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<T, Error> {
    let mut wait = WAITS[0];
    loop {
        match ask().await {
            Err(error @ Error::Away(_)) => {
                tracing::debug!(%error, "a delivery waits");
                if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                    return Err(error);
                }
                wait = (wait * 2).min(WAITS[1]);
            }
            answer => return answer,
        }
    }
}
// ANCHOR_END: patiently

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready, time::Instant};

    use super::*;

    const AWAY: Error = Error::Away("it is away");

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_until_it_answers() {
        let (asked, stop) = (Cell::new(0), CancellationToken::new());
        let answer = patiently(&stop, || {
            asked.set(asked.get() + 1);
            ready(if asked.get() < 3 { Err(AWAY) } else { Ok("here") })
        });
        assert_eq!(answer.await.ok(), Some("here"));
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn a_statement_that_fails_is_not_asked_again() {
        let (asked, stop) = (Cell::new(0), CancellationToken::new());
        let answer = patiently(&stop, || {
            asked.set(asked.get() + 1);
            ready(Err::<(), _>(Error::internal(std::io::Error::other("it fails"))))
        });
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
        assert!(matches!(answer, Ok(Err(Error::Internal(_)))), "asked {} times", asked.get());
        assert_eq!(asked.get(), 1);
    }

    #[tokio::test]
    async fn a_worker_that_is_told_to_stop_stops() {
        let (stop, begun) = (CancellationToken::new(), Instant::now());
        let asking = patiently(&stop, || ready(Err::<(), _>(AWAY)));
        let stopping = async {
            sleep(Duration::from_millis(120)).await;
            stop.cancel();
        };
        let (answer, ()) = tokio::join!(asking, stopping);
        assert!(matches!(answer, Err(Error::Away(_))));
        assert!(begun.elapsed() < Duration::from_secs(1), "it went on for {:?}", begun.elapsed());
    }
}
