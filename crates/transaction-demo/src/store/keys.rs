//! Which payments have been asked for before? Each key has a row, and the primary key decides whose it is.

use sqlx::PgConnection;

use crate::{
    error::Error,
    idempotency::{Fingerprint, IdempotencyKey},
};

/// What a key was used for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UsedKey {
    /// Of the body that it came with.
    pub fingerprint: Vec<u8>,
    /// The transfer's number.
    pub transfer_id: i64,
    /// Whether it was refused for lack of money, so that there is no such transfer.
    pub refused: bool,
}

// ANCHOR: claim_key
/// The key is ours, and draws the transfer's number; or it was used, and there is no row. If another transaction
/// is just now using it, this waits for that one's end: the index knows of rows that nobody can see yet.
pub(crate) const CLAIM_KEY: &str = r#"
    insert into idempotency_keys (scope, key, fingerprint)
    values ('POST /transfers', $1, $2)
    on conflict (scope, key) do nothing
    returning transfer_id
"#;

/// Claims the key for this transaction; returns the number of the transfer to be made, or nothing if the key
/// has been used.
pub async fn claim_key(
    connection: &mut PgConnection,
    key: &IdempotencyKey,
    fingerprint: &Fingerprint,
) -> Result<Option<i64>, Error> {
    let claim = sqlx::query_scalar(CLAIM_KEY).bind(key).bind(fingerprint.bytes());
    Ok(claim.fetch_optional(connection).await?)
}
// ANCHOR_END: claim_key

/// What the key was used for. To be asked after [`claim_key`] found it used: then it is committed.
pub async fn used_key(
    connection: &mut PgConnection,
    key: &IdempotencyKey,
) -> Result<UsedKey, Error> {
    let used = sqlx::query_as(
        r#"
        select fingerprint, transfer_id, refused
        from idempotency_keys
        where scope = 'POST /transfers' and key = $1
        "#,
    );
    Ok(used.bind(key).fetch_one(connection).await?)
}

/// Notes that the key's transfer was refused.
pub async fn refuse_key(connection: &mut PgConnection, key: &IdempotencyKey) -> Result<(), Error> {
    let refuse = sqlx::query(
        r#"
        update idempotency_keys
        set refused = true
        where scope = 'POST /transfers' and key = $1
        "#,
    );
    refuse.bind(key).execute(connection).await?;
    Ok(())
}
