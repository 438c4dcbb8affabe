//! What did the participant say, and what does that mean? Refused, unknown and down are three different things.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::{
    order::Order,
    saga::{Call, Record},
};

/// More of an answer is not read.
const MAX_ANSWER: usize = 16 * 1_024;
/// More of a reason is not kept.
const MAX_REASON: usize = 300;

/// The three services, as the orchestrator reaches them.
#[derive(Clone, Debug)]
pub struct Caller {
    http: Client,
    /// Where they are, in the order of [`Participant::ALL`](crate::saga::Participant::ALL): `http://…/inventory` and so on.
    addresses: [Url; 3],
    /// What they want to be shown.
    key: Option<String>,
}

impl Caller {
    /// Each call takes this long at most.
    pub fn new(
        addresses: [Url; 3],
        key: Option<String>,
        timeout: Duration,
    ) -> reqwest::Result<Self> {
        let http =
            Client::builder().timeout(timeout).redirect(Policy::none()).no_proxy().build()?;
        Ok(Self { http, addresses, key })
    }

    // ANCHOR: classify
    /// Makes one attempt at a call, and returns what to write down about it.
    pub async fn call(&self, call: Call, id: Uuid, order: &Order) -> Record {
        let failed = |outcome_unknown, reason: &str| Record::Failed {
            call,
            outcome_unknown,
            reason: tidy(reason),
        };
        let address = self.addresses[call.participant() as usize].as_str().trim_end_matches('/');
        let mut request = self.http.post(format!("{address}/{call}")).json(&body(call, id, order));
        // The same for each attempt at this step of this order, whoever makes it.
        request = request.header("idempotency-key", format!("{id}.{call}"));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = match request.send().await {
            Ok(response) => response,
            // Down: no connection, so nothing was asked and nothing was done.
            Err(error) if error.is_connect() => return failed(false, "nobody listens there"),
            // Unknown: sent, or perhaps sent. A time-out is not a refusal.
            Err(error) if error.is_timeout() => return failed(true, "no answer in time"),
            Err(_) => return failed(true, "the connection broke"),
        };
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        let is_problem = kind.is_some_and(|kind| kind.starts_with(b"application/problem+json"));
        match read(response).await {
            Some(answer) => answered(call, id, status, is_problem, &answer),
            None => failed(true, &format!("{status} with an answer that cannot be read")),
        }
    }
    // ANCHOR_END: classify
}

// ANCHOR: answered
/// What an answer says. Only two things are certain: a yes and a no that name this order. Anything else may come from
/// a proxy, and leaves the outcome unknown.
fn answered(call: Call, id: Uuid, status: StatusCode, is_problem: bool, answer: &Value) -> Record {
    let is_ours = answer["order_id"] == id.to_string();
    let detail = answer["detail"].as_str();
    let reason = match status {
        StatusCode::OK if is_ours => return Record::Done { call },
        StatusCode::CONFLICT if is_problem && is_ours => {
            return Record::Refused { call, reason: tidy(detail.unwrap_or("refused")) };
        }
        StatusCode::OK => "200 that speaks of another order".to_owned(),
        _ => format!("{status} {}", detail.unwrap_or_default()),
    };
    Record::Failed { call, outcome_unknown: true, reason: tidy(&reason) }
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
    let ends_no_line = |c: &char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
    reason.trim().chars().filter(ends_no_line).take(MAX_REASON).collect()
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
            let is_unknown = matches!(record, Record::Failed { outcome_unknown: true, .. });
            assert!(is_unknown, "{status} {answer}: {record:?}");
        }
    }
}
