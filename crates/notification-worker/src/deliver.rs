//! What does a worker do with one message?
//!
//! Claim, attempt, settle, follow up, acknowledge. The worker may die between any two: the message then comes
//! again, and whoever gets it finds in the database how far it came, and does the rest.

use std::{sync::Arc, time::Duration};

use tokio::sync::RwLock;

use crate::{
    backoff::Backoff,
    broker::Broker,
    error::Error,
    live::Live,
    notification::{Channel, Message, Priority, Status},
    push::{Fcm, Refusal},
    store::{Begun, Entry, Settlement, Store},
};

/// A job that was being tried when its worker died, so many times, is taken for the cause.
pub const CRASHES: i32 = 5;
/// From so many on it is suspected, and tried alone: with it others were in flight, who are suspected too.
const SUSPECT: i32 = 2;

/// What a claim leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// An attempt.
    Try,
    /// It waits, others go first, and then it is tried alone.
    Wait,
    /// The dead-letter queue.
    Bury,
}

// ANCHOR: verdict
/// What becomes of a job that was claimed. Its last attempt may have been cut off, since its worker died; and so
/// may others before.
fn verdict(was_cut_off: bool, crashes: i32) -> Verdict {
    match (was_cut_off, crashes) {
        (true, CRASHES..) => Verdict::Bury,
        // It may be the cause.
        (true, SUSPECT..) => Verdict::Wait,
        // Most who die do not die of the job. It is tried again at once, in its place in line. And whose last
        // attempt came to its end has been waiting already.
        _ => Verdict::Try,
    }
}
// ANCHOR_END: verdict

/// Delivers.
pub struct Deliverer {
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
    /// Held by many who deliver, or by one.
    pub quarantine: RwLock<()>,
    /// Notifications that a user may get in a minute, those of high priority aside; 0: any number.
    pub quiet_limit: u32,
}

impl Deliverer {
    // ANCHOR: deliver
    /// Deals with a message. When this is done, and only then, it may be acknowledged.
    pub async fn deliver(&self, payload: &[u8], priority: Priority) -> Result<(), Error> {
        // PostgreSQL's text holds no NUL: asked for such a job, it would answer with the same error for ever.
        let message = serde_json::from_slice::<Message>(payload).ok();
        let Some(message) = message.filter(|message| !message.job_id.contains('\0')) else {
            return self.broker.bury(payload, &["no code of ours wrote this".to_owned()]).await;
        };
        if self.collapse(&message, priority).await? {
            return Ok(());
        }
        // A suspect comes by a delay queue, so it is not of the first generation.
        let is_suspect =
            message.generation > 0 && self.store.crashes(&message.job_id).await? >= SUSPECT;
        // Before the claim: whoever waits for a suspect has not begun, and does not die with it.
        let (_alone, _beside) = if is_suspect {
            (Some(self.quarantine.write().await), None)
        } else {
            (None, Some(self.quarantine.read().await))
        };
        let Some(begun) = self.store.claim(&message).await? else {
            return self.follow_up(payload, &message).await;
        };
        let settlement = match verdict(begun.was_cut_off, begun.crashes) {
            Verdict::Bury => Settlement::Dead(format!("{CRASHES} workers died of it")),
            Verdict::Wait => self.retry(&begun, "its worker died".to_owned(), None),
            Verdict::Try => self.attempt(&begun).await?,
        };
        let ours = self.store.settle(&begun, &settlement).await?;
        // If somebody else has begun in the meantime, what follows is theirs.
        if !ours || matches!(settlement, Settlement::Delivered(_)) {
            return Ok(());
        }
        self.follow_up(payload, &message).await
    }

    /// What comes after an attempt has been settled, also when the worker that settled it has died since;
    /// and what becomes of a message that is too early, or that nobody has use for.
    async fn follow_up(&self, payload: &[u8], message: &Message) -> Result<(), Error> {
        let Some(state) = self.store.state(&message.job_id).await? else {
            return self.broker.bury(payload, &["there is no such job".to_owned()]).await;
        };
        match state.status {
            Status::Queued | Status::Retrying if state.generation >= message.generation => {
                let next = Message { generation: state.generation, ..message.clone() };
                let wait = Duration::from_secs_f64(state.due_in);
                self.broker.delay(&next, state.priority, wait).await
            }
            Status::Dead if state.generation == message.generation => {
                self.broker.bury(payload, &state.reasons).await
            }
            _ => Ok(()),
        }
    }
    // ANCHOR_END: deliver

