//! How does an attempt begin and end, so that it can be cut off anywhere?

use super::Store;
use crate::{
    error::Error,
    ids::UserId,
    notification::{Channel, Message, Priority, Status},
};

/// An attempt that has begun, and all that it needs to know.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Begun {
    /// The job.
    pub job_id: String,
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
    /// Attempts before it that began and never ended: their workers died.
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
    /// Why attempts failed, the first first.
    pub reasons: Vec<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// Well. Some devices may have failed for good.
    Delivered(Option<String>),
    /// Not well, and the next is due in so many seconds.
    Retry(String, f64),
    /// Not well, and there will be no other.
    Dead(String),
}

impl Store {
    // ANCHOR: claim
    /// Begins an attempt, if this message still may. An attempt that is in flight already was cut off, since
    /// a message comes again only when its worker has lost its connection: that counts as a crash.
    pub const CLAIM: &str = r#"
        with found as (
            select job_id, in_flight
            from notifications
            where job_id = $1
            for update
        )
        update notifications
        set
            attempts = attempts + 1,
            crashes = crashes + found.in_flight::integer,
            in_flight = true,
            confirmed = true
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
            found.in_flight as was_cut_off
    "#;

    /// Begins an attempt; nothing is returned if the message may not.
    pub async fn claim(&self, message: &Message) -> Result<Option<Begun>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(Self::CLAIM)
                    .bind(&message.job_id)
                    .bind(message.generation)
                    .fetch_optional(connection)
                    .await
            })
            .await
    }
    // ANCHOR_END: claim

    /// How many workers have died over a job.
    pub async fn crashes(&self, job_id: &str) -> Result<i32, Error> {
        let crashes: Option<i32> = self
            .database
            .within(async |connection| {
                sqlx::query_scalar("select crashes from notifications where job_id = $1")
                    .bind(job_id)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        Ok(crashes.unwrap_or(0))
    }

    /// Where a job stands, if there is one.
    pub async fn state(&self, job_id: &str) -> Result<Option<State>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select
                        status,
                        generation,
                        greatest(extract(epoch from due_at - now()), 0)::float8 as due_in,
                        priority,
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
                .bind(job_id)
                .fetch_optional(connection)
                .await
            })
            .await
    }

    // ANCHOR: place
    /// Gives the job its place in its user's stream, the same one however often it is asked for. Whoever
    /// reads the stream sees it from now on.
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
    pub async fn place(&self, job_id: &str, user: &UserId) -> Result<i64, Error> {
        self.database
            .within(async |connection| {
                let query = sqlx::query_scalar(Self::PLACE).bind(job_id).bind(user);
                query.fetch_one(connection).await
            })
            .await
    }
    // ANCHOR_END: place

    // ANCHOR: settle
    /// Ends an attempt; whether it still was the newest. A worker that was thought dead, and comes to an end
    /// after another has begun, changes nothing any more.
    pub const SETTLE: &str = r#"
        with settled as (
            update notifications
            set
                status = $3,
                in_flight = false,
                failures = failures + $4,
                generation = generation + $4,
                last_error = coalesce($5, last_error),
                due_at = now() + $6 * interval '1 second'
            where job_id = $1
                and attempts = $2
                and in_flight
            returning job_id, attempts
        ),
        failed as (
            insert into failures (job_id, attempt, error)
            select job_id, attempts, $5
            from settled
            where $5 is not null
        )
        select count(*) from settled
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
        let settled: i64 = self
            .database
            .within(async |connection| {
                sqlx::query_scalar(Self::SETTLE)
                    .bind(&begun.job_id)
                    .bind(begun.attempts)
                    .bind(status)
                    .bind(failed)
                    .bind(error)
                    .bind(due_in)
                    .fetch_one(connection)
                    .await
            })
            .await?;
        Ok(settled == 1)
    }
    // ANCHOR_END: settle
}
