//! Are the books right? What every experiment asks at its end.

use sqlx::PgConnection;

/// What the books say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Books {
    /// All balances, the vault's too.
    pub total: i64,
    /// What customers own.
    pub customers: i64,
    /// Accounts whose balance is not the sum of their entries.
    pub wrong_accounts: i64,
    /// Transfers that have not two entries, or whose entries do not sum to zero.
    pub wrong_transfers: i64,
}

impl Books {
    /// Reads all of it in one statement, so at one moment.
    pub async fn read(connection: &mut PgConnection) -> anyhow::Result<Self> {
        let books = sqlx::query_as(
            r#"
            select
                sum(balance_cents)::bigint as total,
                (sum(balance_cents) filter (where id > 0))::bigint as customers,
                count(*) filter (where balance_cents <> (
                    select coalesce(sum(amount_cents), 0)
                    from entries
                    where account_id = accounts.id
                )) as wrong_accounts,
                (
                    select count(*)
                    from (
                        select
                        from transfers
                        left join entries on entries.transfer_id = transfers.id
                        group by transfers.id
                        having count(entries.id) <> 2 or sum(entries.amount_cents) <> 0
                    ) as wrong
                ) as wrong_transfers
            from accounts
            "#,
        );
        Ok(books.fetch_one(connection).await?)
    }

    /// What customers own, when nobody is wrong.
    pub fn right(customers: i64) -> Self {
        Self { total: 0, customers, wrong_accounts: 0, wrong_transfers: 0 }
    }

    /// In words.
    pub fn words(&self) -> String {
        format!(
            "customers own {}, all balances sum to {}, {} accounts and {} transfers are wrong",
            self.customers, self.total, self.wrong_accounts, self.wrong_transfers
        )
    }
}
