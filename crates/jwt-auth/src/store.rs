//! What is kept? Every SQL statement of the service is in this module.
//!
//! Invariants: an address has one account at most, the unique index decides; a family is changed only by who holds
//! the lock on its row.

mod keys;
mod revocation;
mod sessions;
mod throttle;

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::migrate::Migrator;
use uuid::Uuid;

pub use self::{
    keys::KeyRow,
    revocation::Revoked,
    sessions::{NewToken, Refreshed, Session},
};
use crate::{email::Email, error::Error};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call. A login makes four, and all of them together should be answered before anybody gives up on it.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { connections: 8, timeout: TIMEOUT, pause: TIMEOUT };

/// Rows that one statement of a sweep deletes at most.
const SWEPT_AT_ONCE: i64 = 1_000;

/// What ends, and is deleted then. `skip locked`: several processes sweep side by side.
const SWEEP: [&str; 4] = [
    r#"
    delete from refresh_tokens
    where hash in (
        select hash
        from refresh_tokens
        where expires_at < now()
        limit $1
        for update skip locked
    )
    "#,
    r#"
    delete from families
    where id in (
        select id
        from families
        where expires_at < now()
        limit $1
        for update skip locked
    )
    "#,
    r#"
    delete from failed_logins
    where key in (
        select key
        from failed_logins
        where failed_at < now() - interval '1 hour'
        limit $1
        for update skip locked
    )
    "#,
    r#"
    delete from known_clients
    where (account, client) in (
        select account, client
        from known_clients
        where seen_at < now() - interval '90 days'
        limit $1
        for update skip locked
    )
    "#,
];

/// Who a token is made for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Account {
    /// The user's id.
    pub id: Uuid,
    /// The user's address.
    pub email: String,
}

/// An account, and what a password is compared with.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Credentials {
    /// Whose they are.
    #[sqlx(flatten)]
    pub account: Account,
    /// With its algorithm, parameters and salt.
    pub password_hash: String,
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

    // ANCHOR: insert_user
    /// A new account. Nobody looks first whether the address is free: the index knows.
    pub async fn insert_user(&self, email: &Email, password_hash: &str) -> Result<Account, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    insert into users (id, email, password_hash)
                    values ($1, $2, $3)
                    on conflict on constraint users_email do nothing
                    returning id, email
                    "#,
                )
                .bind(Uuid::now_v7())
                .bind(email.as_str())
                .bind(password_hash)
                .fetch_optional(connection)
                .await
            })
            .await?
            .ok_or(Error::EmailTaken)
    }
    // ANCHOR_END: insert_user

    /// The account of this address, if there is one.
    pub async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as("select id, email, password_hash from users where email = $1")
                    .bind(email.as_str())
                    .fetch_optional(connection)
                    .await
            })
            .await
    }

    /// Replaces a hash by one of the same password, unless the password has been changed meanwhile.
    pub async fn replace_hash(&self, user: Uuid, old: &str, new: &str) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    update users
                    set password_hash = $3
                    where id = $1 and password_hash = $2
                    "#,
                )
                .bind(user)
                .bind(old)
                .bind(new)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Deletes some of what has ended; whether there may be more. A few rows at a time, so that each statement is short.
    pub async fn sweep(&self) -> Result<bool, Error> {
        self.database
            .within(async |connection| {
                let mut more = false;
                for statement in SWEEP {
                    let swept = sqlx::query(statement).bind(SWEPT_AT_ONCE);
                    let rows = swept.execute(&mut *connection).await?.rows_affected();
                    more |= rows >= SWEPT_AT_ONCE.unsigned_abs();
                }
                Ok(more)
            })
            .await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
