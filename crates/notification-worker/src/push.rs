//! What does FCM want to be told, and what do its errors mean? (FCM HTTP v1.)

use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::{
    https::{Answer, Https},
    ids::DeviceToken,
    notification::Priority,
    oauth::{ServiceAccount, Tokens},
    store::Begun,
};

/// FCM, for one project.
pub struct Fcm {
    https: Https,
    tokens: Tokens,
    send: String,
}

/// Why a device does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device is no more: nobody must ask again.
    Unregistered,
    /// This message will never do.
    Invalid(String),
    /// Not now; and not before so many seconds have passed, if FCM says so.
    Later(String, Option<u64>),
}

impl Fcm {
    /// Sends by this service. The error is a credentials file that is none.
    pub fn new(account: ServiceAccount, url: &Url) -> anyhow::Result<Self> {
        let root = url.as_str().trim_end_matches('/');
        let send = format!("{root}/v1/projects/{}/messages:send", account.project_id);
        let https = Https::new();
        Ok(Self { tokens: Tokens::new(account, https.clone())?, https, send })
    }

    // ANCHOR: fcm
    /// Sends one notification to one device. `data` carries what an app needs to show nothing twice and
    /// everything in order: FCM itself promises neither.
    pub async fn send(&self, device: &DeviceToken, job: &Begun) -> Result<(), Refusal> {
        let later = |error| Refusal::Later(error, None);
        let token = self.tokens.get().await.map_err(later)?;
        let priority = match job.priority {
            Priority::High => "HIGH",
            Priority::Normal => "NORMAL",
        };
        let body = json!({ "message": {
            "token": device,
            "notification": { "title": job.title, "body": job.body },
            "data": { "job_id": job.job_id, "seq": job.seq.to_string() },
            "android": { "priority": priority },
        }});
        let bearer = format!("Bearer {token}");
        let sent = self.https.post(&self.send, "application/json", Some(&bearer), body.to_string());
        let refused = match sent.await.map_err(later)? {
            Answer { status: 200, .. } => return Ok(()),
            answer => answer,
        };
        if refused.status == 401 {
            self.tokens.refused(&token).await;
        }
        Err(Refusal::of(&refused))
    }
    // ANCHOR_END: fcm
}

/// FCM's error, as far as it matters.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: FcmError,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FcmError {
    status: String,
    message: String,
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    error_code: String,
}

impl Refusal {
    // ANCHOR: fcm_errors
    /// The error code decides, and where there is none the status: a proxy on the way has no codes.
    fn of(answer: &Answer) -> Self {
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
        let FcmError { status, message, details } = problem.error;
        let code =
            details.into_iter().map(|detail| detail.error_code).find(|code| !code.is_empty());
        let code = code.unwrap_or(status);
        // PostgreSQL's text holds no NUL.
        let words = format!("{} {code:.50} {message:.200}", answer.status).replace('\0', "");
        match code.as_str() {
            // Registered with another sender: never ours again either.
            "UNREGISTERED" | "SENDER_ID_MISMATCH" => Self::Unregistered,
            "INVALID_ARGUMENT" => Self::Invalid(words),
            "QUOTA_EXCEEDED" | "UNAVAILABLE" | "INTERNAL" | "THIRD_PARTY_AUTH_ERROR" => {
                Self::Later(words, answer.retry_after)
            }
            _ if matches!(answer.status, 401 | 403 | 408 | 429 | 500..) => {
                Self::Later(words, answer.retry_after)
            }
            _ => Self::Invalid(words),
        }
    }
    // ANCHOR_END: fcm_errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str, retry_after: Option<u64>) -> Refusal {
        Refusal::of(&Answer { status, retry_after, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_error_code_says_what_to_do() {
        let body = |code: &str| {
            format!(
                r#"{{"error":{{"status":"X","message":"m","details":[{{"@type":"t"}},{{"errorCode":"{code}"}}]}}}}"#
            )
        };
        assert_eq!(refusal(404, &body("UNREGISTERED"), None), Refusal::Unregistered);
        assert_eq!(refusal(403, &body("SENDER_ID_MISMATCH"), None), Refusal::Unregistered);
        assert!(matches!(refusal(400, &body("INVALID_ARGUMENT"), None), Refusal::Invalid(_)));
        for (status, code) in [(429, "QUOTA_EXCEEDED"), (503, "UNAVAILABLE"), (500, "INTERNAL")] {
            let Refusal::Later(words, Some(7)) = refusal(status, &body(code), Some(7)) else {
                panic!("{code} is not for later");
            };
            assert!(words.contains(code), "{words}");
        }
    }

    #[test]
    fn without_a_code_the_status_decides() {
        assert!(matches!(refusal(502, "<html>", None), Refusal::Later(..)));
        assert!(matches!(refusal(401, "", None), Refusal::Later(..)));
        assert!(matches!(refusal(404, "", None), Refusal::Invalid(_)));
        assert!(matches!(refusal(413, "", None), Refusal::Invalid(_)));
    }
}
