//! How do the experiments speak to the bank, and how do they look into its books?

use std::time::Duration;

use anyhow::{Context, ensure};
use lab::child::Child;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgConnection;

/// A client of one running bank.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

/// One payment, which may have to be sent more than once.
#[derive(Clone, Debug)]
pub struct Payment {
    /// What the client calls it.
    pub key: String,
    /// Who pays.
    pub from: i64,
    /// Who is paid.
    pub to: i64,
    /// How much.
    pub cents: i64,
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        Self::at(child.url())
    }

    /// Speaks to this address.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        let http = Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(256)
            .build()?;
        Ok(Self { http, url: url.to_owned() })
    }

    /// Opens an account with so much in it, and returns its number.
    pub async fn open(&self, balance_cents: i64) -> anyhow::Result<i64> {
        let account = json!({ "owner": "Somebody", "balance_cents": balance_cents });
        let response =
            self.http.post(format!("{}/accounts", self.url)).json(&account).send().await?;
        ensure!(response.status() == 201, "an account was answered with {}", response.status());
        response.json::<Value>().await?["id"].as_i64().context("no id in the answer")
    }

    /// Several accounts with the same in each.
    pub async fn open_all(&self, accounts: usize, cents: i64) -> anyhow::Result<Vec<i64>> {
        let mut all = Vec::new();
        for _ in 0..accounts {
            all.push(self.open(cents).await?);
        }
        Ok(all)
    }

    /// A payment as bytes, for the cheapest of clients.
    pub fn request(host: &str, payment: &Payment) -> Vec<u8> {
        let Payment { key, from, to, cents } = payment;
        let body = format!(r#"{{"from":{from},"to":{to},"amount_cents":{cents}}}"#);
        let length = body.len();
        format!(
            "POST /transfers HTTP/1.1\r\nhost: {host}\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Sends a payment: the status, and the body.
    pub async fn pay(&self, payment: &Payment) -> reqwest::Result<(u16, Value)> {
        let Payment { key, from, to, cents } = payment;
        let body = json!({ "from": from, "to": to, "amount_cents": cents });
        let request = self.http.post(format!("{}/transfers", self.url));
        let response = request.header("idempotency-key", key).json(&body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }
}

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

/// The server's URL for a process that PostgreSQL shall know by this name.
pub fn named(url: &str, name: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(url)?;
    url.query_pairs_mut().append_pair("application_name", name);
    Ok(url.into())
}

/// An open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// The last statement that PostgreSQL had from it.
    pub step: &'static str,
    /// Whether that has been done, and PostgreSQL waits for the next.
    pub done: bool,
}

/// Debited, and not yet credited.
pub const HALF_WAY: Open = Open { step: "debit", done: true };

/// The open transactions of the process of this name. To be asked while it is stopped, so that nothing moves.
pub async fn open_transactions(
    connection: &mut PgConnection,
    name: &str,
) -> anyhow::Result<Vec<Open>> {
    let query = sqlx::query_as(
        r#"
        select query, state = 'idle in transaction'
        from pg_stat_activity
        where application_name = $1 and state <> 'idle'
        "#,
    );
    let open: Vec<(String, bool)> = query.bind(name).fetch_all(connection).await?;
    Ok(open.iter().map(|(query, done)| Open { step: last_step(query), done: *done }).collect())
}

/// The steps of a transfer, in their order.
pub const STEPS: [&str; 9] = [
    "begin",
    "claim the key",
    "lock the accounts",
    "debit",
    "credit",
    "write the transfer",
    "write the entries",
    "commit",
    "another statement",
];

fn last_step(statement: &str) -> &'static str {
    let words = [
        "begin",
        "insert into idempotency_keys",
        "for no key update",
        "balance_cents - $2",
        "balance_cents + $2",
        "insert into transfers",
        "insert into entries",
        "commit",
    ];
    let step = words.iter().position(|words| statement.contains(words));
    STEPS[step.unwrap_or(STEPS.len() - 1)]
}

/// Random enough to choose accounts and moments with, and another one in each run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins anywhere.
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(RandomState::new().hash_one(()))
    }

    /// A number below `end`. `SplitMix64`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// Two different ones of these, and an amount.
    pub fn payment(&mut self, key: String, accounts: &[i64]) -> Payment {
        let count = accounts.len() as u64;
        let from = self.below(count);
        let to = (from + 1 + self.below(count - 1)) % count;
        let account = |at: u64| accounts[usize::try_from(at).unwrap_or(0)];
        let cents = 1 + i64::try_from(self.below(100)).unwrap_or(0);
        Payment { key, from: account(from), to: account(to), cents }
    }
}
