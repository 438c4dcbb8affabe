//! How do the experiments speak to the service? As a client of its table of calls.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::child::Child;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

/// What a read was answered with.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The status.
    pub status: u16,
    /// What `Cache-Status` says.
    pub cache: String,
    /// The user's name, if there is a user.
    pub name: String,
}

impl Seen {
    /// Whether it came from Redis.
    pub fn is_hit(&self) -> bool {
        self.cache.starts_with("redis; hit")
    }

    /// The rest of its time to live, in seconds.
    pub fn ttl(&self) -> Option<f64> {
        self.cache.strip_prefix("redis; hit; ttl=")?.parse().ok()
    }
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        // Longer than any answer takes that is allowed to come: what hangs is to be seen, not cut short.
        let http = Client::builder().timeout(Duration::from_secs(90)).build()?;
        Ok(Self { http, url: child.url().to_owned() })
    }

    /// Waits until Redis is believed: a busy machine may take longer for that than a start waits.
    pub async fn believes(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ready: Value =
                self.http.get(format!("{}/readyz", self.url)).send().await?.json().await?;
            if ready["redis"] == "believed" {
                return Ok(());
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "Redis is not believed: {ready}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads a user.
    pub async fn get(&self, id: i64) -> anyhow::Result<Seen> {
        let response = self.http.get(format!("{}/users/{id}", self.url)).send().await?;
        let status = response.status().as_u16();
        let cache = response.headers().get("cache-status").and_then(|value| value.to_str().ok());
        let cache = cache.unwrap_or_default().to_owned();
        let body: Value = response.json().await?;
        Ok(Seen { status, cache, name: body["name"].as_str().unwrap_or_default().to_owned() })
    }

    /// Gives a user another name, and returns the status.
    pub async fn put(&self, id: i64, name: &str) -> anyhow::Result<u16> {
        let user = json!({ "name": name, "email": format!("user{id}@example.org") });
        let put = self.http.put(format!("{}/users/{id}", self.url)).json(&user);
        Ok(put.send().await?.status().as_u16())
    }

    /// Renames, which must succeed.
    pub async fn rename(&self, id: i64, name: &str) -> anyhow::Result<()> {
        let status = self.put(id, name).await?;
        ensure!(status == 200, "renaming user {id} was answered with {status}");
        Ok(())
    }

    /// Makes a user, and returns the id.
    pub async fn create(&self, name: &str) -> anyhow::Result<i64> {
        let user = json!({ "name": name, "email": format!("{name}@example.org") });
        let response = self.http.post(format!("{}/users", self.url)).json(&user).send().await?;
        let body: Value = response.json().await?;
        body["id"].as_i64().with_context(|| format!("no user was made: {body}"))
    }
}
