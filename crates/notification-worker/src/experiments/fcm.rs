//! How are pushes tried without Google? By a server that speaks FCM's interface, and checks what it is shown.

use std::{
    collections::HashSet,
    fmt,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::verify, dangerous::insecure_decode_claims};
use rsa::{
    RsaPrivateKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, sleep, timeout},
};

const PROJECT: &str = "a-project";
const ACCOUNT: &str = "sender@a-project.iam.example";

/// A message that came, and what was answered.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it came.
    pub at: Instant,
    /// To which device.
    pub device: String,
    /// Which job.
    pub job_id: String,
    /// Its number.
    pub number: i64,
    /// What was answered.
    pub status: u16,
}

/// What becomes of a message: after so long it is taken, or refused.
#[derive(Clone, Debug)]
pub struct Fate {
    /// How long FCM takes.
    pub after: Duration,
    /// The status and FCM's code, and the seconds of `Retry-After`.
    pub refusal: Option<(u16, &'static str, Option<u64>)>,
}

impl Fate {
    /// Taken at once.
    pub const TAKEN: Self = Self { after: Duration::ZERO, refusal: None };

    /// Taken after a while.
    pub fn slow(after: Duration) -> Self {
        Self { after, refusal: None }
    }

    /// Refused at once.
    pub fn refused(status: u16, code: &'static str, retry_after: Option<u64>) -> Self {
        Self { after: Duration::ZERO, refusal: Some((status, code, retry_after)) }
    }
}

type Decide = Box<dyn Fn(&Sent) -> Fate + Send + Sync>;

struct Google {
    key: DecodingKey,
    decide: Decide,
    granted: Mutex<HashSet<String>>,
    sent: watch::Sender<Vec<Sent>>,
    /// Token requests that were refused.
    forged: Mutex<u64>,
    /// For how many seconds a token is good.
    expires_in: AtomicU64,
}

/// The server, until it is dropped.
pub struct FakeFcm {
    here: lab::serve::Here,
    google: Arc<Google>,
    /// For `--fcm-credentials`.
    pub credentials: NamedTempFile,
}

impl fmt::Debug for FakeFcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeFcm").field("here", &self.here).finish_non_exhaustive()
    }
}

/// One key for the whole process: making one takes a moment.
static KEY: OnceCell<(String, String)> = OnceCell::const_new();

async fn key() -> anyhow::Result<&'static (String, String)> {
    KEY.get_or_try_init(async || {
        tokio::task::spawn_blocking(|| {
            let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2_048)?;
            let public = private.to_public_key().to_public_key_pem(LineEnding::LF)?;
            anyhow::Ok((private.to_pkcs8_pem(LineEnding::LF)?.to_string(), public))
        })
        .await?
    })
    .await
}

impl FakeFcm {
    /// A server that decides so.
    pub async fn start(
        decide: impl Fn(&Sent) -> Fate + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (private, public) = key().await?;
        let google = Arc::new(Google {
            key: DecodingKey::from_rsa_pem(public.as_bytes())?,
            decide: Box::new(decide),
            granted: Mutex::default(),
            sent: watch::Sender::new(Vec::new()),
            forged: Mutex::default(),
            expires_in: AtomicU64::new(3_599),
        });
        let router = Router::new()
            .route("/token", post(token))
            .route("/v1/projects/{project}/{call}", post(send))
            .with_state(Arc::clone(&google));
        let here = lab::serve::here(router).await?;
        let mut credentials = NamedTempFile::new()?;
        let account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "client_email": ACCOUNT,
            "private_key": private,
            "token_uri": format!("http://{}/token", here.host),
        });
        credentials.write_all(account.to_string().as_bytes())?;
        Ok(Self { here, google, credentials })
    }

    /// For `--fcm-url`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.here.host)
    }

    /// Everything that came, in its order.
    pub fn sent(&self) -> Vec<Sent> {
        self.google.sent.borrow().clone()
    }

    /// Waits until this holds of what came, and returns that.
    pub async fn until(
        &self,
        what: &str,
        patience: Duration,
        condition: impl FnMut(&Vec<Sent>) -> bool,
    ) -> anyhow::Result<Vec<Sent>> {
        let mut sent = self.google.sent.subscribe();
        let found = timeout(patience, sent.wait_for(condition)).await;
        let found = found.with_context(|| format!("waited in vain: {what}"))?;
        Ok(found.context("the server has gone")?.clone())
    }

    /// How many access tokens were given out, and refused.
    pub fn tokens(&self) -> (usize, u64) {
        (lock(&self.google.granted).len(), *lock(&self.google.forged))
    }

    /// Gives out access tokens that are good for so many seconds. For 2⁶⁴ - 1 of them, the library that asks for a
    /// token panics: a date so far away does not exist.
    pub fn tokens_expire_in(&self, seconds: u64) {
        self.google.expires_in.store(seconds, Ordering::Relaxed);
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    scope: String,
    iat: u64,
    exp: u64,
}

