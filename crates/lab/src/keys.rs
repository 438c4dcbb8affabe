//! How does each test and experiment get Redis keys of its own? By a prefix that nobody else has.
//!
//! Invariant: keys are deleted only under a full prefix, with its sixteen random digits, that is listed in `OWNERS`.
//! Only this code writes to `OWNERS`, and does so before the first key of a prefix. We never search other keys for
//! prefixes. The keys of a prefix are deleted by its owner, by the next process of this workspace if the owner was
//! killed (see `claim`), or by any process of ours after a day.

use anyhow::Context;
use redis::{AsyncCommands, Client, aio::MultiplexedConnection};
use tokio::sync::OnceCell;

use crate::{
    Service,
    claim::{Claim, DAY, is_sixteen_digits, left_behind},
    farewell::farewell,
    stack,
};

/// What every key of this project begins with.
const OURS: &str = "worked-answers:";
/// A hash: each prefix in use, and since when, in seconds since 1970 by the server's clock.
const OWNERS: &str = "worked-answers:owners";

/// A prefix for the keys of one test or one experiment. They are deleted with this value.
#[derive(Debug)]
pub struct Keys {
    prefix: String,
    url: String,
    claim: Option<Claim>,
}

impl Keys {
    /// A prefix on the shared server: `worked-answers:<answer>:<16 hexadecimal digits>:`.
    pub async fn fresh(answer: &str) -> anyhow::Result<Self> {
        let url = stack::server(Service::Redis).await?.url;
        static CLEAN: OnceCell<()> = OnceCell::const_new();
        CLEAN.get_or_try_init(|| clean(&url)).await?;
        let prefix = format!("{OURS}{answer}:{:016x}:", rand::random::<u64>());
        let claim = Some(Claim::stake(Service::Redis, &url, &prefix)?);
        let keys = Self { prefix, url, claim };
        let mut connection = keys.connection().await?;
        let now = now(&mut connection).await?;
        let () = connection.hset(OWNERS, &keys.prefix, now).await?;
        Ok(keys)
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
        let (prefix, url, claim) = (self.prefix.clone(), self.url.clone(), self.claim.take());
        farewell(&self.prefix, async move {
            delete(&mut connect(&url).await?, &prefix).await?;
            if let Some(claim) = claim {
                claim.release();
            }
            Ok(())
        });
    }
}

/// Deletes the keys under prefixes that nobody uses any more.
async fn clean(url: &str) -> anyhow::Result<()> {
    let mut connection = connect(url).await?;
    for (claim, prefix) in left_behind::<String>(Service::Redis, url)? {
        delete(&mut connection, &prefix).await?;
        claim.release();
    }
    let now = now(&mut connection).await?;
    let owners: Vec<(String, u64)> = connection.hgetall(OWNERS).await?;
    for (prefix, since) in owners {
        if now.saturating_sub(since) > DAY.as_secs() {
            delete(&mut connection, &prefix).await?;
        }
    }
    Ok(())
}

/// Deletes the keys under this prefix, if it is one of ours.
async fn delete(connection: &mut MultiplexedConnection, prefix: &str) -> anyhow::Result<()> {
    if !is_random(prefix) || !connection.hexists(OWNERS, prefix).await? {
        return Ok(());
    }
    let mut cursor = 0_u64;
    loop {
        // No character of such a prefix is special in a pattern.
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["MATCH", &format!("{prefix}*"), "COUNT", "1000"])
            .query_async(connection)
            .await?;
        if !keys.is_empty() {
            let () = connection.unlink(keys).await?;
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let () = connection.hdel(OWNERS, prefix).await?;
    Ok(())
}

/// Whether this is a whole prefix of [`Keys::fresh`].
fn is_random(prefix: &str) -> bool {
    let parts = prefix.strip_prefix(OURS).and_then(|it| it.strip_suffix(':')?.split_once(':'));
    let plain = |it: u8| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'-');
    parts.is_some_and(|(answer, digits)| answer.bytes().all(plain) && is_sixteen_digits(digits))
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    Client::open(url)?.get_multiplexed_async_connection().await.context("cannot connect to Redis")
}

/// The server's clock, in seconds since 1970.
async fn now(connection: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let (seconds, _microseconds): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_prefix_is_one() {
        assert!(is_random("worked-answers:cache-aside:0123456789abcdef:"));
        for prefix in [
            "",
            "worked-answers:",
            "worked-answers:cache-aside:",
            "worked-answers:cache-aside:0123456789abcdef",
            "worked-answers:cache-aside:0123456789abcde:",
            "worked-answers:cache-aside:0123456789abcdef0:",
            "worked-answers:cache-aside:0123456789ABCDEF:",
            "worked-answers:cache*:0123456789abcdef:",
            "worked-answers:[a-z]:0123456789abcdef:",
            "lab:cache-aside:0123456789abcdef:",
            "my:worked-answers:cache-aside:0123456789abcdef:",
        ] {
            assert!(!is_random(prefix), "{prefix:?}");
        }
    }
}
