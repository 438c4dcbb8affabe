//! How does an attempt begin and end, so that it can be cut off anywhere? And how is a stream read?

use serde::{Deserialize, Serialize};

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
    /// To whom.
    pub user_id: UserId,
    /// Its number among the user's.
    pub seq: i64,
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

/// Where a job stands, as a worker sees it.
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
    /// Why attempts failed, the first first.
    pub reasons: Vec<String>,
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

/// A notification in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Entry {
    /// Its place in the stream. Places rise; a gap in them may be one that is never filled.
    pub position: i64,
    /// Its number among the user's, in the order in which they were accepted.
    pub seq: i64,
    /// The job.
    pub job_id: JobId,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

impl Store {
    // ANCHOR: claim
    /// Begins an attempt, if this message still may. An attempt that another worker began and did not end was cut off:
    /// a message comes again only when its worker has lost its connection. That counts as a crash. A worker that asks
    /// again because an answer got lost finds its own claim, and goes on with the same attempt.
    pub const CLAIM: &str = r#"
        with found as (
            select
                job_id,
                claimed_by is not distinct from $3 as is_mine,
                claimed_by is not null and claimed_by <> $3 as was_cut_off
            from notifications
            where job_id = $1
            for update
        )
        update notifications
        set
            attempts = attempts + (not is_mine)::integer,
            crashes = crashes + was_cut_off::integer,
            claimed_by = $3,
            confirmed = true,
            sweep_at = now() + $4 * interval '1 second'
        from found
        where notifications.job_id = found.job_id
            and generation = $2
            and status in ('queued', 'retrying')
            and due_at <= now() + interval '20 milliseconds'
        returning
            notifications.job_id,
            user_id,
            seq,
            channel,
            priority,
            title,
            body,
            attempts,
            failures,
            crashes,
            was_cut_off
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

    /// Where a job stands, if there is one.
    pub async fn state(&self, job_id: &JobId) -> Result<Option<State>, Error> {
        let query = sqlx::query_as(
            r#"
            select
                status,
                generation,
                greatest(extract(epoch from due_at - now()), 0)::float8 as due_in,
                priority,
                crashes,
                array(
                    select error
                    from failures
                    where failures.job_id = notifications.job_id
                    order by attempt
                ) as reasons
            from notifications
            where job_id = $1
            "#,
        )
        .bind(job_id);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }

    // ANCHOR: place
    /// Gives the job its place in its user's stream, the same one however often it is asked for. Whoever reads the
    /// stream sees it from now on.
    pub const PLACE: &str = r#"
        with numbered as (
            update users
            set last_position = last_position + 1
            where user_id = $2
                and exists (
                    select
                    from notifications
                    where job_id = $1
                        and position is null
                )
            returning last_position
        )
        update notifications
        set position = coalesce(position, (select last_position from numbered))
        where job_id = $1
        returning position
    "#;

    /// The place of a job in its user's stream.
    pub async fn place(&self, job_id: &JobId, user: &UserId) -> Result<i64, Error> {
        let query = sqlx::query_scalar(Self::PLACE).bind(job_id).bind(user);
        self.database.within(async |db| query.fetch_one(db).await).await
    }
    // ANCHOR_END: place

    /// The devices of a user that do not have this job yet, and whether any has.
    pub async fn devices_left(
        &self,
        job_id: &JobId,
        user: &UserId,
    ) -> Result<(Vec<DeviceToken>, bool), Error> {
        let query = sqlx::query_as(
            r#"
            select
                array(
                    select token
                    from devices
                    where user_id = $2
                        and not exists (
                            select
                            from pushes
                            where pushes.job_id = $1
                                and pushes.token = devices.token
                        )
                    order by created_at
                ),
                exists (select from pushes where job_id = $1)
            "#,
        )
        .bind(job_id)
        .bind(user);
        self.database.within(async |db| query.fetch_one(db).await).await
    }

    /// This device has this job.
    pub async fn pushed(&self, job_id: &JobId, token: &DeviceToken) -> Result<(), Error> {
        let query = sqlx::query(
            "insert into pushes (job_id, token) values ($1, $2) on conflict do nothing",
        )
        .bind(job_id)
        .bind(token);
        self.database.within(async |db| query.execute(db).await).await?;
        Ok(())
    }

    // ANCHOR: settle
    /// Ends an attempt; whether it still was the newest. A worker that was thought dead, and comes to an end after
    /// another has begun, changes nothing any more. Asked again because an answer got lost, it says the same.
    pub const SETTLE: &str = r#"
        with settled as (
            update notifications
            set
                status = $3,
                claimed_by = null,
                failures = failures + $4,
                generation = generation + $4,
                last_error = coalesce($5, last_error),
                due_at = now() + $6 * interval '1 second',
                sweep_at = case when $4 = 1 then now() + ($6 + $7) * interval '1 second' end
            where job_id = $1
                and attempts = $2
                and claimed_by is not null
            returning job_id, attempts
        ),
        failed as (
            insert into failures (job_id, attempt, error)
            select job_id, attempts, $5
            from settled
            where $5 is not null
        )
        select exists (select from settled)
            or exists (
                select
                from notifications
                where job_id = $1
                    and attempts = $2
                    and claimed_by is null
            )
    "#;

    /// Ends an attempt; whether it still was the newest.
    pub async fn settle(&self, begun: &Begun, settlement: &Settlement) -> Result<bool, Error> {
        let (status, failed, error, due_in) = match settlement {
            Settlement::Delivered(error) => (Status::Delivered, 0, error.as_deref(), 0.0),
            Settlement::Retry(error, due_in) => {
                (Status::Retrying, 1, Some(error.as_str()), *due_in)
            }
            Settlement::Dead(error) => (Status::Dead, 0, Some(error.as_str()), 0.0),
        };
        let query = sqlx::query_scalar(Self::SETTLE)
            .bind(&begun.job_id)
            .bind(begun.attempts)
            .bind(status)
            .bind(failed)
            .bind(error)
            .bind(due_in)
            .bind(self.lost_after);
        self.database.within(async |db| query.fetch_one(db).await).await
    }
    // ANCHOR_END: settle

    // ANCHOR: stream
    /// What is in the stream after this place, in its order.
    pub async fn stream_after(
        &self,
        user: &UserId,
        position: i64,
        limit: i64,
    ) -> Result<Vec<Entry>, Error> {
        let query = sqlx::query_as(
            r#"
            select position, seq, job_id, title, body
            from notifications
            where user_id = $1
                and position > $2
            order by position
            limit $3
            "#,
        )
        .bind(user)
        .bind(position)
        .bind(limit);
        self.database.within(async |db| query.fetch_all(db).await).await
    }

    /// The place of the notification with this number: the client has seen the stream up to there. One that had to be
    /// retried stands behind others with a higher number, and is not missed.
    ///
    /// If no place has this number (0, or a push's), it is the one before the first with a higher.
    pub async fn position_of(&self, user: &UserId, seq: i64) -> Result<i64, Error> {
        let query = sqlx::query_scalar(
            r#"
            select coalesce(
                (select position from notifications where user_id = $1 and seq = $2),
                (select min(position) - 1 from notifications where user_id = $1 and seq > $2),
                (select last_position from users where user_id = $1),
                0
            )
            "#,
        )
        .bind(user)
        .bind(seq);
        self.database.within(async |db| query.fetch_one(db).await).await
    }
    // ANCHOR_END: stream
}
