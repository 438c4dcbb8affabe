//! How does an experiment lose a leader? It starts a whole group of servers of its own, whose members it kills, pauses
//! and starts again, and asks the group who leads now.
//!
//! A member is an [`OwnServer`]: it has a folder, a port and a keeper of its own. However the experiment ends, each
//! member ends too and its folder is removed. A member that is started again has its old port and its old data.
//!
//! Beside the groups, two tools: [`pgbouncer`] is a pooler in front of a PostgreSQL, [`containers`] runs containers.

pub mod containers;
pub mod etcd;
mod links;
pub mod pgbouncer;
pub mod postgres;
pub mod rabbitmq;
pub mod redis_cluster;
pub mod redis_sentinel;

pub use containers::ContainerEngine;
pub use etcd::EtcdGroup;
pub use pgbouncer::PgBouncer;
pub use postgres::PostgresGroup;
pub use rabbitmq::RabbitMqGroup;
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::SentinelGroup;

use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    needs::Group,
    stack::{
        own::OwnServer,
        service::{Launch, Stop},
    },
};

/// How long a group may take to become whole. RabbitMQ's takes ten seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// A member that does not say within this time whether it leads counts as paused or gone.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A group of servers that work as one.
pub trait ServerGroup: Sized + Send + Sync {
    /// What an experiment declares to use this group.
    const GROUP: Group;

    /// Starts all members and waits until the group takes writes.
    fn start() -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// The servers that hold the data.
    fn members(&self) -> &[OwnServer];
}

/// Polls until `look` finds something. An error counts as "not yet": while a leader is being replaced, there are many.
pub async fn until<T, W>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> W,
) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    let begun = Instant::now();
    loop {
        let error = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if begun.elapsed() > patience {
            let waited = format!("waited {:.0} s for {what}", begun.elapsed().as_secs_f64());
            return Err(error.unwrap_or_else(|| anyhow!("not yet")).context(waited));
        }
        sleep(POLL).await;
    }
}

/// What a member answers, if it does so soon.
async fn soon<T>(answer: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
    timeout(ANSWERS_WITHIN, answer).await.ok()?.ok()
}

/// Prepares the homes of `count` servers with the same password.
async fn prepare(group: Group, count: usize) -> anyhow::Result<Vec<OwnServer>> {
    let password = format!("{:032x}", rand::random::<u128>());
    let mut members = Vec::new();
    for _ in 0..count {
        let member = OwnServer::prepare(group.service()).await?;
        member.home().write("password", &password)?;
        members.push(member);
    }
    Ok(members)
}

/// Changes how a member is started.
fn adapt(member: &mut OwnServer, change: impl Fn(&mut Launch) + Send + Sync + 'static) {
    member.adapt(move |launch| {
        // etcd would wait seconds for dead peers before it stops, and RabbitMQ for a majority.
        launch.stop = Stop::Kill;
        change(launch);
    });
}

/// Starts them side by side, and waits until each one answers.
async fn start_all(members: &mut [OwnServer]) -> anyhow::Result<()> {
    // Not `try_join_all`: the failure of one must not cut another's start short.
    join_all(members.iter_mut().map(OwnServer::restart)).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lab;

    /// An experiment may move between threads, so the futures that it awaits have to be `Send`. The compiler checks it.
    #[test]
    fn an_experiment_can_use_every_group() {
        fn check<W: Future<Output = anyhow::Result<()>> + Send>(_: impl Fn(Lab) -> W) {}
        check(|lab| async move {
            let mut postgres = lab.group::<PostgresGroup>().await?;
            postgres.promote(postgres::SYNCHRONOUS).await?;
            postgres.follow(postgres::ASYNCHRONOUS, postgres::SYNCHRONOUS).await?;
            postgres.rebuild(postgres::PRIMARY, postgres::SYNCHRONOUS).await?;
            postgres.leader().await;
            Ok(())
        });
        check(|lab| async move {
            let mut sentinels = lab.group::<SentinelGroup>().await?;
            sentinels.members[0].pause().await?;
            sentinels.members[0].resume().await?;
            sentinels.members[0].kill().await?;
            sentinels.members[0].restart().await?;
            sentinels.leader().await;
            Ok(())
        });
        check(|lab| async move {
            let cluster = lab.group::<RedisCluster>().await?;
            cluster.leader(cluster.slot_of("key").await?).await;
            Ok(())
        });
        check(|lab| async move {
            let rabbitmq = lab.group::<RabbitMqGroup>().await?;
            rabbitmq.leader("queue").await?;
            Ok(())
        });
        check(|lab| async move {
            let etcd = lab.group::<EtcdGroup>().await?;
            let leader = until("a leader", PATIENCE, || async { Ok(etcd.leader().await) }).await?;
            etcd.links.isolate(leader);
            etcd.put(leader, "key", "value").await?;
            etcd.get(leader, "key", etcd::Read::Linearizable).await?;
            Ok(())
        });
        check(|lab| async move {
            let engine = lab.container_engine().await?;
            engine.docker(&["ps"]).await?;
            lab.pgbouncer("postgres://…", &[]).await?;
            Ok(())
        });
    }
}
