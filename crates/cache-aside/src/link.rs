//! How do we speak to Redis, and which of its contents may be ours?
//!
//! Invariant: no command waits longer than the time-out, and a link never outlives the server's process.
//!
//! The cache must outlive neither of the two servers. A database that was emptied or replaced has another *origin* (a
//! random id in a table of its own). A Redis that was restarted has another *life* (its `run_id`), and may have old
//! data: what was deleted just before a power cut can be there again. Both are a part of every key, so a value that was
//! cached from another database or in another life is not found, and expires.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Bytes;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisError, RedisResult, Script, aio::MultiplexedConnection, cmd,
};
use sqlx::types::Uuid;

use crate::{
    near::Near,
    user::UserId,
    value::{self, Content, Value},
};

/// The most commands that wait to be written. When there are this many, the next one waits, within its time-out.
const QUEUE: usize = 4_096;
/// Letters of a life in a key. Two random lives practically never have the same twelve.
const LIFE: usize = 12;

/// Redis does not answer, or not in time, or not sensibly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Redis is away: {why}")]
pub struct Away {
    why: String,
    /// This command took too long. The next may be quick.
    pub is_slow: bool,
}

impl From<RedisError> for Away {
    fn from(error: RedisError) -> Self {
        Self { why: error.to_string(), is_slow: error.is_timeout() }
    }
}

/// Where Redis is, and how it is used.
#[derive(Clone, Debug)]
pub struct Address {
    client: Client,
    prefix: String,
    timeout: Duration,
    near: usize,
}

impl Address {
    /// `near` is how many users a process keeps beside Redis. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str, timeout: Duration, near: usize) -> RedisResult<Self> {
        let mut info = url.into_connection_info()?;
        if near > 0 {
            // Only RESP3 has messages that are not answers.
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
        }
        Ok(Self { client: Client::open(info)?, prefix: prefix.to_owned(), timeout, near })
    }

    /// A link to the server as it runs now, for what is cached from this database.
    pub async fn link(&self, origin: Uuid) -> Result<Link, Away> {
        let near = (self.near > 0).then(|| Arc::new(Near::new(self.near)));
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE);
        if let Some(near) = near.clone() {
            config = config.set_push_sender(move |push| near.hear(&push));
        }
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connect.await?;
        if near.is_some() {
            cmd("CLIENT").arg("TRACKING").arg("ON").exec_async(&mut connection).await?;
        }
        let about: String = cmd("INFO").arg("server").query_async(&mut connection).await?;
        let life = about.lines().find_map(|line| line.strip_prefix("run_id:")?.get(..LIFE));
        let life = life.ok_or(Away { why: "no run_id in INFO".to_owned(), is_slow: false })?;
        let keys = format!("{}{}:{life}:user:", self.prefix, origin.simple());
        let (since, clock, replace) = (Instant::now(), AtomicU64::new(0), Script::new(REPLACE));
        let link = Link { connection, near, keys, origin, replace, since, clock };
        link.forget(&[]).await?;
        Ok(link)
    }
}

/// A connection to one life of the server. All commands share it, and none waits for another's answer.
#[derive(Debug)]
pub struct Link {
    connection: MultiplexedConnection,
    /// What this process keeps for itself, for as long as it has this connection.
    near: Option<Arc<Near>>,
    /// What is before the id in every key.
    keys: String,
    /// The database whose users are under these keys.
    pub origin: Uuid,
    replace: Script,
    since: Instant,
    /// Redis' own time at `since`, in milliseconds.
    clock: AtomicU64,
}

// ANCHOR: replace
/// Puts ARGV[2] in the place of the content with the token ARGV[1], or nothing if ARGV[2] is empty. No two contents
/// have the same token, so a content that is still there has been there all the time.
const REPLACE: &str = r#"
    if redis.call('getrange', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
        return 0
    end
    if ARGV[2] == '' then
        redis.call('del', KEYS[1])
    else
        redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3])
    end
    return 1
"#;
// ANCHOR_END: replace

impl Link {
    /// The key of a user.
    pub fn key(&self, id: UserId) -> String {
        format!("{}{}", self.keys, id.get())
    }

