//! How does a service account prove who it is? It signs a statement, and is given a token for an hour
//! (RFC 7523).

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::Instant};

use crate::https::Https;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// The longest that Google allows, in seconds.
const LIFETIME: u64 = 3_600;
/// A token is renewed so long before it ends, so that none ends on its way.
const MARGIN: Duration = Duration::from_mins(1);

/// What we need of the file that Google's console gives out.
#[derive(Clone, Deserialize)]
pub struct ServiceAccount {
    /// The Firebase project.
    pub project_id: String,
    client_email: String,
    /// PEM.
    private_key: String,
    token_uri: String,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        write!(f, "{} of {}", self.client_email, self.project_id)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

/// Access tokens, one after another.
pub struct Tokens {
    account: ServiceAccount,
    key: EncodingKey,
    https: Https,
    /// Held while a token is fetched: everybody waits for the one.
    newest: Mutex<Option<(String, Instant)>>,
}

impl Tokens {
    /// The error is a key that is none.
    pub fn new(account: ServiceAccount, https: Https) -> Result<Self, jsonwebtoken::errors::Error> {
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())?;
        Ok(Self { account, key, https, newest: Mutex::default() })
    }

    // ANCHOR: oauth
    /// The token, a new one if there is none that lasts.
    pub async fn get(&self) -> Result<String, String> {
        let mut newest = self.newest.lock().await;
        if let Some((token, ends)) = newest.as_ref()
            && Instant::now() + MARGIN < *ends
        {
            return Ok(token.clone());
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())?.as_secs();
        let ServiceAccount { client_email, token_uri, .. } = &self.account;
        let claims = Claims {
            iss: client_email,
            scope: SCOPE,
            aud: token_uri,
            iat: now,
            exp: now + LIFETIME,
        };
        let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map_err(|error| error.to_string())?;
        // A JWT is made of characters that a form may hold as they are.
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let content_type = "application/x-www-form-urlencoded";
        let answer = self.https.post(token_uri, content_type, None, form).await?;
        if answer.status != 200 {
            return Err(format!("no access token: {}", answer.status));
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
        let ends = Instant::now() + Duration::from_secs(granted.expires_in);
        *newest = Some((granted.access_token.clone(), ends));
        Ok(granted.access_token)
    }
    // ANCHOR_END: oauth

    /// Forgets a token that was refused, unless somebody has a newer one already.
    pub async fn refused(&self, token: &str) {
        let mut newest = self.newest.lock().await;
        newest.take_if(|(known, _)| known == token);
    }
}
