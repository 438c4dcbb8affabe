//! How do sessions go on, and how do they end?

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Account, Store};
use crate::{
    error::Result,
    refresh::{Presented, Verdict},
};

/// Of a refresh token.
type Hash = [u8; 32];

/// A refresh token's session and user.
#[derive(Debug, sqlx::FromRow)]
pub struct Found {
    /// The user.
    #[sqlx(flatten)]
    pub account: Account,
    /// The session.
    pub session: Uuid,
    /// What a refresh depends on.
    #[sqlx(flatten)]
    pub presented: Presented,
}

impl Store {
    /// A new session, with the hash of its first refresh token. It lives so long if it is not refreshed, and never
    /// longer than to its end.
    pub async fn open_session(&self, user: Uuid, hash: Hash, lives: [Duration; 2]) -> Result<Uuid> {
        let insert = r#"
            with session as (
                insert into sessions (id, user_id, expires_at, ends_at)
                select $1, $2, now() + least($4, $5) * second, now() + $5 * second
                from (select interval '1 second' as second) as units
                returning id, generation
            )
            insert into refresh_tokens (hash, session_id, generation)
            select $3, id, generation from session
        "#;
        let session = Uuid::now_v7();
        let insert = sqlx::query(insert).bind(session).bind(user).bind(hash);
        let insert = insert.bind(lives[0].as_secs_f64()).bind(lives[1].as_secs_f64());
        self.database.within(async |it| insert.execute(it).await).await?;
        Ok(session)
    }

    // ANCHOR: rotate
    /// Puts the next token in the place of the presented one, if that may be. `None`: there is no such token.
    ///
    /// The lock on the session's row is what decides a race: of a hundred that present one token, each sees what the
    /// one before it has done.
    pub async fn refresh(
        &self,
        presented: Hash,
        next: Hash,
        [life, grace]: [Duration; 2],
    ) -> Result<Option<(Verdict, Found)>> {
        let refresh = async |connection: &mut PgConnection| {
            let locked = sqlx::query_as(LOCK_SESSION).bind(presented);
            let Some(found): Option<Found> = locked.fetch_optional(&mut *connection).await? else {
                return Ok(None);
            };
            let verdict = found.presented.verdict(grace);
            match verdict {
                Verdict::Advance => {
                    let advance = sqlx::query(ADVANCE).bind(found.session).bind(life.as_secs_f64());
                    advance.execute(&mut *connection).await?;
                    add_token(connection, found.session, next).await?;
                }
                Verdict::Join => add_token(connection, found.session, next).await?,
                Verdict::Reuse => {
                    sqlx::query(REVOKE).bind(found.session).execute(connection).await?;
                }
                Verdict::Revoked | Verdict::Expired => {}
            }
            // Each of these is committed, the refusals too: a revocation that is rolled back with its 401 would let
            // the thief go on.
            Ok(Some((verdict, found)))
        };
        self.database.transaction(refresh).await
    }
    // ANCHOR_END: rotate

    /// Revokes this session, once and for all.
    pub async fn revoke_session(&self, session: Uuid) -> Result<()> {
        let revoke = sqlx::query(REVOKE).bind(session);
        self.database.within(async |it| revoke.execute(it).await).await.map(drop)
    }

    /// Revokes all sessions of a user, and says which they are. Those that are revoked already are among them: who
    /// repeats this wants to be sure of the deny-list as well.
    pub async fn revoke_user(&self, user: Uuid) -> Result<Vec<Uuid>> {
        // Locked in one order, so that two who do this at once do not deadlock.
        let revoke = r#"
            with mine as (select id from sessions where user_id = $1 order by id for update)
            update sessions set revoked_at = coalesce(revoked_at, now())
            from mine
            where sessions.id = mine.id
            returning sessions.id
        "#;
        let revoke = sqlx::query_scalar(revoke).bind(user);
        self.database.within(async |it| revoke.fetch_all(it).await).await
    }
}

// ANCHOR: lock_session
/// Locks the session's row until the transaction ends. Whoever had to wait for the lock sees the row as it is then, not
/// as it was when it asked.
const LOCK_SESSION: &str = r#"
    select users.id, users.email, sessions.id as session,
        refresh_tokens.generation, sessions.generation as current,
        extract(epoch from clock_timestamp() - sessions.advanced_at)::float8 as advanced,
        sessions.revoked_at is not null as revoked,
        sessions.expires_at <= clock_timestamp() as expired
    from refresh_tokens
    join sessions on sessions.id = refresh_tokens.session_id
    join users on users.id = sessions.user_id
    where refresh_tokens.hash = $1
    for update of sessions
"#;
// ANCHOR_END: lock_session

const ADVANCE: &str = r#"
    update sessions
    set generation = generation + 1, advanced_at = clock_timestamp(),
        expires_at = least(now() + $2 * interval '1 second', ends_at)
    where id = $1
"#;

const REVOKE: &str = "update sessions set revoked_at = now() where id = $1 and revoked_at is null";

/// A token of the session's present generation.
async fn add_token(connection: &mut PgConnection, session: Uuid, hash: Hash) -> sqlx::Result<()> {
    let insert = r#"
        insert into refresh_tokens (hash, session_id, generation)
        select $2, id, generation from sessions where id = $1
    "#;
    sqlx::query(insert).bind(session).bind(hash).execute(connection).await.map(drop)
}
