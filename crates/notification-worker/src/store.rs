//! How is everything kept in PostgreSQL? All SQL is here and in the files below.

mod attempts;
mod devices;
mod members;
mod quiet;
mod streams;

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::migrate::Migrator;

pub use self::{
    attempts::{Begun, Settlement, State},
    streams::Entry,
};
use crate::{
    error::Error,
    ids::{JobId, UserId},
    notification::{Message, NewNotification, Priority, Status},
};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call. With the broker's, a client has its answer within five seconds.
pub const TIMEOUT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { connections: 12, timeout: TIMEOUT, pause: TIMEOUT };

/// A job, as far as clients see it.
#[derive(Debug, sqlx::FromRow)]
pub struct Progress {
    /// Where it stands.
    pub status: Status,
    /// Attempts that have begun.
    pub attempts: i32,
    /// Why the last one that failed did.
    pub last_error: Option<String>,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url, LIMITS)? })
    }

    // ANCHOR: record
    /// Records a job, with the next number of its user; nothing is returned if the job is known. The primary
    /// key decides: of two calls at once one waits for the other. A number that a known job did not
    /// need is lost, and nobody minds: numbers rise, gaps mean nothing.
    pub const RECORD: &str = r#"
        with numbered as (
            insert into users (user_id, last_seq)
            values ($2, 1)
            on conflict (user_id) do update
            set last_seq = users.last_seq + 1
            returning last_seq
        )
        insert into notifications (job_id, user_id, seq, channel, priority, title, body)
        select $1, $2, last_seq, $3, $4, $5, $6
        from numbered
        on conflict (job_id) do nothing
        returning seq
    "#;

    /// Records a job before it is published; whether it is new.
    pub async fn record(&self, new: &NewNotification) -> Result<bool, Error> {
        let seq: Option<i64> = self
            .database
            .within(async |connection| {
                sqlx::query_scalar(Self::RECORD)
                    .bind(&new.job_id)
                    .bind(&new.user_id)
                    .bind(new.channel)
                    .bind(new.priority)
                    .bind(&new.title)
                    .bind(&new.body)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        Ok(seq.is_some())
    }
    // ANCHOR_END: record

    /// Takes back a job that the broker did not take; whether that was possible. It is not, once a worker
    /// has begun: then the broker had it after all.
    pub async fn withdraw(&self, job_id: &JobId) -> Result<bool, Error> {
        let deleted = self
            .database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    delete from notifications
                    where job_id = $1
                        and attempts = 0
                        and not confirmed
                        and status = 'queued'
                    "#,
                )
                .bind(job_id)
                .execute(connection)
                .await
            })
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// What the sweep asks for: whether the broker has confirmed a job, and how to publish it again.
    pub async fn known(&self, job_id: &JobId) -> Result<Option<(bool, Message, Priority)>, Error> {
        let row: Option<(bool, String, UserId, i32, Priority)> = self
            .database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select confirmed, job_id, user_id, generation, priority
                    from notifications
                    where job_id = $1
                    "#,
                )
                .bind(job_id)
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(|(confirmed, job_id, user_id, generation, priority)| {
            (confirmed, Message { job_id, user_id, generation }, priority)
        }))
    }

    /// The broker holds these.
    pub async fn confirm(&self, jobs: &[String]) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    update notifications
                    set confirmed = true
                    where job_id = any ($1)
                        and not confirmed
                    "#,
                )
                .bind(jobs)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Jobs that were recorded so many seconds ago, and that the broker has not been known to hold since.
    pub async fn unconfirmed(
        &self,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<(Message, Priority)>, Error> {
        let rows: Vec<(String, UserId, i32, Priority)> = self
            .database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select job_id, user_id, generation, priority
                    from notifications
                    where not confirmed
                        and created_at < now() - $1 * interval '1 second'
                    order by created_at
                    limit $2
                    "#,
                )
                .bind(seconds)
                .bind(limit)
                .fetch_all(connection)
                .await
            })
            .await?;
        let message = |(job_id, user_id, generation, priority)| {
            (Message { job_id, user_id, generation }, priority)
        };
        Ok(rows.into_iter().map(message).collect())
    }

    /// Where a job stands.
    pub async fn progress(&self, job_id: &JobId) -> Result<Option<Progress>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    "select status, attempts, last_error from notifications where job_id = $1",
                )
                .bind(job_id)
                .fetch_optional(connection)
                .await
            })
            .await
    }

    /// Makes a dead job a queued one, of a new generation that has all its attempts before it. It counts as
    /// not confirmed, so that the sweep publishes it should its caller not come to that.
    pub async fn revive(&self, job_id: &JobId) -> Result<Option<(Message, Priority)>, Error> {
        let row: Option<(String, UserId, i32, Priority)> = self
            .database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    update notifications
                    set
                        status = 'queued',
                        generation = generation + 1,
                        failures = 0,
                        crashes = 0,
                        due_at = now(),
                        confirmed = false
                    where job_id = $1
                        and status = 'dead'
                    returning job_id, user_id, generation, priority
                    "#,
                )
                .bind(job_id)
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(|(job_id, user_id, generation, priority)| {
            (Message { job_id, user_id, generation }, priority)
        }))
    }

    /// Deletes what is older than this, up to `limit`; how many there were. What is still under way stays.
    pub async fn forget(&self, days: i32, limit: i64) -> Result<u64, Error> {
        let deleted = self
            .database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    delete from notifications
                    where job_id in (
                        select job_id
                        from notifications
                        where created_at < now() - $1 * interval '1 day'
                            and status in ('delivered', 'dead')
                        order by created_at
                        limit $2
                        for update skip locked
                    )
                    "#,
                )
                .bind(days)
                .bind(limit)
                .execute(connection)
                .await
            })
            .await?;
        Ok(deleted.rows_affected())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