    /// The value of a user, if a cache has it, and whether it was in this process.
    pub async fn get(&self, id: UserId) -> Result<Option<(Value, bool)>, Away> {
        let known = self.near.as_ref().map(|near| near.get(id, self.now()));
        if let Some(Ok(value)) = known {
            return Ok(Some((value, true)));
        }
        let mut connection = self.connection.clone();
        let found = cmd("GET").arg(self.key(id)).query_async(&mut connection).await;
        // A key that holds no string is read as an empty string, which is not ours either.
        let found = unless_refused(found)?.unwrap_or(Some(Bytes::new()));
        let value = match found.as_ref().map(value::decode) {
            Some(Some(Content::Value(value))) => Some(value),
            None | Some(Some(Content::Lease)) => None,
            Some(None) => {
                // Deleting is always safe.
                self.forget(&[id]).await?;
                None
            }
        };
        if let (Some(near), Some(Err(question))) = (&self.near, known) {
            near.put(id, question, value.as_ref());
        }
        Ok(value.map(|value| (value, false)))
    }

    // ANCHOR: add
    /// Puts a lease under the key if nothing is there. This is one command, and Redis runs one at a time. So of all
    /// processes that want the key at once, one gets it, and the others see what that one has put there.
    pub async fn add(&self, id: UserId, token: &str, life: Duration) -> Result<Added, Away> {
        let mut add = cmd("SET");
        add.arg(self.key(id)).arg(value::lease(token));
        add.arg("NX").arg("GET").arg("PX").arg(milliseconds(life).max(1));
        let found = add.query_async(&mut self.connection.clone()).await;
        Ok(match unless_refused::<Option<Bytes>>(found)? {
            Some(None) => Added::Yes,
            Some(Some(found)) => Added::Found(value::decode(&found)),
            None => Added::Refused,
        })
    }
    // ANCHOR_END: add

    /// Puts `new` in the place of the content with this token, and says whether it did. An empty `new` deletes.
    pub async fn replace(
        &self,
        id: UserId,
        token: &str,
        new: &[u8],
        life: Duration,
    ) -> Result<bool, Away> {
        let mut replace = self.replace.key(self.key(id));
        replace.arg(token).arg(new).arg(milliseconds(life).max(1));
        let replaced = replace.invoke_async(&mut self.connection.clone()).await;
        Ok(unless_refused(replaced)?.unwrap_or(false))
    }

    /// Deletes these users here and in Redis. Redis tells other processes that have a copy. The answer also shows that
    /// Redis is well, and what its clock says, to within a round trip.
    pub async fn forget(&self, ids: &[UserId]) -> Result<(), Away> {
        let mut delete = Pipeline::new();
        // One command for each key: in a cluster they live on different servers.
        for id in ids {
            delete.cmd("DEL").arg(self.key(*id)).ignore();
        }
        let mut connection = self.connection.clone();
        let time = delete.cmd("TIME").query_async(&mut connection);
        let ((seconds, micros),): ((u64, u64),) = time.await?;
        let now = seconds * 1_000 + micros / 1_000;
        let since = now.saturating_sub(milliseconds(self.since.elapsed()));
        self.clock.store(since, Ordering::Relaxed);
        if let Some(near) = &self.near {
            near.forget(ids.iter().copied());
        }
        Ok(())
    }

    /// The time by Redis' clock in milliseconds: the one clock that all processes share.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed) + milliseconds(self.since.elapsed())
    }
}

/// The outcome of [`Link::add`].
#[derive(Debug)]
pub enum Added {
    /// The lease is there.
    Yes,
    /// This was there already; `None` if it is not ours.
    Found(Option<Content>),
    /// Redis refuses: the key holds no string, or there is no room.
    Refused,
}

/// `None` if Redis is well, but refuses just this command: the key holds no string, or there is no memory left and
/// nothing that may be evicted. All other errors (Redis is loading its data, it has become a replica) mean that there
/// is no cache now.
fn unless_refused<T: FromRedisValue>(answer: Result<T, RedisError>) -> Result<Option<T>, Away> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.code(), Some("WRONGTYPE" | "OOM")) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whole milliseconds.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
