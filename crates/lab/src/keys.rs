//! How does everyone have Redis keys of their own? By a prefix that nobody else has.
//!
//! Invariant: a prefix is in use exactly as long as a connection bears its name. When its process is killed
//! Redis drops the connection, and the next process deletes the keys.

use std::collections::HashSet;

use anyhow::Context;
use redis::{Client, aio::MultiplexedConnection};
use tokio::sync::OnceCell;

use crate::{Service, farewell::farewell, stack};

/// Every fresh prefix is `lab:<answer>:<16 hexadecimal digits>:`.
const FRESH: &str = "lab:";

/// A prefix for the keys of one test or one experiment. They are deleted with this value.
#[derive(Debug)]
pub struct Keys {
    prefix: String,
    url: String,
    /// Bears the prefix as its name.
    _named: MultiplexedConnection,
}

impl Keys {
    /// A prefix on the shared server.
    pub async fn fresh(answer: &str) -> anyhow::Result<Self> {
        let url = stack::server(Service::Redis).await?.url;
        static LEFT_BEHIND: OnceCell<()> = OnceCell::const_new();
        LEFT_BEHIND.get_or_try_init(|| Self::delete_what_was_left(&url)).await?;
        let prefix = format!("{FRESH}{answer}:{:016x}:", rand::random::<u64>());
        let mut named = connect(&url).await?;
        redis::cmd("CLIENT").arg("SETNAME").arg(&prefix).exec_async(&mut named).await?;
        Ok(Self { prefix, url, _named: named })
    }

    /// Deletes the keys under fresh prefixes that no living connection bears.
    pub async fn delete_what_was_left(url: &str) -> anyhow::Result<()> {
        let mut connection = connect(url).await?;
        // The keys first: a prefix that is made meanwhile has no keys among these.
        let mut keys = scan(&mut connection, FRESH).await?;
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await?;
        let in_use: HashSet<_> =
            clients.split_whitespace().filter_map(|word| word.strip_prefix("name=")).collect();
        let prefix = |key: &str| key.splitn(4, ':').take(3).collect::<Vec<_>>().join(":") + ":";
        keys.retain(|key| !in_use.contains(prefix(key).as_str()));
        unlink(&mut connection, &keys).await
    }

    /// What every key begins with; it ends in a colon.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(&self.url).await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let (prefix, url) = (self.prefix.clone(), self.url.clone());
        farewell(&self.prefix, async move {
            let mut connection = connect(&url).await?;
            let keys = scan(&mut connection, &prefix).await?;
            unlink(&mut connection, &keys).await
        });
    }
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    Client::open(url)?.get_multiplexed_async_connection().await.context("cannot connect to Redis")
}

/// Every key that begins like this.
async fn scan(connection: &mut MultiplexedConnection, prefix: &str) -> anyhow::Result<Vec<String>> {
    let (mut cursor, mut all) = (0_u64, Vec::new());
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["MATCH", &format!("{prefix}*"), "COUNT", "1000"])
            .query_async(connection)
            .await?;
        all.extend(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(all);
        }
    }
}

async fn unlink(connection: &mut MultiplexedConnection, keys: &[String]) -> anyhow::Result<()> {
    for some in keys.chunks(1_000) {
        redis::cmd("UNLINK").arg(some).exec_async(connection).await?;
    }
    Ok(())
}
