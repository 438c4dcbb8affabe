//! The counts of failed logins.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::Store;
use crate::{
    error::Error,
    throttle::{Attempt, Limits},
};

impl Store {
    // ANCHOR: charge
    /// Counts the attempt as failed before its password is looked at. Otherwise a thousand at once would all be let
    /// through, since none of them has failed yet.
    ///
    /// Those that have to wait are not counted: who waits as told gets a turn.
    pub async fn charge(&self, attempt: &Attempt, limits: Limits) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                // The client first, in every transaction: so nobody waits in a circle.
                let mut transaction = connection.begin().await?;
                let account = account_key(&mut transaction, attempt).await?;
                let counts = [(attempt.client, limits.per_client), (account, limits.per_account)];
                for (key, free) in counts {
                    if !charge_one(&mut transaction, key, free).await? {
                        let wait = wait(&mut transaction, key).await?;
                        transaction.rollback().await?;
                        return Ok(Err(Error::TooManyAttempts { retry_after: wait }));
                    }
                }
                transaction.commit().await?;
                Ok(Ok(()))
            })
            .await?
    }
    // ANCHOR_END: charge

    /// Takes the charge back, of an attempt whose password was never looked at: the one failure, and the wait that it
    /// began. If it ends another's wait, that one has its place in the count instead: no guess more is free than
    /// without it.
    pub async fn take_back(&self, attempt: &Attempt) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                let account = account_key(&mut transaction, attempt).await?;
                // In the order in which they are charged.
                for key in [attempt.client, account] {
                    sqlx::query(
                        r#"
                        update failed_logins
                        set
                            failures = greatest(failures - 1, 0),
                            blocked_until = null
                        where key = $1
                        "#,
                    )
                    .bind(key)
                    .execute(&mut *transaction)
                    .await?;
                }
                transaction.commit().await
            })
            .await
    }

    /// Takes the charge back, after a login that succeeded. The account's count begins anew. The client's does not, or
    /// whoever has one account could guess at all others for ever.
    pub async fn refund(&self, attempt: &Attempt) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                sqlx::query(
                    r#"
                    update failed_logins
                    set failures = greatest(failures - 1, 0)
                    where key = $1
                    "#,
                )
                .bind(attempt.client)
                .execute(&mut *transaction)
                .await?;
                let account = account_key(&mut transaction, attempt).await?;
                sqlx::query("delete from failed_logins where key = $1")
                    .bind(account)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(
                    r#"
                    insert into known_clients (account, client)
                    values ($1, $2)
                    on conflict (account, client) do update
                    set seen_at = now()
                    "#,
                )
                .bind(attempt.account)
                .bind(attempt.client)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await
            })
            .await
    }
}

/// Under which name the account is counted for this client.
async fn account_key(
    connection: &mut PgConnection,
    attempt: &Attempt,
) -> Result<[u8; 32], sqlx::Error> {
    let known: bool = sqlx::query_scalar(
        "select exists (select from known_clients where account = $1 and client = $2)",
    )
    .bind(attempt.account)
    .bind(attempt.client)
    .fetch_one(connection)
    .await?;
    Ok(if known { attempt.account_from_client } else { attempt.account })
}

// ANCHOR: charge_one
/// Adds one failure, unless it has to wait; whether it was added. The free ones cost nothing; then the wait doubles,
/// from a second up to a minute. After a quarter of an hour without a failure everything is forgotten.
async fn charge_one(
    connection: &mut PgConnection,
    key: [u8; 32],
    free: i32,
) -> Result<bool, sqlx::Error> {
    let charged = sqlx::query(
        r#"
        insert into failed_logins as old (key, failures, failed_at)
        values ($1, 1, now())
        on conflict (key) do update
        set
            failures = case
                when old.failed_at < now() - interval '15 minutes' then 1
                else old.failures + 1
            end,
            failed_at = now(),
            blocked_until = case
                when old.failed_at < now() - interval '15 minutes' or old.failures + 1 < $2
                then null
                else clock_timestamp()
                    + least(power(2, least(old.failures + 1 - $2, 6)), 60) * interval '1 second'
            end
        where old.blocked_until is null or old.blocked_until <= clock_timestamp()
        "#,
    )
    .bind(key)
    .bind(free)
    .execute(connection)
    .await?;
    Ok(charged.rows_affected() > 0)
}
// ANCHOR_END: charge_one

async fn wait(connection: &mut PgConnection, key: [u8; 32]) -> Result<Duration, sqlx::Error> {
    let seconds: f64 = sqlx::query_scalar(
        r#"
        select extract(epoch from blocked_until - clock_timestamp())::float8
        from failed_logins
        where key = $1
        "#,
    )
    .bind(key)
    .fetch_one(connection)
    .await?;
    Ok(Duration::from_secs_f64(seconds.max(0.0)))
}