/// The token endpoint: it gives a token only for a statement that the account has signed.
async fn token(State(google): State<Arc<Google>>, headers: HeaderMap, form: String) -> Response {
    let check = || {
        let form: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        ensure!(
            field("grant_type")
                .is_some_and(|it| it == "urn:ietf:params:oauth:grant-type:jwt-bearer")
        );
        let host = headers.get("host").and_then(|host| host.to_str().ok()).context("no host")?;
        let assertion = field("assertion").context("no assertion")?;
        // Google takes a statement with base64's padding too, which RFC 7515 forbids and gcp_auth writes. What is signed
        // has the padding in it, and what jsonwebtoken reads must not.
        let (signed, signature) = assertion.rsplit_once('.').context("no signature")?;
        let signature = signature.trim_end_matches('=');
        ensure!(verify(signature, signed.as_bytes(), &google.key, Algorithm::RS256)?);
        let claims: Claims = insecure_decode_claims(assertion.replace('=', ""))?;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        ensure!(claims.iss == ACCOUNT && claims.aud == format!("http://{host}/token"));
        ensure!(claims.exp > now && claims.iat <= now && claims.exp - claims.iat <= 3_600);
        ensure!(claims.scope == "https://www.googleapis.com/auth/firebase.messaging");
        Ok(())
    };
    let checked: anyhow::Result<()> = check();
    if let Err(error) = checked {
        *lock(&google.forged) += 1;
        let body = json!({ "error": "invalid_grant", "error_description": error.to_string() });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let token = format!("ya29.{:032x}", rand::random::<u128>());
    lock(&google.granted).insert(token.clone());
    Json(json!({ "access_token": token, "expires_in": google.expires_in.load(Ordering::Relaxed), "token_type": "Bearer" }))
        .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    message: Message,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    token: String,
    #[expect(dead_code, reason = "that it is there, and text, is what is checked")]
    notification: Notification,
    data: Payload,
    android: Value,
    apns: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it is there, and text, is what is checked")]
struct Notification {
    title: String,
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    job_id: String,
    /// FCM takes text only in `data`.
    number: String,
}

async fn send(
    State(google): State<Arc<Google>>,
    Path((project, call)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !lock(&google.granted).contains(bearer) {
        return problem(401, "UNAUTHENTICATED", None);
    }
    if project != PROJECT || call != "messages:send" {
        return problem(404, "NOT_FOUND", None);
    }
    let Ok(Envelope { message }) = serde_json::from_str(&body) else {
        return problem(400, "INVALID_ARGUMENT", None);
    };
    // Otherwise a second push of a job stands beside the first on the screen.
    let shown_as =
        [&message.android["notification"]["tag"], &message.apns["headers"]["apns-collapse-id"]];
    if shown_as.iter().any(|name| **name != message.data.job_id) {
        return problem(400, "INVALID_ARGUMENT", None);
    }
    let mut sent = Sent {
        at: Instant::now(),
        device: message.token,
        job_id: message.data.job_id,
        number: message.data.number.parse().unwrap_or(-1),
        status: 200,
    };
    let Fate { after, refusal } = (google.decide)(&sent);
    if !after.is_zero() {
        sleep(after).await;
    }
    sent.status = refusal.map_or(200, |(status, ..)| status);
    let name = format!("projects/{PROJECT}/messages/{}", sent.job_id);
    google.sent.send_modify(|all| all.push(sent));
    match refusal {
        Some((status, code, retry_after)) => problem(status, code, retry_after),
        None => Json(json!({ "name": name })).into_response(),
    }
}

/// As FCM puts it.
fn problem(status: u16, code: &str, retry_after: Option<u64>) -> Response {
    let body: Value = json!({ "error": {
        "code": status,
        "message": "not this time",
        "status": code,
        "details": [{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code }],
    }});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// A panic cannot leave these half changed, so poison is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
