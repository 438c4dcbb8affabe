//! How do cases, tests and experiments speak to the service? As a client of its table of calls.

use anyhow::{Context, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conform::{
    case::Outcome,
    expect::{expect, json_of, status, status_in},
    http::{header, problem},
    target::Target,
};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// Everybody's password here.
pub const PASSWORD: &str = "seven quiet otters at noon";

/// What a login or a refresh gives.
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    /// To show to every service.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// The life of the access token, in seconds.
    pub expires_in: u64,
    /// To show to the issuer only.
    pub refresh_token: String,
}

/// A client of one running service. It asks again when it is told 503; the target itself asks once.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
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

    /// An email address that no other run uses.
    pub fn email(&self, name: &str) -> String {
        format!("{name}-{}@example.com", self.target.tag())
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        Ok(self.target.post_patiently(path, body).await?.0)
    }

    /// Makes an account, which nobody has yet.
    pub async fn register(&self, email: &str) -> Outcome {
        self.register_with(email, PASSWORD).await
    }

    /// The same, with another password.
    pub async fn register_with(&self, email: &str, password: &str) -> Outcome {
        let account = credentials(email, password);
        let (response, unsure) = self.target.post_patiently("register", &account).await?;
        // The call that got a 503 may have made the account.
        if unsure { status_in(&response, &[201, 409]) } else { status(&response, 201) }
    }

    /// Tries to log in.
    pub async fn try_login(&self, email: &str, password: &str) -> anyhow::Result<Response> {
        self.post("login", &credentials(email, password)).await
    }

    /// Logs in, successfully.
    pub async fn log_in(&self, email: &str) -> anyhow::Result<Tokens> {
        tokens(self.try_login(email, PASSWORD).await?).await
    }

    /// Registers, and logs in.
    pub async fn join(&self, email: &str) -> anyhow::Result<Tokens> {
        self.register(email).await?;
        self.log_in(email).await
    }

    /// Asks for the next pair of tokens. If the first try got a 503, it may have been carried out: within the grace
    /// this does not matter.
    pub async fn refresh(&self, refresh_token: &str) -> anyhow::Result<Response> {
        self.post("token/refresh", &json!({ "refresh_token": refresh_token })).await
    }

    /// Ends the session of an access token.
    pub async fn log_out(&self, access_token: &str) -> anyhow::Result<Response> {
        let request = || self.target.request(Method::POST, "logout").bearer_auth(access_token);
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// Asks who the access token belongs to.
    pub async fn me(&self, access_token: &str) -> anyhow::Result<Response> {
        let request = || self.target.request(Method::GET, "me").bearer_auth(access_token);
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// Shows an access token and nothing else, once.
    pub async fn show(
        &self,
        method: Method,
        path: &str,
        access_token: &str,
    ) -> anyhow::Result<Response> {
        self.target.send(self.target.request(method, path).bearer_auth(access_token)).await
    }

    /// The keys that are published.
    pub async fn key_set(&self) -> anyhow::Result<Response> {
        self.target.get(".well-known/jwks.json").await
    }
}

/// The body of a login.
pub fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

/// The pair in an answer that must be one.
pub async fn tokens(response: Response) -> anyhow::Result<Tokens> {
    let body = json_of(response, 200).await?;
    let words = "expected access_token, token_type, expires_in and refresh_token";
    serde_json::from_value(body).map_err(|error| anyhow!("{words}, got another body: {error}"))
}

/// A 401 whose challenge says that the token is no good.
pub async fn unauthorized(response: Response) -> Outcome {
    let challenge = header(&response, "www-authenticate").to_owned();
    problem(response, 401).await?;
    challenges(&challenge, Some("invalid_token"))
}

/// One part of a token, as JSON: 0 is the header, 1 is the claims.
pub fn part(token: &str, n: usize) -> anyhow::Result<Value> {
    let part = token.split('.').nth(n).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let json = part.and_then(|part| serde_json::from_slice(&part).ok());
    json.with_context(|| format!("expected JSON in part {} of the token, got {token:.60}", n + 1))
}

/// The header WWW-Authenticate asks for a bearer token, with this error or none. It may say more, such as a realm.
pub fn challenges(header: &str, error: Option<&str>) -> Outcome {
    let bearer = header.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
    let (fits, what) = match error {
        Some(error) => {
            let error = format!("error=\"{error}\"");
            (header.contains(&error), format!("`Bearer` with {error}"))
        }
        None => (!header.contains("error="), "`Bearer` without an error".to_owned()),
    };
    expect(bearer && fits, format!("{what} in WWW-Authenticate"), format!("{header:?}"))
}
