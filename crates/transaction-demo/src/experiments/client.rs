//! How do the experiments speak to the bank? As a client of its table of calls.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lab::child::Child;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Answers that say nothing about the payment, and ask for it to be sent again with the same key: the database,
/// or the bank itself, did not get there in time. A busy machine gives them too.
const AGAIN: [u16; 2] = [408, 503];

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

    /// Sends a payment, as a client that tries again when it is told to, until it is decided: the status, and
    /// the body.
    pub async fn pay_until_decided(&self, payment: &Payment) -> anyhow::Result<(u16, Value)> {
        for _ in 0..20 {
            let (status, body) = self.pay(payment).await?;
            if !AGAIN.contains(&status) {
                return Ok((status, body));
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("{payment:?} was never decided")
    }
}

/// Sends the payment until it is answered with 201: to one of the processes, and when that is dead, to the next.
/// Returns the answer, which of the processes gave it, and how often it was sent.
pub async fn until_paid(
    apis: &[Api],
    first: usize,
    payment: &Payment,
) -> anyhow::Result<(Value, usize, u64)> {
    for sent in 0..100_000 {
        let at = (first + sent) % apis.len();
        match apis[at].pay(payment).await {
            Ok((201, body)) => return Ok((body, at, 1 + sent as u64)),
            // It did not get there in time. Whether it paid is unknown: again.
            Ok((status, _)) if AGAIN.contains(&status) => {}
            Ok((status, body)) => bail!("{payment:?} was answered with {status}: {body}"),
            // Refused or reset: it is dead. A moment, so that we do not turn in circles.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    bail!("{payment:?} was never answered")
}
