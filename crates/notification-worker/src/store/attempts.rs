//! How does an attempt begin and end, so that it can be cut off anywhere?

use super::Store;
use crate::{
    error::Error,
    notification::{Channel, DeviceToken, JobId, Message, Priority, Status, UserId},
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
    /// How soon.
    pub priority: Priority,
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

/// Where a job stands that is not being tried.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Of the newest message.
    pub generation: i32,
    /// In seconds, until the next attempt may begin.
    pub due_in: f64,
    /// From the request.
    pub priority: Priority,
    /// How many workers died while they tried it.
    pub crashes: i32,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
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
    /// Begins an attempt, if this message still may. An attempt that another worker began and did not end was cut off:
    /// a message comes again only when its worker has lost its connection. That counts as a crash. A worker that asks
    /// again because an answer got lost finds its own claim, and goes on with the same attempt.
    pub const CLAIM: &str = r#"
        with found as (
            select
                job_id as found_id,
                claimed_by is not distinct from $3 as is_mine,
                claimed_by is not null and claimed_by <> $3 as was_cut_off
            from notifications
            where job_id = $1
            for update
        )
        update notifications
        set attempts = attempts + (not is_mine)::integer,
            crashes = crashes + was_cut_off::integer,
            claimed_by = $3,
            sweep_at = now() + $4 * interval '1 second'
        from found
        where job_id = found_id
            and generation = $2
            and status in ('queued', 'retrying')
            and due_at <= now() + interval '20 milliseconds'
        returning job_id, number, user_id, channel, priority, title, body,
            attempts, failures, crashes, was_cut_off
    "#;

    /// Begins an attempt of this worker; nothing is returned if the message may not.
    pub async fn claim(&self, message: &Message, worker: &str) -> Result<Option<Begun>, Error> {
        let query = sqlx::query_as(Self::CLAIM)
            .bind(&message.job_id)
            .bind(message.generation)
            .bind(worker)
            .bind(self.lost_after);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }
    // ANCHOR_END: claim

    /// Where a job stands; nothing if it is being tried, or is no more.
    pub async fn state(&self, job_id: &JobId) -> Result<Option<State>, Error> {
        let query = sqlx::query_as(
            r#"
            select status, generation, priority, crashes, last_error,
                greatest(extract(epoch from due_at - now()), 0)::float8 as due_in
            from notifications
            where job_id = $1
                and claimed_by is null
            "#,
        )
        .bind(job_id);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }

    // ANCHOR: place
    /// Gives the job its place in its user's stream, the same one however often it is asked for. Whoever reads the
    /// stream sees it from now on.
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
        set position = coalesce(position, (select last_position from next))
        where job_id = $1
        returning position
    "#;

    /// The place of a job in its user's stream.
    pub async fn place(&self, job_id: &JobId) -> Result<i64, Error> {
        let query = sqlx::query_scalar(Self::PLACE).bind(job_id);
        self.database.within(async |db| query.fetch_one(db).await).await
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
        )
        .bind(&job.job_id)
        .bind(&job.user_id);
        self.database.within(async |db| query.fetch_one(db).await).await
    }

    /// This device has this job.
    pub async fn pushed(&self, job_id: &JobId, token: &DeviceToken) -> Result<(), Error> {
        let query = "insert into pushes (job_id, token) values ($1, $2) on conflict do nothing";
        let query = sqlx::query(query).bind(job_id).bind(token);
        self.database.within(async |db| query.execute(db).await).await.map(drop)
    }

    // ANCHOR: settle
    /// Ends an attempt, if it still is the newest. A worker that was thought dead, and comes to an end after another has
    /// begun, changes nothing any more.
    pub const SETTLE: &str = r#"
        update notifications
        set status = $3,
            claimed_by = null,
            failures = failures + $4,
            generation = generation + $4,
            last_error = coalesce($5, last_error),
            due_at = now() + $6 * interval '1 second',
            sweep_at = case $4 when 1 then now() + ($6 + $7) * interval '1 second' end
        where job_id = $1
            and attempts = $2
            and claimed_by is not null
    "#;

    /// Ends an attempt, if it still is the newest.
    pub async fn settle(&self, begun: &Begun, settlement: &Settlement) -> Result<(), Error> {
        let (status, failed, error, due_in) = match settlement {
            Settlement::Delivered(error) => (Status::Delivered, 0, error.as_deref(), 0.0),
            Settlement::Retry(error, due_in) => {
                (Status::Retrying, 1, Some(error.as_str()), *due_in)
            }
            Settlement::Dead(error) => (Status::Dead, 0, Some(error.as_str()), 0.0),
        };
        let query = sqlx::query(Self::SETTLE)
            .bind(&begun.job_id)
            .bind(begun.attempts)
            .bind(status)
            .bind(failed)
            .bind(error)
            .bind(due_in)
            .bind(self.lost_after);
        self.database.within(async |db| query.execute(db).await).await.map(drop)
    }
    // ANCHOR_END: settle
}
