//! How is everything kept in PostgreSQL? All SQL is here, and that of an attempt in [`attempts`].

pub mod attempts;

use std::time::Duration;

use edge::database::{Database, Limits};
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

/// A job that was recorded before.
#[derive(Debug)]
pub struct Known {
    /// How to publish it again.
    pub message: Message,
    /// Whether the broker has confirmed it.
    pub confirmed: bool,
}

/// A job, as far as clients see it.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
pub struct Progress {
    status: Status,
    attempts: i32,
    last_error: Option<String>,
}

/// A worker that lives, and the shards that it may take.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Member {
    /// Nobody else's.
    pub name: String,
    /// From its `--shards`.
    pub first_shard: i32,
    /// The last of them.
    pub last_shard: i32,
}

type MessageRow = (JobId, UserId, i32, Priority);

fn message((job_id, user_id, generation, priority): MessageRow) -> (Message, Priority) {
    (Message { job_id, user_id, generation, alone: false }, priority)
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    /// In seconds, how long the broker may keep a job before the sweep takes its message for lost.
    lost_after: f64,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, lost_after: f64) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url, LIMITS)?, lost_after })
    }

    // ANCHOR: record
    /// Records a job, with the next number of its user; nothing is returned if the job is known. The primary key
    /// decides: of two calls at once one waits for the other. A number that a known job did not need is lost; numbers
    /// rise, and gaps mean nothing. If nobody is heard of it for ten seconds, the sweep looks after it.
    pub const RECORD: &str = r#"
        with numbered as (
            insert into users (user_id, last_seq)
            values ($2, 1)
            on conflict (user_id) do update
            set last_seq = users.last_seq + 1
            returning last_seq
        )
        insert into notifications (job_id, user_id, seq, channel, priority, title, body, sweep_at)
        select $1, $2, last_seq, $3, $4, $5, $6, now() + interval '10 seconds'
        from numbered
        on conflict (job_id) do nothing
        returning seq
    "#;

    /// Records a job before it is published; what is there already if it is not new.
    pub async fn record(&self, new: &NewNotification) -> Result<Option<Known>, Error> {
        let query = sqlx::query_scalar(Self::RECORD)
            .bind(&new.job_id)
            .bind(&new.user_id)
            .bind(new.channel)
            .bind(new.priority)
            .bind(&new.title)
            .bind(&new.body);
        let seq: Option<i64> =
            self.database.within(async |db| query.fetch_optional(db).await).await?;
        match seq {
            Some(_) => Ok(None),
            None => self.known(&new.job_id).await?.ok_or(Error::BrokerAway).map(Some),
        }
    }
    // ANCHOR_END: record

    /// A job that was recorded before, unless it has been taken back.
    pub async fn known(&self, job_id: &JobId) -> Result<Option<Known>, Error> {
        let query = sqlx::query_as(
            r#"
            select confirmed, user_id, generation
            from notifications
            where job_id = $1
            "#,
        )
        .bind(job_id);
        let row: Option<(bool, UserId, i32)> =
            self.database.within(async |db| query.fetch_optional(db).await).await?;
        Ok(row.map(|(confirmed, user_id, generation)| {
            let message = Message { job_id: job_id.clone(), user_id, generation, alone: false };
            Known { message, confirmed }
        }))
    }

    /// Takes back a job that the broker did not take; whether that was possible. It is not, once a worker has begun,
    /// or another call was told that it is accepted: then the broker has it after all.
    pub async fn withdraw(&self, job_id: &JobId) -> Result<bool, Error> {
        let query = sqlx::query(
            r#"
            delete from notifications
            where job_id = $1
                and attempts = 0
                and not confirmed
                and status = 'queued'
            "#,
        )
        .bind(job_id);
        let deleted = self.database.within(async |db| query.execute(db).await).await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// The broker has these. Those that a worker has begun since have been put off already.
    pub async fn confirm(&self, jobs: &[JobId]) -> Result<(), Error> {
        let query = sqlx::query(
            r#"
            update notifications
            set
                confirmed = true,
                sweep_at = greatest(now(), due_at) + $2 * interval '1 second'
            where job_id = any ($1)
                and sweep_at < now() + interval '1 minute'
            "#,
        )
        .bind(jobs)
        .bind(self.lost_after);
        self.database.within(async |db| query.execute(db).await).await?;
        Ok(())
    }

    // ANCHOR: take_overdue
    /// Jobs of which nobody has heard for too long: their process died before it published them, or the broker has
    /// lost them. Each is put off first, so that several sweeps share them, and those that cannot be published now, as
    /// their queue is full, do not stand in front of the others for ever.
    pub async fn take_overdue(&self, limit: i64) -> Result<Vec<(Message, Priority)>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set sweep_at = now() + interval '30 seconds'
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
        .bind(limit);
        let rows: Vec<MessageRow> =
            self.database.within(async |db| query.fetch_all(db).await).await?;
        Ok(rows.into_iter().map(message).collect())
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
    /// come to publishing it, the sweep does.
    pub async fn revive(&self, job_id: &JobId) -> Result<Option<(Message, Priority)>, Error> {
        let query = sqlx::query_as(
            r#"
            update notifications
            set
                status = 'queued',
                generation = generation + 1,
                failures = 0,
                crashes = 0,
                due_at = now(),
                sweep_at = now() + interval '10 seconds'
            where job_id = $1
                and status = 'dead'
            returning job_id, user_id, generation, priority
            "#,
        )
        .bind(job_id);
        let row: Option<MessageRow> =
            self.database.within(async |db| query.fetch_optional(db).await).await?;
        Ok(row.map(message))
    }

    // ANCHOR: forget
    /// Deletes up to `limit` jobs that are older than this and not under way; how many there were. In pieces, so that
    /// no statement takes long.
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
        self.database.within(async |db| query.execute(db).await).await?;
        Ok(())
    }
    // ANCHOR_END: add_device

    /// Removes a device, if it is this user's.
    pub async fn remove_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        let query =
            sqlx::query("delete from devices where token = $1 and user_id = $2").bind(token);
        self.database.within(async |db| query.bind(user).execute(db).await).await?;
        Ok(())
    }

    // ANCHOR: members
    /// Says that this worker lives; returns all that do, by the database's clock.
    pub async fn beat(&self, me: &Member, lease_seconds: f64) -> Result<Vec<Member>, Error> {
        let beat = sqlx::query(
            r#"
            insert into workers (name, first_shard, last_shard)
            values ($1, $2, $3)
            on conflict (name) do update
            set seen_at = now()
            "#,
        )
        .bind(&me.name)
        .bind(me.first_shard)
        .bind(me.last_shard);
        let members = sqlx::query_as(
            r#"
            select name, first_shard, last_shard
            from workers
            where seen_at > now() - $1 * interval '1 second'
            order by name
            "#,
        )
        .bind(lease_seconds);
        let both = async |db: &mut sqlx::PgConnection| {
            beat.execute(&mut *db).await?;
            members.fetch_all(db).await
        };
        self.database.within(both).await
    }
    // ANCHOR_END: members

    /// Says that this worker leaves, and forgets those that have not been seen for long.
    pub async fn leave(&self, name: &str) -> Result<(), Error> {
        let query = sqlx::query(
            "delete from workers where name = $1 or seen_at < now() - interval '1 day'",
        )
        .bind(name);
        self.database.within(async |db| query.execute(db).await).await?;
        Ok(())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
