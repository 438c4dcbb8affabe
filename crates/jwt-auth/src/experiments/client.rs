//! How do the experiments speak to the service? As a client of its table of calls.

use std::time::Duration;

use anyhow::ensure;
use lab::{child::Child, database::Database, patience::patiently};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::store::KeyRow;

/// Everybody's password here.
pub const PASSWORD: &str = "correct horse battery staple";
/// Cheap to hash with, where it does not matter how long a guess takes.
pub const CHEAP: [&str; 4] = ["--argon2-memory", "64", "--argon2-passes", "1"];

/// What a login or a refresh gives.
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    /// To show.
    pub access_token: String,
    /// To keep.
    pub refresh_token: String,
}

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        let http = Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(256)
            .build()?;
        Ok(Self { http, url: child.url().to_owned() })
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.http.post(format!("{}/{path}", self.url)).json(body).send().await
    }

    /// Posts JSON, and comes back when told to, as any client should: a busy machine is no finding. How often it was
    /// sent away is told too.
    pub async fn post_patiently(
        &self,
        path: &str,
        body: &Value,
    ) -> reqwest::Result<(Response, u32)> {
        patiently(|| self.post(path, body)).await
    }

    /// Makes an account that nobody has.
    pub async fn register(&self, email: &str) -> anyhow::Result<()> {
        let body = json!({ "email": email, "password": PASSWORD });
        let (response, sent_away) = self.post_patiently("register", &body).await?;
        // Whoever was sent away may have made it nevertheless.
        let made = response.status() == 201 || (sent_away > 0 && response.status() == 409);
        ensure!(made, "{email}: {}", response.text().await?);
        Ok(())
    }

    /// Logs in, successfully.
    pub async fn login(&self, email: &str) -> anyhow::Result<Tokens> {
        let body = json!({ "email": email, "password": PASSWORD });
        let (response, _) = self.post_patiently("login", &body).await?;
        ensure!(response.status() == 200, "{email}: {}", response.text().await?);
        Ok(response.json().await?)
    }

    /// Refreshes: a new pair, or the status that came instead. Whether a first try that was sent away was carried out
    /// does not matter within the grace.
    pub async fn refresh(&self, token: &str) -> anyhow::Result<Result<Tokens, u16>> {
        let body = json!({ "refresh_token": token });
        let (response, _) = self.post_patiently("token/refresh", &body).await?;
        match response.status().as_u16() {
            200 => Ok(Ok(response.json().await?)),
            other => Ok(Err(other)),
        }
    }

    /// Asks who the token belongs to: the status, and the challenge. Comes back when told to: a verifier that cannot
    /// fetch the keys in time has not judged the token.
    pub async fn me(&self, token: &str) -> reqwest::Result<(u16, String)> {
        let ask = || self.http.get(format!("{}/me", self.url)).bearer_auth(token).send();
        let (response, _) = patiently(ask).await?;
        let challenge = response.headers().get("www-authenticate");
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok((response.status().as_u16(), challenge.to_owned()))
    }

    /// The names of the keys that are published.
    pub async fn key_ids(&self) -> anyhow::Result<Vec<String>> {
        let url = format!("{}/.well-known/jwks.json", self.url);
        let set: Value = self.http.get(url).send().await?.json().await?;
        let keys = set["keys"].as_array().into_iter().flatten();
        Ok(keys.filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect())
    }

    /// Where the keys are published.
    pub fn key_set(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url)
    }
}

/// Prepares a process that has the key set and nothing else: it could reach no database if it tried.
pub fn verifier(lab: &lab::Lab, key_set: &str) -> lab::child::ChildBuilder {
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    lab.serve().env("DATABASE_URL", nowhere).args(&["--jwks", key_set])
}

/// What the issuer alone should have: an experiment looks into its database, as a thief would.
pub async fn stolen_keys(database: &Database) -> anyhow::Result<Vec<KeyRow>> {
    let pool = database.pool().await?;
    let keys = sqlx::query_as(
        r#"
        select
            kid,
            private_key,
            public_key,
            extract(epoch from signs_from - clock_timestamp())::float8 as seconds_until_it_signs
        from signing_keys
        order by signs_from
        "#,
    )
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    Ok(keys)
}
