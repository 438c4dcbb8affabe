//! How does an attempt begin and end, so that it can be cut off anywhere?

use serde::Serialize;

use super::Store;
use crate::{
    error::Error,
    notification::{Channel, DeviceToken, JobId, Status, UserId},
};

/// An attempt that has begun, and all that it needs to know.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Begun {
    /// The job.
    pub job_id: JobId,
    /// Rises in the order in which jobs were accepted.
    pub number: i64,
    /// To whom.
    pub user_id: UserId,
    /// How.
    pub channel: Channel,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
    /// Its fencing token.
    pub attempts: i32,
    /// Failures before it.
    pub failures: i32,
    /// Attempts before it that began and never ended, because their workers died.
    pub crashes: i32,
    /// Whether the last one before it was of those.
    pub was_cut_off: bool,
}

/// A job, as far as clients see it.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct Progress {
    status: Status,
    attempts: i32,
    last_error: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// It succeeded. Some devices may have failed for good.
    Delivered(Option<String>),
    /// It failed, and the next is due in so many seconds.
    Retry(String, f64),
    /// It failed, and there will be no other.
    Dead(String),
}

impl Store {
    // ANCHOR: claim
    /// Begins an attempt, if one is due. An attempt that another worker began and did not end was cut off:
    /// a message comes again only when its worker has died or lost its connection, since one that hands over its shard
    /// first ends what it has begun. That counts as a crash. A worker that asks again because an answer got lost finds its
    /// own claim, and goes on with the same attempt.
    pub const CLAIM: &str = r#"
        with found as (
            select
                job_id as found_id,
                claimed_by is not distinct from $2 as is_mine,
                claimed_by is not null and claimed_by <> $2 as was_cut_off
            from notifications
            where job_id = $1
            for update
        )
        update notifications
        set attempts = attempts + (not is_mine)::integer,
            crashes = crashes + was_cut_off::integer,
            claimed_by = $2,
            sweep_at = now() + interval '1 hour'
        from found
        where job_id = found_id
            and status = 'queued'
            and due_at <= now() + interval '20 milliseconds'
        returning job_id, number, user_id, channel, title, body,
            attempts, failures, crashes, was_cut_off
    "#;

    /// Begins an attempt of this worker; nothing is returned if none is due.
    pub async fn claim(&self, job_id: &JobId, worker: &str) -> Result<Option<Begun>, Error> {
        let query = sqlx::query_as(Self::CLAIM).bind(job_id).bind(worker);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }
    // ANCHOR_END: claim

    /// Where a job stands.
    pub async fn progress(&self, job_id: &JobId) -> Result<Option<Progress>, Error> {
        let query = "select status, attempts, last_error from notifications where job_id = $1";
        let query = sqlx::query_as(query).bind(job_id);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }

    // ANCHOR: place
    /// Gives the job its place in its user's stream, once, however often it is asked to. Whoever reads the stream sees
    /// it from now on.
    pub const PLACE: &str = r#"
        with next as (
            insert into streams (user_id, last_position)
            select user_id, 1
            from notifications
            where job_id = $1
                and position is null
            on conflict (user_id) do update
            set last_position = streams.last_position + 1
            returning last_position
        )
        update notifications
        set position = last_position
        from next
        where job_id = $1
            and position is null
    "#;

    /// Gives the job its place in its user's stream.
    pub async fn place(&self, job_id: &JobId) -> Result<(), Error> {
        self.database.execute(sqlx::query(Self::PLACE).bind(job_id)).await.map(drop)
    }
    // ANCHOR_END: place

    /// The devices of a user that do not have this job yet, and whether any has.
    pub async fn devices_left(&self, job: &Begun) -> Result<(Vec<DeviceToken>, bool), Error> {
        let query = sqlx::query_as(
            r#"
            select
                array(
                    select token
                    from devices
                    where user_id = $2
                        and token not in (select token from pushes where job_id = $1)
                    order by created_at
                ),
                exists (select from pushes where job_id = $1)
            "#,
        );
        let query = query.bind(&job.job_id).bind(&job.user_id);
        self.database.within(async |db| query.fetch_one(db).await).await
    }

    /// This device has this job.
    pub async fn pushed(&self, job_id: &JobId, token: &DeviceToken) -> Result<(), Error> {
        let query = "insert into pushes (job_id, token) values ($1, $2) on conflict do nothing";
        self.database.execute(sqlx::query(query).bind(job_id).bind(token)).await.map(drop)
    }

    // ANCHOR: settle
    /// Ends an attempt, if it still is the newest. A worker that was thought dead, and comes to an end after another has
    /// begun, changes nothing any more. If there will be another attempt, the sweep publishes the job when it is due:
    /// whoever dies after this has nothing left to do.
    pub const SETTLE: &str = r#"
        update notifications
        set status = $3,
            claimed_by = null,
            failures = failures + $4,
            last_error = coalesce($5, last_error),
            due_at = coalesce(now() + $6 * interval '1 second', due_at),
            sweep_at = now() + $6 * interval '1 second'
        where job_id = $1
            and attempts = $2
            and claimed_by is not null
    "#;

    /// Ends an attempt, if it still is the newest.
    pub async fn settle(&self, begun: &Begun, settlement: &Settlement) -> Result<(), Error> {
        let (status, failed, error, due_in) = match settlement {
            Settlement::Delivered(error) => (Status::Delivered, 0, error.as_ref(), None),
            Settlement::Retry(error, due_in) => (Status::Queued, 1, Some(error), Some(*due_in)),
            Settlement::Dead(error) => (Status::Dead, 0, Some(error), None),
        };
        let query = sqlx::query(Self::SETTLE)
            .bind(&begun.job_id)
            .bind(begun.attempts)
            .bind(status)
            .bind(failed)
            .bind(error)
            .bind(due_in);
        self.database.execute(query).await.map(drop)
    }
    // ANCHOR_END: settle
}
