//! Families of refresh tokens.

use std::time::Duration;

use sqlx::{Connection, FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Account, Store,
    revocation::{Revoked, revoke},
};
use crate::{
    error::Error,
    refresh::{Presented, Verdict},
};

/// A refresh token that is about to be given out, and the access token that goes with it.
#[derive(Clone, Copy, Debug)]
pub struct NewToken {
    /// Of the refresh token.
    pub hash: [u8; 32],
    /// How long it lives.
    pub life: Duration,
    /// The access token's id.
    pub access_jti: Uuid,
    /// How long a deny-list has to know it: longer than anybody believes it.
    pub access_life: Duration,
}

/// What came of a refresh.
#[derive(Debug)]
pub enum Refreshed {
    /// The new token is in the family, for this user.
    Done {
        /// Whose it is.
        account: Account,
        /// The family.
        family: Uuid,
    },
    /// The token had been used before: the family is revoked.
    Reused(Revoked),
    /// The family had been revoked before.
    Revoked(Revoked),
    /// There is no such token, or it is over with it.
    Refused,
}

/// A login that goes on, or did.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Session {
    /// Whose it is.
    pub user: Uuid,
    /// Its family.
    pub family: Uuid,
    /// Whether it goes on.
    pub alive: bool,
}

/// A token's row, joined with its family and its user.
struct Found {
    account: Account,
    family: Uuid,
    presented: Presented,
}

impl FromRow<'_, PgRow> for Found {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let advanced: f64 = row.try_get("advanced")?;
        Ok(Self {
            account: Account::from_row(row)?,
            family: row.try_get("family_id")?,
            presented: Presented {
                generation: row.try_get("generation")?,
                current: row.try_get("current")?,
                advanced: Duration::from_secs_f64(advanced.max(0.0)),
                revoked: row.try_get("revoked")?,
                expired: row.try_get("expired")?,
            },
        })
    }
}

impl Store {
    /// A new family, with its first token.
    pub async fn open_family(&self, user: Uuid, token: NewToken) -> Result<Uuid, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                let family = Uuid::now_v7();
                sqlx::query(
                    r#"
                    insert into families (id, user_id, expires_at)
                    values ($1, $2, now() + $3 * interval '1 second')
                    "#,
                )
                .bind(family)
                .bind(user)
                .bind(token.life.as_secs_f64())
                .execute(&mut *transaction)
                .await?;
                insert_token(&mut transaction, family, 0, token).await?;
                transaction.commit().await?;
                Ok(family)
            })
            .await
    }

    // ANCHOR: rotate
    /// Puts the new token in the place of the presented one, if that may be.
    ///
    /// The lock on the family's row is what decides a race: of a hundred that present one token, each sees what the
    /// one before it has done.
    pub async fn refresh(
        &self,
        presented: [u8; 32],
        token: NewToken,
        grace: Duration,
    ) -> Result<Refreshed, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                let Some(found) = lock_family(&mut transaction, presented).await? else {
                    // Or the connection would rest in an open transaction.
                    transaction.rollback().await?;
                    return Ok(Refreshed::Refused);
                };
                let Found { account, family, presented } = found;
                let outcome = match presented.verdict(grace) {
                    Verdict::Advance => {
                        advance(&mut transaction, family, token.life).await?;
                        let generation = presented.current + 1;
                        insert_token(&mut transaction, family, generation, token).await?;
                        Refreshed::Done { account, family }
                    }
                    Verdict::Join => {
                        insert_token(&mut transaction, family, presented.current, token).await?;
                        Refreshed::Done { account, family }
                    }
                    Verdict::Reuse => Refreshed::Reused(revoke(&mut transaction, &[family]).await?),
                    Verdict::Revoked => {
                        Refreshed::Revoked(revoke(&mut transaction, &[family]).await?)
                    }
                    Verdict::Expired => Refreshed::Refused,
                };
                // Also when the answer is no: what must not be rolled back is the revocation.
                transaction.commit().await?;
                Ok(outcome)
            })
            .await
    }
    // ANCHOR_END: rotate

    /// The session that a refresh token belongs to, whatever its generation.
    pub async fn session(&self, hash: [u8; 32]) -> Result<Option<Session>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select
                        families.user_id as "user",
                        families.id as family,
                        families.revoked_at is null
                            and refresh_tokens.expires_at > now() as alive
                    from refresh_tokens
                    join families on families.id = refresh_tokens.family_id
                    where refresh_tokens.hash = $1
                    "#,
                )
                .bind(hash)
                .fetch_optional(connection)
                .await
            })
            .await
    }
}

// ANCHOR: lock_family
/// The token with its family, whose row is locked until the transaction ends. Whoever had to wait for the lock sees
/// the row as it is then, not as it was when it asked.
async fn lock_family(
    connection: &mut PgConnection,
    hash: [u8; 32],
) -> Result<Option<Found>, sqlx::Error> {
    sqlx::query_as(
        r#"
        select
            users.id,
            users.email,
            families.id as family_id,
            refresh_tokens.generation,
            families.generation as current,
            extract(epoch from clock_timestamp() - families.advanced_at)::float8 as advanced,
            families.revoked_at is not null as revoked,
            refresh_tokens.expires_at <= clock_timestamp() as expired
        from refresh_tokens
        join families on families.id = refresh_tokens.family_id
        join users on users.id = families.user_id
        where refresh_tokens.hash = $1
        for update of families
        "#,
    )
    .bind(hash)
    .fetch_optional(connection)
    .await
}
// ANCHOR_END: lock_family

async fn advance(
    connection: &mut PgConnection,
    family: Uuid,
    life: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        r#"
        update families
        set
            generation = generation + 1,
            advanced_at = clock_timestamp(),
            expires_at = now() + $2 * interval '1 second'
        where id = $1
        "#,
    )
    .bind(family)
    .bind(life.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_token(
    connection: &mut PgConnection,
    family: Uuid,
    generation: i32,
    token: NewToken,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        r#"
        insert into refresh_tokens
            (hash, family_id, generation, access_jti, access_expires_at, expires_at)
        values (
            $1,
            $2,
            $3,
            $4,
            clock_timestamp() + $5 * interval '1 second',
            clock_timestamp() + $6 * interval '1 second'
        )
        "#,
    )
    .bind(token.hash)
    .bind(family)
    .bind(generation)
    .bind(token.access_jti)
    .bind(token.access_life.as_secs_f64())
    .bind(token.life.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
