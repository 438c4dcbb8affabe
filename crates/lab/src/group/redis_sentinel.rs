//! A Redis master with two replicas, and three Sentinels that watch them and replace a master that does not answer.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};

use super::{PATIENCE, ServerGroup, adapt, prepare, soon, start_all, until};
use crate::{needs::Group, stack::own::OwnServer};

/// What the Sentinels call the master.
pub const MASTER: &str = "lab";

/// The group.
#[derive(Debug)]
pub struct SentinelGroup {
    /// The master, at first number 0, and its replicas.
    pub members: Vec<OwnServer>,
    /// The Sentinels. A client asks them for the master's address.
    pub sentinels: Vec<OwnServer>,
}

impl ServerGroup for SentinelGroup {
    const GROUP: Group = Group::RedisSentinel;

    async fn start() -> anyhow::Result<Self> {
        let mut members = prepare(Self::GROUP, 3).await?;
        let master = members[0].port()?;
        for (number, member) in members.iter_mut().enumerate() {
            let mut config = replicated(member)?;
            if number > 0 {
                config += &format!("replicaof 127.0.0.1 {master}\n");
            }
            configure(member, &config, &[])?;
        }
        let mut sentinels = prepare(Self::GROUP, 3).await?;
        let password = members[0].home().read("password")?;
        for sentinel in &mut sentinels {
            let config = format!(
                "sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
                 sentinel auth-pass {MASTER} {password}\n\
                 sentinel down-after-milliseconds {MASTER} 500\n\
                 sentinel failover-timeout {MASTER} 3000\n",
            );
            configure(sentinel, &(common(sentinel)? + &config), &["--sentinel"])?;
        }
        start_all(&mut members).await?;
        start_all(&mut sentinels).await?;
        let group = Self { members, sentinels };
        until("the Sentinels to know each other and the replicas", PATIENCE, || group.is_whole())
            .await?;
        Ok(group)
    }

    fn members(&self) -> &[OwnServer] {
        &self.members
    }
}

impl SentinelGroup {
    /// The master that most Sentinels name.
    pub async fn leader(&self) -> Option<usize> {
        let named = self.sentinels.iter().map(|sentinel| soon(master_named_by(sentinel)));
        let named = join_all(named).await;
        let votes = |port| named.iter().filter(|&&it| it == Some(port)).count();
        self.members.iter().position(|member| {
            member.port().is_ok_and(|port| votes(port) * 2 > self.sentinels.len())
        })
    }

    /// `Some` if every Sentinel knows both replicas and both other Sentinels, and the replicas have the master's data.
    async fn is_whole(&self) -> anyhow::Result<Option<()>> {
        for sentinel in &self.sentinels {
            let mut connection = connect(sentinel).await?;
            let mut command = redis::cmd("SENTINEL");
            let state: HashMap<String, String> =
                command.arg("MASTER").arg(MASTER).query_async(&mut connection).await?;
            let is = |name, wanted| state.get(name).is_some_and(|value| value == wanted);
            if !(is("flags", "master") && is("num-slaves", "2") && is("num-other-sentinels", "2")) {
                return Ok(None);
            }
        }
        for replica in &self.members[1..] {
            if !is_in_sync(replica).await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

async fn master_named_by(sentinel: &OwnServer) -> anyhow::Result<u16> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER);
    let (_, port): (String, u16) = command.query_async(&mut connect(sentinel).await?).await?;
    Ok(port)
}

/// Whether a replica has the data of its master.
pub(super) async fn is_in_sync(replica: &OwnServer) -> anyhow::Result<bool> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    let state: String = command.query_async(&mut connect(replica).await?).await?;
    Ok(state.contains("master_link_status:up"))
}

/// A connection that is patient with a busy machine. By default it waits half a second for an answer.
pub(super) async fn connect(server: &OwnServer) -> anyhow::Result<MultiplexedConnection> {
    let patience = Some(Duration::from_secs(10));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(patience)
        .set_response_timeout(patience);
    let client = Client::open(server.url()?)?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// The configuration of every Redis of a group.
fn common(server: &OwnServer) -> anyhow::Result<String> {
    let (port, password) = (server.port()?, server.home().read("password")?);
    Ok(format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\n"))
}

/// The configuration of every Redis that holds data.
pub(super) fn replicated(server: &OwnServer) -> anyhow::Result<String> {
    let password = server.home().read("password")?;
    let words = format!(
        "masterauth {password}\nappendonly yes\nsave \"\"\n\
         # Otherwise a replica gets its first copy five seconds late, and a group so young replaces no master.\n\
         repl-diskless-sync-delay 0\n",
    );
    Ok(common(server)? + &words)
}

/// Gives a server a configuration file that stays across restarts: Redis itself writes the master that it follows into
/// it.
pub(super) fn configure(
    server: &mut OwnServer,
    config: &str,
    arguments: &'static [&'static str],
) -> anyhow::Result<()> {
    let config = server.home().write("group.conf", config)?;
    let config = config.to_str().context("a folder that is not UTF-8")?.to_owned();
    adapt(server, move |launch| {
        launch.command.truncate(1);
        launch.command.push(config.clone());
        launch.command.extend(arguments.iter().map(|&it| it.to_owned()));
    });
    Ok(())
}