    async fn attempt(&self, job: &Begun) -> Result<Settlement, Error> {
        match job.channel {
            Channel::Websocket => self.to_sockets(job).await,
            Channel::Push => self.to_devices(job).await,
        }
    }

    // ANCHOR: to_sockets
    /// The place in the stream is what delivers: an open socket is told, and one that opens later reads it.
    /// The same place twice is shown once, so this may be done again and again.
    async fn to_sockets(&self, job: &Begun) -> Result<Settlement, Error> {
        let entry = Entry {
            position: self.store.place(&job.job_id, &job.user_id).await?,
            seq: job.seq,
            job_id: job.job_id.clone(),
            title: job.title.clone(),
            body: job.body.clone(),
        };
        Ok(match self.live.tell(&job.user_id, &entry).await {
            Ok(()) => Settlement::Delivered(None),
            Err(_) => self.retry(job, "Redis is away".to_owned(), None),
        })
    }
    // ANCHOR_END: to_sockets

    // ANCHOR: to_devices
    /// Between FCM's answer and our record of it we may die, and then the device gets it twice: FCM takes
    /// no idempotency key, so at least once is all that can be had. The app knows it by its `job_id`.
    async fn to_devices(&self, job: &Begun) -> Result<Settlement, Error> {
        let Some(fcm) = &self.fcm else {
            return Ok(Settlement::Dead("push is not set up: --fcm-credentials".to_owned()));
        };
        let (devices, mut any) = self.store.devices_left(&job.job_id, &job.user_id).await?;
        let (mut later, mut invalid) = (None, None);
        for device in devices {
            match fcm.send(&device, job).await {
                Ok(()) => {
                    self.store.pushed(&job.job_id, &device).await?;
                    any = true;
                }
                Err(Refusal::Unregistered) => {
                    self.store.remove_device(&job.user_id, &device).await?;
                    invalid.get_or_insert_with(|| "a device is not registered any more".to_owned());
                }
                Err(Refusal::Invalid(error)) => invalid = Some(error),
                Err(Refusal::Later(error, after)) => later = Some((error, after)),
            }
        }
        Ok(match (later, any) {
            (Some((error, after)), _) => self.retry(job, error, after),
            (None, true) => Settlement::Delivered(invalid),
            (None, false) => {
                Settlement::Dead(invalid.unwrap_or_else(|| "the user has no device".to_owned()))
            }
        })
    }
    // ANCHOR_END: to_devices

    /// Another attempt, later, unless there have been enough; not before the channel's own wish.
    fn retry(&self, job: &Begun, error: String, after: Option<u64>) -> Settlement {
        let failures = u16::try_from(job.failures + 1).unwrap_or(u16::MAX);
        match self.backoff.after(failures, after) {
            Some(wait) => Settlement::Retry(error, wait.as_secs_f64()),
            None => Settlement::Dead(format!("gave up after {failures} failures: {error}")),
        }
    }

    /// Beyond the quiet limit a notification is not shown; a summary stands for it. Whether that is so.
    async fn collapse(&self, message: &Message, priority: Priority) -> Result<bool, Error> {
        if self.quiet_limit == 0 || priority == Priority::High || message.generation > 0 {
            return Ok(false);
        }
        let count = self.store.count_for_quiet(&message.user_id).await;
        let count = u32::try_from(count?).unwrap_or(0);
        if count <= self.quiet_limit {
            return Ok(false);
        }
        let Some((summary, due_in)) = self.store.collapse(&message.job_id).await? else {
            return Ok(false);
        };
        let wait = Duration::from_secs_f64(due_in);
        // Once for each that is collapsed, and all but one find nothing to do.
        self.broker.delay(&summary, Priority::High, wait).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_suspected_only_when_workers_keep_dying_over_it() {
        assert_eq!(verdict(false, 0), Verdict::Try);
        // It was in flight beside the cause, or the machine was switched off.
        assert_eq!(verdict(true, 1), Verdict::Try);
        for crashes in SUSPECT..CRASHES {
            assert_eq!(verdict(true, crashes), Verdict::Wait, "{crashes} crashes");
        }
        assert_eq!(verdict(true, CRASHES), Verdict::Bury);
        assert_eq!(verdict(true, CRASHES + 1), Verdict::Bury);
    }

    #[test]
    fn a_suspect_that_has_waited_gets_its_attempt() {
        // Or it would wait again and again, and never be tried.
        for crashes in 0..CRASHES {
            assert_eq!(verdict(false, crashes), Verdict::Try, "{crashes} crashes");
        }
    }
}
