//! What do tests, experiments and cases start from? A fresh part of Redis and limiters.

use std::time::Duration;

use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    keys::Keys,
};

use crate::cases::client::Client;

/// A fresh part of Redis. Its keys are deleted with this value, so it has to outlive its programs.
#[derive(Debug)]
pub struct Fixture {
    /// What every key begins with.
    pub keys: Keys,
}

impl Fixture {
    /// No client has been seen in it.
    pub async fn fresh() -> anyhow::Result<Self> {
        Ok(Self { keys: Keys::fresh("rate-limiter").await? })
    }

    /// The same for an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Redis).await?;
        Self::fresh().await
    }

    /// Prepares a limiter that counts in this part of Redis. A busy machine must not look like a Redis that is away.
    pub fn in_redis(&self) -> ChildBuilder {
        self.in_redis_within("20s")
    }

    /// The same, with another time for Redis to answer in.
    pub fn in_redis_within(&self, timeout: &str) -> ChildBuilder {
        let serve = Child::serve("rate-limiter").env("REDIS_URL", self.keys.url());
        let prefix = self.keys.prefix();
        serve.args(&["--store", "redis", "--store-timeout", timeout, "--prefix", prefix])
    }

    /// Starts a limiter that counts in this part of Redis, with these options, and returns it with a client.
    pub async fn start_in_redis(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        start(self.in_redis().args(options)).await
    }

    /// Starts one that counts in memory and one that counts in Redis, with these options, and returns each with a
    /// client.
    pub async fn start_both(&self, options: &[&str]) -> anyhow::Result<[(Child, Client); 2]> {
        let (memory, redis) = (start_in_memory(options), self.start_in_redis(options));
        Ok(tokio::try_join!(memory, redis)?.into())
    }
}

/// Prepares a limiter that counts in its own memory.
pub fn in_memory() -> ChildBuilder {
    Child::serve("rate-limiter").args(&["--store", "memory"])
}

/// Starts a limiter that counts in its own memory, with these options, and returns it with a client.
pub async fn start_in_memory(options: &[&str]) -> anyhow::Result<(Child, Client)> {
    start(in_memory().args(options)).await
}

/// Starts a limiter that has been prepared, and returns it with a client.
pub async fn start(limiter: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = limiter.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}

/// How long Redis may take to answer in experiments that ask it without a program between. A busy machine must not look
/// like a Redis that is away.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What became of many requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// 200s.
    pub passed: u64,
    /// 429s.
    pub refused: u64,
    /// Anything else.
    pub other: u64,
}

impl Tally {
    /// Counts an answer.
    pub fn add(&mut self, status: u16) {
        match status {
            200 => self.passed += 1,
            429 => self.refused += 1,
            _ => self.other += 1,
        }
    }

    /// A row of a table: who, let through, refused.
    pub fn row(self, who: &str) -> Vec<String> {
        vec![who.to_owned(), self.passed.to_string(), self.refused.to_string()]
    }
}

/// The bytes of a request with these headers, for a client that only writes bytes.
pub fn request(child: &Child, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    format!("GET /api/hello HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", child.address()).into_bytes()
}
