//! How is a device reached? What does FCM want to be told, and what do its errors mean? (FCM HTTP v1.)

use std::{fmt::Display, path::Path, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Request, header},
};
use gcp_auth::{CustomServiceAccount, TokenProvider};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use crate::{notification::DeviceToken, store::attempts::Begun};

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/firebase.messaging"];
/// For an access token and the call with it. FCM asks for ten seconds at least before one gives up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// FCM's answers are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1_024;

/// FCM, for one project.
pub struct Fcm {
    /// What `gcp_auth` also uses. reqwest is here without TLS, and its own TLS would bring a second library for
    /// cryptography, in C, which takes long to build.
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Keeps an access token as long as it lasts.
    account: CustomServiceAccount,
    url: String,
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
    /// Sends by this service, for a service account: the file that Google's console gives out. The error is a file that
    /// is none.
    pub fn new(credentials: &Path, url: &Url) -> Result<Self, gcp_auth::Error> {
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let account = CustomServiceAccount::from_file(credentials)?;
        let project = account.project_id().unwrap_or_default();
        let url = format!("{url}v1/projects/{project}/messages:send");
        Ok(Self { client, account, url })
    }

    // ANCHOR: fcm
    /// Sends one notification to one device. FCM promises neither once nor in order: so a second push of a job replaces
    /// the first on the screen, and `data` has the job's number.
    pub async fn send(&self, device: &DeviceToken, job: &Begun) -> Result<(), Refusal> {
        let body = json!({ "message": {
            "token": device, "notification": { "title": job.title, "body": job.body },
            "data": { "job_id": job.job_id, "number": job.number.to_string() },
            "android": { "notification": { "tag": job.job_id } },
            "apns": { "headers": { "apns-collapse-id": job.job_id } },
        }});
        let sent = timeout(TIMEOUT, self.post(body.to_string())).await;
        sent.unwrap_or_else(|_| Err(later("no answer within 10 s")))
    }
    // ANCHOR_END: fcm

    async fn post(&self, body: String) -> Result<(), Refusal> {
        let token = self.account.token(&SCOPES).await.map_err(later)?;
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()))
            .body(Full::from(body))
            .map_err(later)?;
        let (head, body) = self.client.request(request).await.map_err(later)?.into_parts();
        if head.status.is_success() {
            return Ok(());
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(later)?.to_bytes();
        Err(Refusal::of(head.status.as_u16(), retry_after(&head.headers), &body))
    }
}

/// FCM was not reached, or its answer was not.
fn later(error: impl Display) -> Refusal {
    Refusal::Later(error.to_string(), None)
}

/// In seconds. The other form of `Retry-After`, a date, FCM does not use.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

impl Refusal {
    // ANCHOR: fcm_errors
    /// The error code decides, and where there is none the status: a proxy on the way has no codes.
    fn of(status: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let (error, details) = (&problem["error"], problem["error"]["details"].as_array());
        let codes = details.into_iter().flatten().filter_map(|detail| detail["errorCode"].as_str());
        let code = codes.chain(error["status"].as_str()).next().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        // PostgreSQL's text holds no NUL.
        let words = format!("{status} {code:.50} {message:.200}").replace('\0', "");
        match code {
            // Registered with another sender: never ours again either.
            "UNREGISTERED" | "SENDER_ID_MISMATCH" => Self::Unregistered,
            "INVALID_ARGUMENT" => Self::Invalid(words),
            "QUOTA_EXCEEDED" | "UNAVAILABLE" | "INTERNAL" | "THIRD_PARTY_AUTH_ERROR" => {
                Self::Later(words, retry_after)
            }
            _ if matches!(status, 401 | 403 | 408 | 429 | 500..) => Self::Later(words, retry_after),
            _ => Self::Invalid(words),
        }
    }
    // ANCHOR_END: fcm_errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str, retry_after: Option<u64>) -> Refusal {
        Refusal::of(status, retry_after, body.as_bytes())
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
