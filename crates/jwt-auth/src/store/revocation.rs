//! The end of sessions.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::Store;
use crate::error::Error;

/// Access tokens that came from what was revoked, and how long each would still be believed.
pub type Revoked = Vec<(Uuid, Duration)>;

impl Store {
    /// Revokes this family.
    pub async fn revoke_family(&self, family: Uuid) -> Result<Revoked, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                let revoked = revoke(&mut transaction, &[family]).await?;
                transaction.commit().await?;
                Ok(revoked)
            })
            .await
    }

    /// Revokes all families of a user.
    pub async fn revoke_user(&self, user: Uuid) -> Result<Revoked, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                // In one order, so that two who do this at once wait for each other once only. Those that are revoked
                // already too: whoever repeats this wants to be sure of the deny-list as well.
                let families: Vec<Uuid> = sqlx::query_scalar(
                    r#"
                    select id
                    from families
                    where user_id = $1
                    order by id
                    for update
                    "#,
                )
                .bind(user)
                .fetch_all(&mut *transaction)
                .await?;
                let revoked = revoke(&mut transaction, &families).await?;
                transaction.commit().await?;
                Ok(revoked)
            })
            .await
    }
}

// ANCHOR: revoke
/// Revokes the families, once and for all, and tells which of their access tokens are still alive.
///
/// Two statements: the second sees the tokens of a refresh for whose lock the first had to wait.
pub(super) async fn revoke(
    connection: &mut PgConnection,
    families: &[Uuid],
) -> Result<Revoked, sqlx::Error> {
    sqlx::query(
        r#"
        update families
        set revoked_at = now()
        where id = any($1) and revoked_at is null
        "#,
    )
    .bind(families)
    .execute(&mut *connection)
    .await?;
    let alive: Vec<(Uuid, f64)> = sqlx::query_as(
        r#"
        select
            access_jti,
            extract(epoch from access_expires_at - now())::float8
        from refresh_tokens
        where family_id = any($1) and access_expires_at > now()
        "#,
    )
    .bind(families)
    .fetch_all(connection)
    .await?;
    let duration = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
    Ok(alive.into_iter().map(|(jti, seconds)| (jti, duration(seconds))).collect())
}
// ANCHOR_END: revoke
