//! What do many people write first? Two limiters that look right, for experiments to refute.

use redis::{Script, aio::MultiplexedConnection};

use crate::{algorithm::Algorithm, quota::Micros, shared};

/// Reads the counter, and writes it back one higher. Between the two there is time.
pub async fn get_then_set(
    redis: &mut MultiplexedConnection,
    key: &str,
    limit: u64,
) -> redis::RedisResult<bool> {
    let used: Option<u64> = redis::cmd("GET").arg(key).query_async(redis).await?;
    let used = used.unwrap_or(0);
    if used >= limit {
        return Ok(false);
    }
    redis::cmd("SET").arg(key).arg(used + 1).arg("EX").arg(900).exec_async(redis).await?;
    Ok(true)
}

/// The very script of the answer, but for one thing: the process tells it what time it is.
pub struct OwnTime(Script);

impl OwnTime {
    /// With this algorithm.
    pub fn new(algorithm: Algorithm) -> anyhow::Result<Self> {
        let (theirs, ours) = ("redis.call('TIME')", "{ ARGV[#ARGV - 1], ARGV[#ARGV] }");
        let text = shared::text(algorithm);
        anyhow::ensure!(text.matches(theirs).count() == 1, "the script asks for the time once");
        Ok(Self(Script::new(&text.replace(theirs, ours))))
    }

    /// Whether it lets one more through.
    pub async fn decide(
        &self,
        redis: &mut MultiplexedConnection,
        key: &str,
        (limit, window): (u64, Micros),
        now: Micros,
    ) -> redis::RedisResult<bool> {
        let mut call = self.0.prepare_invoke();
        call.key(key).arg(1).arg(0).arg(0).arg(limit).arg(window);
        call.arg(now / 1_000_000).arg(now % 1_000_000);
        let answer: Vec<u64> = call.invoke_async(redis).await?;
        Ok(answer.get(1) == Some(&1))
    }
}
