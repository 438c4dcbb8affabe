//! What is kept? Every SQL statement of the service is in this module. Each function is a step, and takes the
//! connection of the transaction that it is a part of.
//!
//! Invariant: balances are the sums of entries, and the entries of a transfer sum to zero. The statements move
//! both together; the constraints of the schema refuse what would break it.

mod keys;

use sqlx::{PgConnection, migrate::Migrator};
use time::OffsetDateTime;

pub(crate) use self::keys::CLAIM_KEY;
pub use self::keys::{Claim, UsedKey, claim_key, keep_account, refuse_key, used_key};
use crate::{amount::AmountCents, error::Error};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Where the money of an opening comes from.
pub const VAULT: i64 = 0;

/// A row of `accounts`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Account {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub owner: String,
    /// What is in it.
    pub balance_cents: i64,
    /// When it was opened.
    pub created_at: OffsetDateTime,
}

/// A row of `transfers`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Transfer {
    /// Its number.
    pub id: i64,
    /// The account that paid.
    pub from_account: i64,
    /// The account that was paid.
    pub to_account: i64,
    /// How much.
    pub amount_cents: i64,
    /// When its transaction began.
    pub created_at: OffsetDateTime,
}

/// A row of `entries`, with its transfer's time.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Entry {
    /// Its number, which grows from entry to entry of an account.
    pub id: i64,
    /// The transfer that it is a half of.
    pub transfer_id: i64,
    /// What came in; negative: what went out.
    pub amount_cents: i64,
    /// When the transfer was made.
    pub created_at: OffsetDateTime,
}

// ANCHOR: lock_accounts
/// Always in the order of their numbers: of two transfers in opposite directions, the one that gets the first
/// lock gets the second too. `no key update` is the lock that an update takes; `for update` would also
/// hold up those who only make sure that the account exists, as foreign keys do.
pub(crate) const LOCK_ACCOUNTS: &str = r#"
    select id, balance_cents
    from accounts
    where id in ($1, $2)
    order by id
    for no key update
"#;

/// Locks the accounts until the transaction ends; returns the number and the balance of each that exists.
pub async fn lock_accounts(
    connection: &mut PgConnection,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    Ok(sqlx::query_as(LOCK_ACCOUNTS).bind(from).bind(to).fetch_all(connection).await?)
}
// ANCHOR_END: lock_accounts

// ANCHOR: move_money
/// All that a transfer writes, in one round trip: the accounts stay locked no longer than they must. The database does
/// the arithmetic, although the rows are locked: it costs nothing, and stays right if somebody removes the lock.
pub(crate) const MOVE_MONEY: &str = r#"
    with debit as (
        update accounts
        set balance_cents = balance_cents - $4
        where id = $2
    ), credit as (
        update accounts
        set balance_cents = balance_cents + $4
        where id = $3
    ), both_entries as (
        insert into entries (transfer_id, account_id, amount_cents)
        values ($1, $2, -$4::bigint), ($1, $3, $4)
    )
    insert into transfers (id, from_account, to_account, amount_cents)
    values ($1, $2, $3, $4)
    returning id, from_account, to_account, amount_cents, created_at
"#;

/// Debits one account, credits the other, and writes down the transfer and its two entries.
pub async fn move_money(
    connection: &mut PgConnection,
    id: i64,
    (from, to): (i64, i64),
    amount: AmountCents,
) -> Result<Transfer, Error> {
    let write = sqlx::query_as(MOVE_MONEY).bind(id).bind(from).bind(to).bind(amount.get());
    Ok(write.fetch_one(connection).await?)
}
// ANCHOR_END: move_money

/// An empty account.
pub async fn insert_account(connection: &mut PgConnection, owner: &str) -> Result<Account, Error> {
    let insert = sqlx::query_as(
        r#"
        insert into accounts (owner, balance_cents)
        values ($1, 0)
        returning id, owner, balance_cents, created_at
        "#,
    );
    Ok(insert.bind(owner).fetch_one(connection).await?)
}

/// The account, if there is one.
pub async fn find_account(
    connection: &mut PgConnection,
    id: i64,
) -> Result<Option<Account>, Error> {
    let find = sqlx::query_as(
        r#"
        select id, owner, balance_cents, created_at
        from accounts
        where id = $1
        "#,
    );
    Ok(find.bind(id).fetch_optional(connection).await?)
}

/// The transfer, if there is one.
pub async fn find_transfer(
    connection: &mut PgConnection,
    id: i64,
) -> Result<Option<Transfer>, Error> {
    let find = sqlx::query_as(
        r#"
        select id, from_account, to_account, amount_cents, created_at
        from transfers
        where id = $1
        "#,
    );
    Ok(find.bind(id).fetch_optional(connection).await?)
}

// ANCHOR: entries_after
/// The account's next entries after this number, up to `limit`. A range of the primary key, however long the
/// ledger is: `offset` would read and throw away every page before it.
pub async fn entries_after(
    connection: &mut PgConnection,
    account: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let page = sqlx::query_as(
        r#"
        select entries.id, entries.transfer_id, entries.amount_cents, transfers.created_at
        from entries
        join transfers on transfers.id = entries.transfer_id
        where entries.account_id = $1 and entries.id > $2
        order by entries.id
        limit $3
        "#,
    );
    Ok(page.bind(account).bind(after).bind(limit).fetch_all(connection).await?)
}
// ANCHOR_END: entries_after
