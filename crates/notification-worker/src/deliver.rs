//! Act two, deliver. What does a worker do with one message?
//!
//! Claim, attempt, settle, acknowledge. The worker may die between any two: the message then comes again, and whoever
//! gets it finds in the database how far it came, and does the rest.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    notification::{Channel, Message},
    push::Refusal,
    retry::{CRASHES, Verdict, verdict},
    store::attempts::{Begun, Settlement},
    worker::Worker,
};

/// While a server is away, between two tries: twice as long each time, from the first to the last.
const WAITS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

impl Worker {
    // ANCHOR: deliver
    /// Deals with a message, and only then acknowledges it. The error is that we are told to stop before the job has
    /// begun, or that the link is lost; then the message comes again.
    pub async fn deliver(&self, message: &Delivery, stop: &CancellationToken) -> Result<(), Error> {
        let settled = match serde_json::from_slice(&message.data) {
            Ok(job) => self.deliver_job(&job, stop).await,
            Err(no_message) => Err(Error::Internal(no_message.into())),
        };
        // Rejected, it goes to the dead-letter queue.
        let told = match settled {
            Ok(Some(Settlement::Dead(_))) => message.reject(BasicRejectOptions::default()).await,
            Ok(_) => message.ack(BasicAckOptions::default()).await,
            Err(error @ Error::Away(_)) => return Err(error),
            // No code of ours wrote it, or not even its failure can be written down; then the sweep finds the job. It
            // must not block its lane.
            Err(error) => {
                tracing::error!(?error, "buried a message");
                message.reject(BasicRejectOptions::default()).await
            }
        };
        Ok(told.map(drop)?)
    }

    /// How the job's attempt ended; nothing if none is due: it is settled, or its time comes later.
    async fn deliver_job(
        &self,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<Option<Settlement>, Error> {
        // Before the claim: a job that waits here has not begun, and does not die with a suspect.
        let places = if message.alone { self.concurrency } else { 1 };
        let places = stop.run_until_cancelled(self.places.acquire_many(places.into())).await;
        let Some(Ok(_places)) = places else { return Err(Error::Away("this worker stops")) };
        // From here on it is not stopped: whether the job is claimed is unknown until the database answers, and who
        // gets a job that is claimed counts a crash.
        let claimed = patiently(|| self.store.claim(&message.job_id, &self.name)).await?;
        let Some(begun) = claimed else { return Ok(None) };
        let settlement = match verdict(begun.was_cut_off, begun.crashes) {
            Verdict::Bury => Settlement::Dead(format!("{CRASHES} workers died of it")),
            Verdict::Wait => self.retry(&begun, "its worker died", None),
            Verdict::Try => self.attempt(&begun).await,
        };
        patiently(|| self.store.settle(&begun, &settlement)).await?;
        Ok(Some(settlement))
    }

    /// One attempt. A panic in it, ours or a library's, and a statement that fails are failures like any other: they
    /// are tried again, and after enough of them the job is dead. Neither takes the queue with it.
    async fn attempt(&self, job: &Begun) -> Settlement {
        let attempt = async {
            match job.channel {
                Channel::Websocket => self.to_sockets(job).await,
                Channel::Push => self.to_devices(job).await,
            }
        };
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(Ok(settlement)) => settlement,
            Ok(Err(error)) => {
                tracing::error!(job = job.job_id.as_str(), ?error, "an attempt failed");
                self.retry(job, &error.to_string(), None)
            }
            Err(_panic) => self.retry(job, "the attempt panicked", None),
        }
    }
    // ANCHOR_END: deliver

    // ANCHOR: to_sockets
    /// The place in the stream is what delivers: an open socket is told to look, and one that opens later reads it.
    async fn to_sockets(&self, job: &Begun) -> Result<Settlement, Error> {
        patiently(|| self.store.place(&job.job_id)).await?;
        self.live.tell(&job.user_id).await;
        Ok(Settlement::Delivered(None))
    }
    // ANCHOR_END: to_sockets

    // ANCHOR: to_devices
    /// Between FCM's answer and our record of it we may die, and then the device gets it twice: FCM takes no
    /// idempotency key, so at least once is all that can be had. The app can tell by the `job_id`.
    async fn to_devices(&self, job: &Begun) -> Result<Settlement, Error> {
        let Some(fcm) = &self.fcm else {
            return Ok(Settlement::Dead("push is not set up: --fcm-credentials".to_owned()));
        };
        let (devices, mut any) = patiently(|| self.store.devices_left(job)).await?;
        let (mut later, mut invalid) = (None, None);
        for device in devices {
            match fcm.send(&device, job).await {
                Ok(()) => {
                    patiently(|| self.store.pushed(&job.job_id, &device)).await?;
                    any = true;
                }
                Err(Refusal::Unregistered) => {
                    patiently(|| self.store.remove_device(&job.user_id, &device)).await?;
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
/// Asks until the server behind it answers. What was done outside has to be written down, also by a slow
/// database: a message that is given back would only come again, out of its place, and ring the phone again. A worker that
/// has to go on drops this: see `consume`.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut wait = WAITS[0];
    loop {
        match ask().await {
            Err(error @ Error::Away(_)) => {
                tracing::debug!(%error, "a delivery waits");
                sleep(wait).await;
                wait = (wait * 2).min(WAITS[1]);
            }
            answer => return answer,
        }
    }
}
// ANCHOR_END: patiently

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    const AWAY: Error = Error::Away("it is away");

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_until_it_answers() {
        let asked = Cell::new(0);
        let answer = patiently(|| {
            asked.set(asked.get() + 1);
            ready(if asked.get() < 3 { Err(AWAY) } else { Ok("here") })
        });
        assert_eq!(answer.await.ok(), Some("here"));
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn it_is_not_asked_all_the_time() {
        let asked = Cell::new(0);
        let answer = patiently(|| {
            asked.set(asked.get() + 1);
            ready(if asked.get() < 100 { Err(AWAY) } else { Ok(()) })
        });
        // At once, and after 50, 150 and 350 milliseconds.
        let over = tokio::time::timeout(Duration::from_millis(600), answer).await;
        assert!(over.is_err() && asked.get() <= 4, "asked {} times", asked.get());
    }

    #[tokio::test]
    async fn a_statement_that_fails_is_not_asked_again() {
        let asked = Cell::new(0);
        let answer = patiently(|| {
            asked.set(asked.get() + 1);
            ready(Err::<(), _>(Error::Internal("it fails".into())))
        });
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
        assert!(matches!(answer, Ok(Err(Error::Internal(_)))), "asked {} times", asked.get());
        assert_eq!(asked.get(), 1);
    }
}
