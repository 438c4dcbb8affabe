//! What do tests, experiments and cases start from? A fresh database, and banks on it.

use std::time::Duration;

use anyhow::{bail, ensure};
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::books::Books;
use crate::{
    MIGRATIONS,
    cases::client::{Client, Payment, said},
};

const NAME: &str = "transaction-demo";

/// A fresh database. It is dropped with this value, so this has to outlive its banks.
#[derive(Debug)]
pub struct Fixture {
    /// With the schema, and nothing in it.
    pub database: Database,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        Ok(Self { database: Database::fresh(NAME, &MIGRATIONS).await? })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// On a server of the experiment's own.
    pub async fn on(server: &str) -> anyhow::Result<Self> {
        Ok(Self { database: Database::fresh_on(server, NAME, &MIGRATIONS).await? })
    }

    /// Prepares a bank on this database.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.database)
    }

    /// Starts a bank with these options; and a client of it.
    pub async fn start(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        start(self.serve().args(options)).await
    }

    /// Accounts 1 to n, with the same in each. In one statement: thousands of requests would take longer than
    /// all that is measured.
    pub async fn open_accounts(&self, accounts: i64, cents: i64) -> anyhow::Result<Vec<i64>> {
        let mut connection = self.connect().await?;
        let open = sqlx::query(
            r#"
            with opened as (
                insert into accounts (owner, balance_cents)
                select 'Somebody', $2
                from generate_series(1, $1)
                returning id
            ), paid_in as (
                insert into transfers (from_account, to_account, amount_cents)
                select 0, id, $2
                from opened
                returning id, to_account
            ), written as (
                insert into entries (transfer_id, account_id, amount_cents)
                select id, account, cents
                from paid_in
                cross join lateral (values (0, -$2::bigint), (to_account, $2)) as half (account, cents)
            )
            update accounts
            set balance_cents = -$1::bigint * $2
            where id = 0
            "#,
        );
        open.bind(accounts).bind(cents).execute(&mut connection).await?;
        sqlx::raw_sql("vacuum analyze").execute(&mut connection).await?;
        Ok((1..=accounts).collect())
    }

    /// A connection to the database.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(self.database.url()).await?)
    }

    /// Checks that all balances sum to zero with the vault's, and that each is the sum of its entries.
    pub async fn audit(&self) -> anyhow::Result<()> {
        let books = Books::read(&mut self.connect().await?).await?;
        ensure!((books.total, books.wrong_accounts) == (0, 0), "{}", books.words());
        Ok(())
    }
}

/// Starts a bank that has been prepared; and a client of it.
pub async fn start(bank: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = bank.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}

/// Sends the payment until it is answered with 201: to one of the banks, and when that is dead, to the next.
/// Returns the answer, which of the banks gave it, and how often the payment was sent.
pub async fn until_paid(
    banks: &[Client],
    first: usize,
    payment: &Payment,
) -> anyhow::Result<(Value, usize, u64)> {
    for sent in 0..100_000 {
        let at = (first + sent) % banks.len();
        let answer = async { said(banks[at].send(payment).await?).await };
        match answer.await {
            Ok((201, body)) => return Ok((body, at, 1 + sent as u64)),
            // It did not get there in time. Whether it paid is unknown: again.
            Ok((503, _)) => {}
            Ok((status, body)) => bail!("{payment:?} was answered with {status}: {body}"),
            // Refused or reset: it is dead. A moment, so that we do not turn in circles.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    bail!("{payment:?} was never answered")
}
