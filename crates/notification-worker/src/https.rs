//! How do we call Google? With a client that is small, patient for seconds only, and reads only so much.

use std::time::Duration;

use axum::http::{HeaderValue, Request, Response, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// For a call and its answer. FCM asks for ten seconds at least before one gives up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// FCM's answers are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1_024;
/// Connections that are kept open for the next call.
const KEPT_OPEN: usize = 64;

/// What every part of a body is.
type Bytes = axum::body::Bytes;

/// The client. Plain HTTP serves too, for a server on this machine.
#[derive(Clone)]
pub struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What `Retry-After` says, in seconds. Its other form, a date, FCM does not use.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Https {
    /// Trusts the certificate authorities that browsers trust.
    pub fn new() -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let mut builder = Client::builder(TokioExecutor::new());
        Self(builder.pool_max_idle_per_host(KEPT_OPEN).build(connector))
    }

    /// Posts a body. The error is for the log of attempts, and says what did not work.
    pub async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        authorization: Option<&str>,
        body: String,
    ) -> Result<Answer, String> {
        let mut request = Request::post(url).header("content-type", content_type);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let call = async {
            let response = self.0.request(request).await.map_err(|error| error.to_string())?;
            let retry_after = retry_after(&response);
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes().to_vec();
            Ok(Answer { status, retry_after, body })
        };
        timeout(TIMEOUT, call).await.map_err(|_| "no answer within 10 s".to_owned())?
    }
}

impl Default for Https {
    fn default() -> Self {
        Self::new()
    }
}

fn retry_after<B>(response: &Response<B>) -> Option<u64> {
    let value: &HeaderValue = response.headers().get(RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok()
}
