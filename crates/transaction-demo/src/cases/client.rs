//! How do cases, tests and experiments speak to a bank? As a client of its table of calls.

use std::hash::{BuildHasher, RandomState};

use conform::{
    case::Outcome,
    expect::{equal, expect, integer, json, json_of, list},
    target::Target,
};
use futures_util::future::try_join_all;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// One payment, which may have to be sent more than once.
#[derive(Clone, Debug)]
pub struct Payment {
    /// What the client calls it: its idempotency key.
    pub key: String,
    /// Who pays.
    pub from: i64,
    /// Who is paid.
    pub to: i64,
    /// How much.
    pub cents: i64,
}

impl Payment {
    /// The body of its request.
    pub fn body(&self) -> Value {
        json!({ "from": self.from, "to": self.to, "amount_cents": self.cents })
    }
}

/// A client of one running bank.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
}

impl Client {
    /// Speaks to this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// Speaks to the program at this URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(url, None)? })
    }

    /// The request for an account, without its body, under a key that no other request uses.
    pub fn opening(&self) -> RequestBuilder {
        self.keyed("accounts", &self.new_key())
    }

    /// Asks for an account under a new key, and asks again while the bank is too busy.
    pub async fn open_account(&self, account: &Value) -> anyhow::Result<Response> {
        self.open_account_with(&self.new_key(), account).await
    }

    /// The same under this key.
    pub async fn open_account_with(&self, key: &str, account: &Value) -> anyhow::Result<Response> {
        Ok(self.target.send_patiently(|| self.keyed("accounts", key).json(account)).await?.0)
    }

    /// A request under this key, without its body.
    pub fn keyed(&self, path: &str, key: &str) -> RequestBuilder {
        self.target.request(Method::POST, path).header("idempotency-key", key)
    }

    /// Opens an account that must be opened, and returns its number.
    pub async fn open(&self, balance_cents: i64) -> anyhow::Result<i64> {
        let account = json!({ "owner": "Ada", "balance_cents": balance_cents });
        integer(&json_of(self.open_account(&account).await?, 201).await?, "id")
    }

    /// Opens two accounts.
    pub async fn open_two(&self, one: i64, two: i64) -> anyhow::Result<(i64, i64)> {
        Ok((self.open(one).await?, self.open(two).await?))
    }

    /// Opens several accounts with the same in each.
    pub async fn open_all(&self, accounts: usize, cents: i64) -> anyhow::Result<Vec<i64>> {
        let mut all = Vec::new();
        for _ in 0..accounts {
            all.push(self.open(cents).await?);
        }
        Ok(all)
    }

    /// Looks at an account.
    pub async fn account(&self, account: i64) -> anyhow::Result<Response> {
        self.target.get(&format!("accounts/{account}")).await
    }

    /// What is in an account.
    pub async fn balance(&self, account: i64) -> anyhow::Result<i64> {
        integer(&json_of(self.account(account).await?, 200).await?, "balance_cents")
    }

    /// What is in two accounts.
    pub async fn balances(&self, (one, two): (i64, i64)) -> anyhow::Result<(i64, i64)> {
        Ok((self.balance(one).await?, self.balance(two).await?))
    }

    /// All entries of an account, page by page.
    pub async fn entries(&self, account: i64) -> anyhow::Result<Vec<Value>> {
        let mut entries = Vec::new();
        let mut next = Some(format!("/accounts/{account}/entries"));
        while let Some(path) = next {
            let page = json_of(self.target.get(&path).await?, 200).await?;
            entries.extend(list(&page, "entries")?.iter().cloned());
            next = page["next"].as_str().map(str::to_owned);
            expect(next.as_ref() != Some(&path), "`next` to lead to another page", &page)?;
        }
        Ok(entries)
    }

    /// The amounts of all entries of an account. One of nothing, such as the opening of an empty account, does not count.
    pub async fn amounts(&self, account: i64) -> anyhow::Result<Vec<i64>> {
        let entries = self.entries(account).await?;
        let amounts = entries.iter().map(|entry| integer(entry, "amount_cents"));
        amounts.filter(|amount| !matches!(amount, Ok(0))).collect()
    }

    /// Checks that two accounts hold what they should, and that each balance is the sum of its entries.
    pub async fn audit(&self, (one, two): (i64, i64), expected: (i64, i64)) -> Outcome {
        let balances = self.balances((one, two)).await?;
        let both = |(one, two)| vec![one, two];
        equal("the balances of the two accounts", both(balances), both(expected))?;
        for (account, balance) in [(one, balances.0), (two, balances.1)] {
            let sum: i64 = self.amounts(account).await?.iter().sum();
            equal("the sum of the entries of an account", sum, balance)?;
        }
        Ok(())
    }

    /// A key that no other run uses.
    pub fn key(&self, name: &str) -> String {
        format!("{name}-{}", self.target.tag())
    }

    /// A key that no other request uses.
    fn new_key(&self) -> String {
        self.key(&format!("{:016x}", RandomState::new().hash_one(())))
    }

    /// A payment with a key that no other run uses.
    pub fn payment(&self, name: &str, (from, to): (i64, i64), cents: i64) -> Payment {
        Payment { key: self.key(name), from, to, cents }
    }

    /// The request for a payment.
    pub fn request(&self, payment: &Payment) -> RequestBuilder {
        self.keyed("transfers", &payment.key).json(&payment.body())
    }

    /// The answers to requests that arrive at the same moment: status and body.
    pub async fn said_together(
        &self,
        requests: impl Iterator<Item = RequestBuilder>,
    ) -> anyhow::Result<Vec<(u16, Value)>> {
        let answers = self.target.send_together(requests.collect()).await?;
        try_join_all(answers.into_iter().map(|(response, _)| said(response))).await
    }

    /// Sends a payment, once.
    pub async fn send(&self, payment: &Payment) -> anyhow::Result<Response> {
        self.target.send(self.request(payment)).await
    }

    /// Sends a payment, and sends it again as long as the answer is 503, which means "try again with the same key".
    pub async fn send_until_decided(&self, payment: &Payment) -> anyhow::Result<Response> {
        Ok(self.target.send_patiently(|| self.request(payment)).await?.0)
    }

    /// Makes a payment with a key that no other run uses, and waits until it is decided.
    pub async fn pay(
        &self,
        name: &str,
        accounts: (i64, i64),
        cents: i64,
    ) -> anyhow::Result<Response> {
        self.send_until_decided(&self.payment(name, accounts, cents)).await
    }

    /// Makes a payment that must be made, and returns the transfer's number.
    pub async fn paid(&self, name: &str, accounts: (i64, i64), cents: i64) -> anyhow::Result<i64> {
        integer(&json_of(self.pay(name, accounts, cents).await?, 201).await?, "id")
    }
}

/// The status of an answer, and its body.
pub async fn said(response: Response) -> anyhow::Result<(u16, Value)> {
    Ok((response.status().as_u16(), json(response).await?))
}
