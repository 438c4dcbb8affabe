//! The signing keys.

use sqlx::{Connection, PgConnection};

use super::Store;
use crate::{error::Error, jwks::PublicKey, schedule::Schedule};

/// A row of `signing_keys`.
#[derive(Clone, sqlx::FromRow)]
pub struct KeyRow {
    /// Its name.
    pub kid: String,
    /// In PKCS#8.
    pub private_key: Vec<u8>,
    #[sqlx(try_from = "Vec<u8>")]
    public_key: Point,
    /// From the moment at which it was read; negative once it signs. The database's clock alone says whose turn it is.
    pub seconds_until_it_signs: f64,
}

/// A public key: the schema has made sure of its length.
#[derive(Clone, Copy)]
struct Point([u8; 32]);

impl TryFrom<Vec<u8>> for Point {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        bytes.as_slice().try_into().map(Self)
    }
}

impl KeyRow {
    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { kid: self.kid.clone(), bytes: self.public_key.0 }
    }
}

impl Store {
    // ANCHOR: rotate_keys
    /// Adds this key if it is time for one, deletes those whose last token has ended, and returns the rest, the oldest
    /// first.
    ///
    /// Every process calls this. The lock makes them come one after another, so that one of them adds a key and the
    /// others find it.
    pub async fn rotate_keys(
        &self,
        (private, public): (Vec<u8>, PublicKey),
        schedule: Schedule,
    ) -> Result<Vec<KeyRow>, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                sqlx::query("select pg_advisory_xact_lock(hashtext('signing_keys'))")
                    .execute(&mut *transaction)
                    .await?;
                // A statement of its own after the lock: it sees what the one before us did.
                sqlx::query(
                    r#"
                    insert into signing_keys (kid, private_key, public_key, signs_from)
                    select
                        $1,
                        $2,
                        $3,
                        case
                            when exists (select from signing_keys)
                            then now() + $4 * interval '1 second'
                            else now()
                        end
                    where not exists (
                        select from signing_keys
                        where signs_from > now() + ($4 - $5) * interval '1 second'
                    )
                    "#,
                )
                .bind(public.kid)
                .bind(private)
                .bind(public.bytes)
                .bind(schedule.publish_ahead().as_secs_f64())
                .bind(schedule.key_life.as_secs_f64())
                .execute(&mut *transaction)
                .await?;
                sqlx::query(
                    r#"
                    delete from signing_keys as old
                    where exists (
                        select from signing_keys as young
                        where young.signs_from > old.signs_from
                            and young.signs_from <= now() - $1 * interval '1 second'
                    )
                    "#,
                )
                .bind(schedule.publish_after().as_secs_f64())
                .execute(&mut *transaction)
                .await?;
                let keys = all(&mut transaction).await?;
                transaction.commit().await?;
                Ok(keys)
            })
            .await
    }
    // ANCHOR_END: rotate_keys
}

async fn all(connection: &mut PgConnection) -> Result<Vec<KeyRow>, sqlx::Error> {
    sqlx::query_as(
        r#"
        select
            kid,
            private_key,
            public_key,
            extract(epoch from signs_from - clock_timestamp())::float8 as seconds_until_it_signs
        from signing_keys
        order by signs_from
        "#,
    )
    .fetch_all(connection)
    .await
}
