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
        answered(call, id, status, is_problem, &answer)
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

// ANCHOR: answered
/// What an answer says. A no is only what the participant says after it has considered this very order; whatever
/// else comes may have been said by a proxy, and leaves it unknown.
fn answered(call: Call, id: Uuid, status: StatusCode, is_problem: bool, answer: &Value) -> Record {
    let is_ours = answer["order_id"] == id.to_string();
    let detail = answer["detail"].as_str();
    let reason = match status {
        StatusCode::OK if is_ours => return Record::Done { call },
        // Only who names the order has really considered it.
        StatusCode::CONFLICT if is_problem && is_ours => {
            return Record::Refused { call, reason: tidy(detail.unwrap_or("refused")) };
        }
        StatusCode::OK => "200 that speaks of another order".to_owned(),
        _ => format!("{status} {}", detail.unwrap_or_default()),
    };
    Record::Failed { call, unknown: true, reason: tidy(&reason) }
}
// ANCHOR_END: answered

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

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(1);
    const ANOTHER: Uuid = Uuid::from_u128(2);

    fn heard(status: u16, is_problem: bool, answer: &Value) -> Record {
        let status = StatusCode::from_u16(status).unwrap();
        answered(Call::Charge, OURS, status, is_problem, answer)
    }

    #[test]
    fn a_yes_and_a_no_name_the_order() {
        let yes = json!({ "order_id": OURS, "outcome": "done" });
        assert_eq!(heard(200, false, &yes), Record::Done { call: Call::Charge });
        let no = json!({ "order_id": OURS, "detail": " the card was\ndeclined " });
        let reason = "the card wasdeclined".to_owned();
        assert_eq!(heard(409, true, &no), Record::Refused { call: Call::Charge, reason });
    }

    #[test]
    fn whatever_else_comes_is_unknown() {
        let (ours, others) = (json!({ "order_id": OURS }), json!({ "order_id": ANOTHER }));
        for (status, is_problem, answer) in [
            (200, false, &others),
            (200, false, &json!({})),
            (200, false, &json!("done")),
            (202, false, &ours),
            (409, true, &others),
            // Not our participant's way to say no.
            (409, false, &ours),
            (400, true, &ours),
            // A proxy knows nothing of cards.
            (404, false, &json!({})),
            (404, true, &ours),
            (408, true, &ours),
            (422, true, &ours),
            (429, true, &ours),
            (500, true, &ours),
            (503, true, &ours),
        ] {
            let record = heard(status, is_problem, answer);
            let is_unknown = matches!(record, Record::Failed { unknown: true, .. });
            assert!(is_unknown, "{status} {answer}: {record:?}");
        }
    }
}
