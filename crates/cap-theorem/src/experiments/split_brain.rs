//! Who is the primary? A Redis that was paused still believes that it is, when another one has long taken over.

use std::time::Duration;

use lab::{
    Experiment, Lab, Need, Sabotage,
    group::{SentinelGroup, ServerGroup, until},
};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, aio::MultiplexedConnection};

use super::recording::Recording;
use crate::{
    checker::check,
    history::{Action, count},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Writes that the primary gets when it wakes, with each setting
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=5_000))]
    writes: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "split-brain",
        "A Redis primary that was paused while Sentinels replaced it acknowledges every write when it wakes, and loses all \
         of them. With min-replicas-to-write, and its replicas gone to another primary, it refuses most",
        &["--writes", "100"],
        run,
    )
    .needs(&[Need::Group(SentinelGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/history.rs",
        replace: "self.returned.is_some_and(|returned| returned < other.called)",
        with: "self.returned.is_some_and(|returned| other.called < returned)",
        check: "reads of the new primary that miss an acknowledged write",
    })
}

/// Longer than Sentinels take on a busy machine. They wait eight seconds before they demote a primary that came back.
const PATIENCE: Duration = Duration::from_secs(90);
const MEMBERS: usize = 3;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 3, "a primary with two replicas and three Sentinels is made");
    let group = lab.group::<SentinelGroup>().await?;
    let old = until("a primary", PATIENCE, async || Ok(group.leader().await)).await?;
    // This client does not ask the Sentinels again.
    let mut client = connect(&group, old).await?;
    require_replicas(&mut client, 1).await?;
    lab.progress(1, 3, "the primary is paused until another one has taken over");
    group.members[old].pause().await?;
    let new = until("another primary", PATIENCE, async || {
        Ok(group.leader().await.filter(|leader| *leader != old))
    })
    .await?;
    let third = MEMBERS - old - new;
    until("the other replica to follow the new primary", PATIENCE, async || {
        follows(&group, third, new).await
    })
    .await?;
    group.members[old].resume().await?;
    let recording = Recording::default();
    let guarded = write(&mut client, "guarded", params.writes, &recording).await;
    require_replicas(&mut client, 0).await?;
    let unguarded = write(&mut client, "unguarded", params.writes, &recording).await;
    lab.progress(2, 3, "the Sentinels demote the primary that woke");
    until("the old primary to follow the new one", PATIENCE, async || {
        follows(&group, old, new).await
    })
    .await?;
    let mut reader = connect(&group, new).await?;
    for written in recording.history() {
        let called = recording.tick();
        let value: Option<String> = reader.get(&written.key).await?;
        recording.note(1, &written.key, Action::Read(value), called, true);
    }
    let history = recording.history();
    let missed = count(&history).stale_reads;
    let name = "the primary that woke: writes that it acknowledged";
    lab.check_eq(name, params.writes, unguarded);
    let name = "the primary that woke, with min-replicas-to-write 1: writes that it acknowledged";
    let few = guarded * 2 <= params.writes;
    lab.check(name, format!("at most half of {}", params.writes), guarded, few);
    let name = "reads of the new primary that miss an acknowledged write";
    lab.check_eq(name, usize::try_from(guarded + unguarded)?, missed);
    let verdict = if check(&history).is_ok() { "linearizable" } else { "not linearizable" };
    lab.check_eq("the history", "not linearizable", verdict);
    let rows = [("0", unguarded), ("1", guarded)].map(|(setting, acknowledged)| {
        vec![setting.to_owned(), params.writes.to_string(), acknowledged.to_string()]
    });
    let columns = ["min-replicas-to-write", "writes", "acknowledged and lost"];
    lab.table("The primary that woke", &columns, rows.to_vec());
    Ok(())
}

/// Writes as many keys, and returns how many writes were acknowledged. A refused one has no effect, and is left out.
async fn write(
    client: &mut MultiplexedConnection,
    name: &str,
    writes: u32,
    recording: &Recording,
) -> u32 {
    let mut acknowledged = 0;
    for n in 0..writes {
        let (key, called) = (format!("{name}-{n}"), recording.tick());
        if client.set::<_, _, ()>(&key, "v").await.is_ok() {
            recording.note(0, &key, Action::Write("v".to_owned()), called, true);
            acknowledged += 1;
        }
    }
    acknowledged
}

/// How many replicas have to be connected before this member takes a write.
async fn require_replicas(client: &mut MultiplexedConnection, replicas: u8) -> anyhow::Result<()> {
    let mut command = redis::cmd("CONFIG");
    command.arg(&["SET", "min-replicas-to-write"]).arg(replicas);
    Ok(command.query_async(client).await?)
}

/// `Some` if this member has the data of that primary.
async fn follows(
    group: &SentinelGroup,
    member: usize,
    primary: usize,
) -> anyhow::Result<Option<()>> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    let state: String = command.query_async(&mut connect(group, member).await?).await?;
    let port = format!("master_port:{}\r\n", group.members[primary].port()?);
    let follows = state.contains(&port) && state.contains("master_link_status:up");
    Ok(follows.then_some(()))
}

/// A connection that is patient with a busy machine.
async fn connect(group: &SentinelGroup, member: usize) -> anyhow::Result<MultiplexedConnection> {
    let patience = Some(Duration::from_secs(10));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(patience)
        .set_response_timeout(patience);
    let client = Client::open(group.members[member].url()?)?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}
