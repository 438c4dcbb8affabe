//! How is everything kept in PostgreSQL? All SQL is here, and that of an attempt in [`attempts`].

pub mod attempts;

use std::time::Duration;

use edge::database::{Database, Limits};
use serde::Serialize;
use sqlx::migrate::Migrator;

use crate::{
    error::Error,
    notification::{DeviceToken, JobId, Message, NewNotification, UserId},
    retry::SUSPECT,
};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call, from waiting for a connection to the last row. With the broker's, a client has its answer within six
/// seconds.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { connections: 12, timeout: TIMEOUT, pause: TIMEOUT };

/// A notification in a stream, as a client gets it.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Entry {
    /// Its place in the stream.
    pub seq: i64,
    /// The job.
    pub job_id: JobId,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
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
    /// The primary key decides who records a job: of two calls at once one waits for the other. The second finds it, and
    /// notes that it may be told so: from then on the first cannot take the job back. If it is another user's, nothing is
    /// returned.
    pub const RECORD: &str = r#"
        insert into notifications (job_id, user_id, channel, title, body, sweep_at)
        values ($1, $2, $3, $4, $5, now() + interval '1 hour')
        on conflict (job_id) do update
        set promised = true
        where notifications.user_id = excluded.user_id
        returning not promised as is_new, attempts > 0 as has_begun
    "#;

    /// Records a job before it is published. Whether it is new, and whether a worker has begun it, so that the broker
    /// has it for certain.
    pub async fn record(&self, new: &NewNotification) -> Result<Option<(bool, bool)>, Error> {
        let query = sqlx::query_as(Self::RECORD)
            .bind(&new.job_id)
            .bind(&new.user_id)
            .bind(new.channel)
            .bind(&new.title)
            .bind(&new.body);
        self.database.within(async |db| query.fetch_optional(db).await).await
    }
    // ANCHOR_END: record

    /// Takes back a job that the broker did not take; whether that was possible. It is not, once a worker has begun,
    /// or another call may be told that it is accepted.
    pub async fn withdraw(&self, job_id: &JobId) -> Result<bool, Error> {
        let query = "delete from notifications where job_id = $1 and attempts = 0 and not promised";
        Ok(self.database.execute(sqlx::query(query).bind(job_id)).await? > 0)
    }

    // ANCHOR: take_due
    /// Jobs that have to be published: their next attempt is due, or nobody has heard of them for so long that the
    /// broker must have lost them. Each is put off before it is published, so several sweeps share them, and those that
    /// a full queue refuses do not stand in front of the others for ever. Each time it is put off for longer: perhaps it
    /// only waits in a long queue.
    pub async fn take_due(&self, limit: i64) -> Result<Vec<Message>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set sweep_at = now() + greatest(interval '30 seconds', now() - due_at)
            where job_id in (
                select job_id
                from notifications
                where sweep_at < now()
                order by sweep_at
                limit $1
                for update skip locked
            )
            returning job_id, user_id, crashes >= $2 as alone
            "#,
        );
        let query = query.bind(limit).bind(SUSPECT);
        self.database.within(async |db| query.fetch_all(db).await).await
    }
    // ANCHOR_END: take_due

    // ANCHOR: forget
    /// Deletes up to `limit` jobs that are a week old and not under way; how many there were. In pieces, so that no
    /// statement takes long. Partitions by month could be dropped at once, but then the primary key had to hold the
    /// month, and a job could exist once in each.
    pub async fn forget(&self, limit: i64) -> Result<u64, Error> {
        let query = sqlx::query(
            r#"
            delete from notifications
            where job_id in (
                select job_id
                from notifications
                where created_at < now() - interval '7 days'
                    and status in ('delivered', 'dead')
                order by created_at
                limit $1
                for update skip locked
            )
            "#,
        );
        self.database.execute(query.bind(limit)).await
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
        );
        self.database.execute(query.bind(token).bind(user)).await.map(drop)
    }
    // ANCHOR_END: add_device

    /// Removes a device, if it is this user's.
    pub async fn remove_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        let query = sqlx::query("delete from devices where token = $1 and user_id = $2");
        self.database.execute(query.bind(token).bind(user)).await.map(drop)
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
        );
        let query = query.bind(user).bind(seq).bind(limit);
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
        );
        let query = query.bind(me).bind(lease_seconds);
        self.database.within(async |db| query.fetch_all(db).await).await
    }
    // ANCHOR_END: members

    /// Says that this worker leaves, and forgets those that have not been seen for long.
    pub async fn leave(&self, me: &str) -> Result<(), Error> {
        let query = "delete from workers where name = $1 or seen_at < now() - interval '1 day'";
        self.database.execute(sqlx::query(query).bind(me)).await.map(drop)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
