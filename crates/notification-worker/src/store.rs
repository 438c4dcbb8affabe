//! How is everything kept in PostgreSQL? All SQL is here, and that of an attempt in [`attempts`].

pub mod attempts;

use std::time::Duration;

use edge::database::{Database, Limits};
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;

use crate::{
    error::Error,
    notification::{DeviceToken, JobId, Message, NewNotification, Priority, Status, UserId},
};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call, from waiting for a connection to the last row. With the broker's, a client has its answer within five
/// seconds.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { connections: 12, timeout: TIMEOUT, pause: TIMEOUT };

/// A job, as far as clients see it.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct Progress {
    status: Status,
    attempts: i32,
    last_error: Option<String>,
}

/// A notification in a stream, as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Entry {
    /// Its place in the stream, from 1, without gaps as long as nothing is forgotten.
    pub seq: i64,
    /// The job.
    pub job_id: JobId,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

/// How to publish a job again.
type Publish = (Message, Priority);
type PublishRow = (JobId, UserId, i32, Priority);

fn publish((job_id, user_id, generation, priority): PublishRow) -> Publish {
    (Message { job_id, user_id, generation, alone: false }, priority)
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    /// In seconds, how long nobody may hear of a job before the sweep takes its message for lost.
    lost_after: f64,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, lost_after: f64) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url, LIMITS)?, lost_after })
    }

    // ANCHOR: record
    /// Records a job; nothing is returned if it is known. The primary key decides: of two calls at once one waits for
    /// the other.
    pub const RECORD: &str = r#"
        insert into notifications (job_id, user_id, channel, priority, title, body, sweep_at)
        values ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second')
        on conflict (job_id) do nothing
        returning number
    "#;

    /// Records a job before it is published; whether it is new.
    pub async fn record(&self, new: &NewNotification) -> Result<bool, Error> {
        let query = sqlx::query_scalar(Self::RECORD)
            .bind(&new.job_id)
            .bind(&new.user_id)
            .bind(new.channel)
            .bind(new.priority)
            .bind(&new.title)
            .bind(&new.body)
            .bind(self.lost_after);
        let number: Option<i64> =
            self.database.within(async |db| query.fetch_optional(db).await).await?;
        Ok(number.is_some())
    }
    // ANCHOR_END: record

    /// Another call with a known `job_id`: from here on the first one cannot take the job back. Whose it is, and whether
    /// a worker has begun it, so that the broker has it for certain. Nothing if it has just been taken back.
    pub async fn promise(&self, job_id: &JobId) -> Result<Option<(UserId, bool)>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set promised = true
            where job_id = $1
            returning user_id, attempts > 0
            "#,
        )
        .bind(job_id);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }

    /// Takes back a job that the broker did not take; whether that was possible. It is not, once a worker has begun,
    /// or another call was told that it is accepted: then the broker has it after all.
    pub async fn withdraw(&self, job_id: &JobId) -> Result<bool, Error> {
        let query = sqlx::query(
            r#"
            delete from notifications
            where job_id = $1
                and attempts = 0
                and not promised
            "#,
        )
        .bind(job_id);
        let deleted = self.database.within(async |db| query.execute(db).await).await?;
        Ok(deleted.rows_affected() > 0)
    }

    // ANCHOR: take_overdue
    /// Jobs of which nobody has heard for too long: the broker has lost them, or buried them. Each is put off before it
    /// is published, so several sweeps share them, and those that a full queue refuses do not stand in front of the
    /// others for ever. Each time it is put off for longer: perhaps it only waits in a long queue.
    pub async fn take_overdue(&self, limit: i64) -> Result<Vec<Publish>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set sweep_at = now() + greatest($2 * interval '1 second', now() - due_at)
            where job_id in (
                select job_id
                from notifications
                where sweep_at < now()
                order by sweep_at
                limit $1
                for update skip locked
            )
            returning job_id, user_id, generation, priority
            "#,
        )
        .bind(limit)
        .bind(self.lost_after);
        let rows = self.database.within(async |db| query.fetch_all(db).await).await?;
        Ok(rows.into_iter().map(publish).collect())
    }
    // ANCHOR_END: take_overdue

    /// Where a job stands.
    pub async fn progress(&self, job_id: &JobId) -> Result<Option<Progress>, Error> {
        let query = sqlx::query_as(
            "select status, attempts, last_error from notifications where job_id = $1",
        )
        .bind(job_id);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }

    /// Makes a dead job a queued one, of a new generation that has all its attempts before it. If its caller does not
    /// come to publishing it, the sweep does, soon.
    pub async fn revive(&self, job_id: &JobId) -> Result<Option<Publish>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set status = 'queued', generation = generation + 1, failures = 0, crashes = 0,
                due_at = now(), sweep_at = now() + interval '10 seconds'
            where job_id = $1
                and status = 'dead'
            returning job_id, user_id, generation, priority
            "#,
        )
        .bind(job_id);
        let row = self.database.within(async |db| query.fetch_optional(db).await).await?;
        Ok(row.map(publish))
    }

    // ANCHOR: forget
    /// Deletes up to `limit` jobs that are older than this and not under way; how many there were. In pieces, so that
    /// no statement takes long. Partitions by month could be dropped at once, but then the primary key had to hold the
    /// month, and a job could exist once in each.
    pub async fn forget(&self, days: i32, limit: i64) -> Result<u64, Error> {
        let query = sqlx::query(
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
        .bind(limit);
        let deleted = self.database.within(async |db| query.execute(db).await).await?;
        Ok(deleted.rows_affected())
    }
    // ANCHOR_END: forget

    // ANCHOR: add_device
    /// Adds a device. It is one phone, so it has one user: whoever logs in last.
    pub async fn add_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        let query = sqlx::query(
            r#"
            insert into devices (token, user_id)
            values ($1, $2)
            on conflict (token) do update
            set user_id = excluded.user_id
            "#,
        )
        .bind(token)
        .bind(user);
        self.database.within(async |db| query.execute(db).await).await.map(drop)
    }
    // ANCHOR_END: add_device

    /// Removes a device, if it is this user's.
    pub async fn remove_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        let query = sqlx::query("delete from devices where token = $1 and user_id = $2");
        let query = query.bind(token).bind(user);
        self.database.within(async |db| query.execute(db).await).await.map(drop)
    }

    // ANCHOR: stream_after
    /// What is in the stream after this place, in its order.
    pub async fn stream_after(
        &self,
        user: &UserId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<Entry>, Error> {
        let query = sqlx::query_as(
            r#"
            select position as seq, job_id, title, body
            from notifications
            where user_id = $1
                and position > $2
            order by position
            limit $3
            "#,
        )
        .bind(user)
        .bind(seq)
        .bind(limit);
        self.database.within(async |db| query.fetch_all(db).await).await
    }
    // ANCHOR_END: stream_after

    // ANCHOR: members
    /// Says that this worker lives; returns the names of all that do, by the database's clock.
    pub async fn beat(&self, me: &str, lease_seconds: f64) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar(
            r#"
            with beat as (
                insert into workers (name)
                values ($1)
                on conflict (name) do update
                set seen_at = now()
            )
            select name
            from workers
            where seen_at > now() - $2 * interval '1 second'
            union
            select $1
            order by name
            "#,
        )
        .bind(me)
        .bind(lease_seconds);
        self.database.within(async |db| query.fetch_all(db).await).await
    }
    // ANCHOR_END: members

    /// Says that this worker leaves, and forgets those that have not been seen for long.
    pub async fn leave(&self, me: &str) -> Result<(), Error> {
        let query = "delete from workers where name = $1 or seen_at < now() - interval '1 day'";
        let query = sqlx::query(query).bind(me);
        self.database.within(async |db| query.execute(db).await).await.map(drop)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
