//! What is kept? Every SQL statement of the service is in this module and its submodules.
//!
//! Invariants: a mailbox has one account at most, the unique index decides; a session is changed only by who holds
//! the lock on its row.

mod sessions;
pub mod throttle;

use std::time::Duration;

use edge::{
    database::{Database, Limits},
    email::Email,
};
use serde::Serialize;
use sqlx::{PgConnection, migrate::Migrator};
use tokio::time::sleep;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call. A login makes four, and all of them together should be answered before anybody gives up on it.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { connections: 8, timeout: TIMEOUT, pause: TIMEOUT };

/// Nothing depends on what has ended being deleted soon: each reader sees for itself that it has.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Rows that one statement of a sweep deletes at most, so that each is short.
const SWEPT_AT_ONCE: u64 = 1_000;

/// What ends, and is deleted then. `skip locked`: several processes sweep side by side. Tokens go before their session,
/// which has thousands of them perhaps: a cascade would delete them all in one statement.
///
/// A session stays for two days more. Its last access token may outlive it by a day, the most that `--access-seconds`
/// allows, and the leeway; and only a session that `revoke_user` finds is put on the deny-list.
const SWEEP: [&str; 3] = [
    r#"delete from refresh_tokens
    where hash in (
        select hash from refresh_tokens join sessions on sessions.id = session_id
        where expires_at < now() - interval '2 days'
        limit 1000 for update of refresh_tokens skip locked
    )"#,
    r#"delete from sessions
    where id in (
        select id from sessions
        where expires_at < now() - interval '2 days'
            and not exists (select from refresh_tokens where session_id = sessions.id)
        limit 1000 for update skip locked
    )"#,
    r#"delete from failed_logins
    where key in (
        select key from failed_logins
        where forgotten_at < now() limit 1000 for update skip locked
    )"#,
];

/// Who a token is made for.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Account {
    /// The user's id.
    pub id: Uuid,
    /// The user's address.
    pub email: String,
}

/// A signing key: its name, and its private part in PKCS#8.
pub type KeyRow = (String, Vec<u8>);

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        Ok(Self { database: Database::new(url, LIMITS)? })
    }

    // ANCHOR: insert_user
    /// A new account. Nobody looks first whether the address is free: the index knows.
    pub async fn insert_user(&self, email: &Email, password_hash: &str) -> Result<Account> {
        let insert = r#"
            insert into users (id, email, mailbox, password_hash)
            values ($1, $2, $3, $4)
            on conflict on constraint users_mailbox do nothing
            returning id, email
        "#;
        let insert = sqlx::query_as(insert).bind(Uuid::now_v7()).bind(email.as_str());
        let insert = insert.bind(email.key()).bind(password_hash);
        let account = self.database.within(async |it| insert.fetch_optional(it).await).await?;
        account.ok_or(Error::EmailTaken)
    }
    // ANCHOR_END: insert_user

    /// The account of this address, if there is one, and the hash of its password.
    pub async fn credentials(&self, email: &Email) -> Result<Option<(Account, String)>> {
        let select = "select id, email, password_hash from users where mailbox = $1";
        let select = sqlx::query_as(select).bind(email.key());
        let found = self.database.within(async |it| select.fetch_optional(it).await).await?;
        Ok(found.map(|(id, email, hash)| (Account { id, email }, hash)))
    }

    // ANCHOR: rotate_keys
    /// Adds this key if it is time for one, deletes those whose last token has ended, and returns the rest. If no key
    /// signs, because somebody has withdrawn it, the new one signs at once.
    ///
    /// Every process calls this. The lock makes them come one after another, so that one of them adds a key and the
    /// others find it.
    pub async fn rotate_keys(
        &self,
        kid: &str,
        private_key: &[u8],
        [publish_ahead, key_life, publish_after]: [Duration; 3],
    ) -> Result<Vec<KeyRow>> {
        let insert = r#"
            insert into signing_keys (kid, private_key, signs_from)
            select $1, $2,
                case when min(signs_from) <= now() then now() + $3 * interval '1 second' else now() end
            from signing_keys
            having coalesce(min(signs_from) > now(), true)
                or max(signs_from) <= now() + ($3 - $4) * interval '1 second'
        "#;
        let delete = r#"
            delete from signing_keys
            where signs_from < (
                select max(signs_from) from signing_keys
                where signs_from <= now() - $1 * interval '1 second'
            )
        "#;
        let select = "select kid, private_key from signing_keys";
        let lock = "select pg_advisory_xact_lock(hashtext('signing_keys'))";
        let rotate = async |connection: &mut PgConnection| {
            sqlx::query(lock).execute(&mut *connection).await?;
            // A statement of its own after the lock: it sees what the one before us did.
            let insert = sqlx::query(insert).bind(kid).bind(private_key);
            let insert = insert.bind(publish_ahead.as_secs_f64()).bind(key_life.as_secs_f64());
            insert.execute(&mut *connection).await?;
            let delete = sqlx::query(delete).bind(publish_after.as_secs_f64());
            delete.execute(&mut *connection).await?;
            sqlx::query_as(select).fetch_all(connection).await
        };
        self.database.transaction(rotate).await
    }
    // ANCHOR_END: rotate_keys

    /// The youngest key whose time has come.
    pub async fn signing_key(&self) -> Result<Option<KeyRow>> {
        let select = r#"
            select kid, private_key from signing_keys
            where signs_from <= now()
            order by signs_from desc limit 1
        "#;
        self.database.within(async |it| sqlx::query_as(select).fetch_optional(it).await).await
    }

    /// Takes a key out, in an emergency. Returns whether it was there.
    pub async fn withdraw_key(&self, kid: &str) -> Result<bool> {
        let delete = sqlx::query("delete from signing_keys where kid = $1").bind(kid);
        let deleted = self.database.within(async |it| delete.execute(it).await).await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Sweeps now and then, for ever. It may be cut off at any point.
    pub async fn keep_swept(self) {
        loop {
            sleep(SWEEP_EVERY).await;
            self.sweep().await;
        }
    }

    /// Deletes what has ended. What a minute brings may be more than one statement takes: then it is repeated at once, or
    /// the tables would grow for ever.
    pub async fn sweep(&self) {
        for statement in SWEEP {
            let sweep = async |it: &mut PgConnection| sqlx::query(statement).execute(it).await;
            let mut rows = SWEPT_AT_ONCE;
            while rows >= SWEPT_AT_ONCE {
                let swept = self.database.within(sweep).await;
                let swept = swept.inspect_err(|error| tracing::warn!(%error, "not swept"));
                rows = swept.map_or(0, |swept| swept.rows_affected());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_shows_no_password_of_the_database() {
        let store = Store::new("postgres://ann:hunter2@127.0.0.1:1/accounts").unwrap();
        assert!(!format!("{store:?}").contains("hunter2"), "{store:?}");
    }
}
