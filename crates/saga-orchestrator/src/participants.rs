//! What did the participant say, and what does that mean? Refused, unknown and down are three different things.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header::CONTENT_TYPE, redirect::Policy};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::{
    order::Order,
    saga::{Call, Participant, Record},
};

/// More of an answer is not read.
const MAX_ANSWER: usize = 16 * 1_024;
/// More of a reason is not kept.
const MAX_REASON: usize = 300;

/// Where the participants are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `http://…/inventory`.
    pub inventory: Url,
    /// `http://…/payment`.
    pub payment: Url,
    /// `http://…/shipping`.
    pub shipping: Url,
}

/// The three services, as the orchestrator reaches them.
#[derive(Clone, Debug)]
pub struct Participants {
    http: Client,
    addresses: Addresses,
}

impl Participants {
    /// Each call takes this long at most.
    pub fn new(addresses: Addresses, timeout: Duration) -> reqwest::Result<Self> {
        let http = Client::builder()
            .timeout(timeout)
            .redirect(Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(64)
            .build()?;
        Ok(Self { http, addresses })
    }

    // ANCHOR: classify
    /// Makes one attempt at a call, and returns what to write down about it.
    pub async fn call(&self, call: Call, id: Uuid, order: &Order) -> Record {
        let unknown =
            |reason: String| Record::Failed { call, unknown: true, reason: tidy(&reason) };
        let request = self
            .http
            .post(self.url(call))
            // The same for each attempt at this step of this order, whoever makes it.
            .header("idempotency-key", format!("{id}.{call}"))
            .json(&body(call, id, order));
        let response = match request.send().await {
            Ok(response) => response,
            // Down: no connection, so nothing was asked and nothing was done.
            Err(error) if error.is_connect() => {
                let reason = "nobody listens there".to_owned();
                return Record::Failed { call, unknown: false, reason };
            }
            // Unknown: sent, or perhaps sent. A time-out is not a refusal.
            Err(error) if error.is_timeout() => return unknown("no answer in time".to_owned()),
            Err(_) => return unknown("the connection broke".to_owned()),
        };
        let status = response.status();
        let is_problem = is_problem(&response);
        let Some(answer) = read(response).await else {
            return unknown(format!("{status} with an answer that cannot be read"));
        };
        let is_ours = answer["order_id"] == id.to_string();
        match status {
            StatusCode::OK if is_ours => Record::Done { call },
            // Only who names the order has really considered it.
            StatusCode::CONFLICT if is_problem && is_ours => {
                let reason = answer["detail"].as_str().unwrap_or("refused");
                Record::Refused { call, reason: tidy(reason) }
            }
            StatusCode::OK => unknown("200 that speaks of another order".to_owned()),
            _ => unknown(format!("{status} {}", answer["detail"].as_str().unwrap_or_default())),
        }
    }
    // ANCHOR_END: classify

    fn url(&self, call: Call) -> String {
        let base = match call.participant() {
            Participant::Inventory => &self.addresses.inventory,
            Participant::Payment => &self.addresses.payment,
            Participant::Shipping => &self.addresses.shipping,
        };
        format!("{}/{call}", base.as_str().trim_end_matches('/'))
    }
}

/// What a participant has to know, and no more.
pub fn body(call: Call, id: Uuid, order: &Order) -> Value {
    match call {
        Call::Reserve => json!({ "order_id": id, "items": order.items }),
        Call::Charge => json!({
            "order_id": id,
            "amount_cents": order.amount_cents,
            "payment_method": order.payment_method,
        }),
        Call::Book => json!({ "order_id": id, "address": order.address }),
        Call::Release | Call::Refund | Call::Cancel | Call::Sell => json!({ "order_id": id }),
    }
}

fn is_problem(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/problem+json"))
}

/// The answer as JSON, unless it is none, or too long, or breaks off.
async fn read(mut response: Response) -> Option<Value> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return None;
        }
    }
    serde_json::from_slice(&bytes).ok()
}

/// What another service wrote goes into our log and to our clients: short, and on one line.
fn tidy(reason: &str) -> String {
    reason.trim().chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}
