//! Which requests have come before? Each key has a row, and the primary key decides which request acts.

use sqlx::PgConnection;

use crate::{
    error::Error,
    idempotency::{Fingerprint, IdempotencyKey},
    order::Refusal,
};

/// A request that may come more than once.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Which call it is.
    pub scope: &'static str,
    /// The client's name for it.
    pub key: &'a IdempotencyKey,
    /// Of its body.
    pub fingerprint: Fingerprint,
}

/// What came of the first request with a key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UsedKey {
    fingerprint: Vec<u8>,
    /// The transfer, or the account.
    pub number: i64,
    /// Why there is no such transfer.
    pub refusal: Option<Refusal>,
}

// ANCHOR: claim_key
/// Either the key is ours, and draws the transfer's number, or it was used, and there is no row. If another
/// transaction is using it just now, this waits for its end: the index knows of rows that nobody can see yet.
pub(crate) const CLAIM_KEY: &str = r#"
    insert into idempotency_keys (scope, key, fingerprint)
    values ($1, $2, $3)
    on conflict (scope, key) do nothing
    returning number
"#;

/// Claims the key for this transaction; returns the number of the transfer to be made, or nothing if the key
/// has been used.
pub async fn claim_key(
    connection: &mut PgConnection,
    claim: &Claim<'_>,
) -> Result<Option<i64>, Error> {
    let insert = sqlx::query_scalar(CLAIM_KEY).bind(claim.scope).bind(claim.key);
    Ok(insert.bind(claim.fingerprint.bytes()).fetch_optional(connection).await?)
}

/// What the key was used for. To be asked after [`claim_key`] found it used: then it is committed.
///
/// The lock is a write, and that is its only purpose: the commit of this transaction waits for a synchronous standby,
/// as the first one did. Without it, a repeated request could be answered with what no standby has yet.
pub async fn used_key(connection: &mut PgConnection, claim: &Claim<'_>) -> Result<UsedKey, Error> {
    let select = sqlx::query_as(
        r#"
        select fingerprint, number, refusal
        from idempotency_keys
        where scope = $1 and key = $2
        for key share
        "#,
    );
    let used: UsedKey = select.bind(claim.scope).bind(claim.key).fetch_one(connection).await?;
    if used.fingerprint == claim.fingerprint.bytes() { Ok(used) } else { Err(Error::KeyReused) }
}
// ANCHOR_END: claim_key

/// Keeps the refusal as the key's answer.
pub async fn refuse_key(
    connection: &mut PgConnection,
    claim: &Claim<'_>,
    refusal: Refusal,
) -> Result<(), Error> {
    let update = sqlx::query(
        r#"
        update idempotency_keys
        set refusal = $3
        where scope = $1 and key = $2
        "#,
    );
    update.bind(claim.scope).bind(claim.key).bind(refusal).execute(connection).await?;
    Ok(())
}

/// Keeps the account that was opened as the key's answer.
pub async fn keep_account(
    connection: &mut PgConnection,
    claim: &Claim<'_>,
    account: i64,
) -> Result<(), Error> {
    let update = sqlx::query(
        r#"
        update idempotency_keys
        set number = $3
        where scope = $1 and key = $2
        "#,
    );
    update.bind(claim.scope).bind(claim.key).bind(account).execute(connection).await?;
    Ok(())
}
