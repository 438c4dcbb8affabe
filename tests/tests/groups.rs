//! Does a group of servers survive the loss of its leader, and do all of its servers end when we end?
//!
//! Each test prints how long its group took to start, and how long to take writes again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lab::{
    Need, Service,
    group::{
        ContainerEngine, EtcdGroup, PgBouncer, PostgresGroup, RabbitMqGroup, RedisCluster,
        SentinelGroup, ServerGroup,
        etcd::Read,
        postgres::{ASYNCHRONOUS, PRIMARY, SYNCHRONOUS},
        until,
    },
    harness::{Outcome, run_trials},
    stack::own::OwnServer,
    tests,
};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use redis::{AsyncCommands, AsyncConnectionConfig};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

/// A group has up to six servers. A machine with two cores can start only two groups at once in time.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    if let Some(code) = lab::take_over(&[]) {
        return code;
    }
    if let Some(code) = take_over() {
        return code;
    }
    run_trials(tests(), AT_ONCE)
}

tests![
    postgres_has_a_new_primary_after_the_old_one_was_killed,
    postgres_does_not_commit_while_its_synchronous_standby_is_paused,
    sentinels_elect_a_new_master_after_the_old_one_was_killed,
    sentinels_elect_a_new_master_while_the_old_one_is_paused,
    a_redis_cluster_elects_a_new_master_after_the_old_one_was_killed,
    a_rabbitmq_queue_has_a_new_leader_after_the_old_one_was_killed,
    etcd_elects_a_new_leader_after_the_old_one_was_killed,
    etcd_elects_a_new_leader_when_the_old_one_is_cut_off,
    an_etcd_leader_that_hears_nobody_is_replaced,
    pgbouncer_shares_few_connections_among_many_clients,
    a_container_of_our_own_engine_runs_and_stops,
    groups_end_when_they_are_dropped,
    groups_end_when_their_process_is_killed,
    containers_end_when_their_process_is_killed,
];

/// An election takes two seconds on an idle machine, and may fail once.
const SOON: Duration = Duration::from_secs(30);

/// Starts a group and prints how long it took.
async fn start<G: ServerGroup>() -> anyhow::Result<G> {
    let begun = Instant::now();
    let group = G::start().await?;
    eprintln!(
        "{} × {}: started in {:.2?}",
        G::GROUP.service(),
        group.members().len(),
        begun.elapsed()
    );
    Ok(group)
}

/// Waits until this member leads. On a busy machine a member may not answer in time, so ask again.
async fn leads<W>(member: usize, leader: impl Fn() -> W) -> Outcome
where
    W: Future<Output = Option<usize>>,
{
    until("it to lead", SOON, async || Ok((leader().await == Some(member)).then_some(()))).await
}

fn writable(service: Service, begun: Instant) {
    eprintln!("{service}: writable {:.2?} after its leader was lost", begun.elapsed());
}

// PostgreSQL

async fn insert(member: &OwnServer, number: i32) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&member.url()?).await?;
    sqlx::query("insert into numbers (number) values ($1)")
        .bind(number)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

async fn numbers(member: &OwnServer) -> anyhow::Result<Vec<i32>> {
    let mut connection = PgConnection::connect(&member.url()?).await?;
    let query = sqlx::query_scalar("select number from numbers order by number");
    Ok(query.fetch_all(&mut connection).await?)
}

async fn has(member: &OwnServer, wanted: &[i32]) -> anyhow::Result<()> {
    until("the standby to have them all", SOON, async || {
        Ok((numbers(member).await? == wanted).then_some(()))
    })
    .await
}

async fn postgres_with_a_table() -> anyhow::Result<PostgresGroup> {
    let group = start::<PostgresGroup>().await?;
    leads(PRIMARY, || group.leader()).await?;
    let mut connection = PgConnection::connect(&group.members[PRIMARY].url()?).await?;
    sqlx::query("create table numbers (number integer not null)").execute(&mut connection).await?;
    Ok(group)
}

async fn postgres_has_a_new_primary_after_the_old_one_was_killed() -> Outcome {
    let mut group = postgres_with_a_table().await?;
    insert(&group.members[PRIMARY], 1).await?;
    let begun = Instant::now();
    group.members[PRIMARY].kill().await?;
    ensure!(group.leader().await.is_none(), "somebody else has promoted a standby");
    group.promote(SYNCHRONOUS).await?;
    insert(&group.members[SYNCHRONOUS], 2).await?;
    writable(Service::Postgres, begun);
    ensure!(numbers(&group.members[SYNCHRONOUS]).await? == [1, 2], "a commit is lost");

    group.follow(ASYNCHRONOUS, SYNCHRONOUS).await?;
    has(&group.members[ASYNCHRONOUS], &[1, 2]).await?;

    // The old primary comes back and takes writes, because it does not know of the other: two primaries, and the
    // promoted one leads.
    group.members[PRIMARY].restart().await?;
    group.wait_for_commits_on(PRIMARY, None).await?;
    insert(&group.members[PRIMARY], 3).await?;
    leads(SYNCHRONOUS, || group.leader()).await?;
    group.rebuild(PRIMARY, SYNCHRONOUS).await?;
    has(&group.members[PRIMARY], &[1, 2]).await
}

async fn postgres_does_not_commit_while_its_synchronous_standby_is_paused() -> Outcome {
    let group = postgres_with_a_table().await?;
    group.members[ASYNCHRONOUS].pause().await?;
    insert(&group.members[PRIMARY], 1).await.context("it waits for the asynchronous one")?;
    group.members[ASYNCHRONOUS].resume().await?;
    group.members[SYNCHRONOUS].pause().await?;
    let commit = insert(&group.members[PRIMARY], 2);
    tokio::pin!(commit);
    ensure!(timeout(Duration::from_millis(500), &mut commit).await.is_err(), "it did not wait");
    group.members[SYNCHRONOUS].resume().await?;
    timeout(SOON, commit).await.context("it still waits")??;
    has(&group.members[ASYNCHRONOUS], &[1, 2]).await
}

// Redis

async fn redis_of(member: &OwnServer) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(member.url()?)?;
    // The default limit is half a second, too short while other tests load the machine.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

async fn set(member: &OwnServer, key: &str, value: &str) -> anyhow::Result<()> {
    Ok(redis_of(member).await?.set::<_, _, ()>(key, value).await?)
}

/// Waits for another master than the old one, which takes a write.
async fn write_to_the_next_master(group: &SentinelGroup, old: usize) -> anyhow::Result<usize> {
    until("another master", SOON, async || {
        let Some(leader) = group.leader().await.filter(|&it| it != old) else { return Ok(None) };
        set(&group.members[leader], "key", "second").await?;
        Ok(Some(leader))
    })
    .await
}

async fn sentinels_elect_a_new_master_after_the_old_one_was_killed() -> Outcome {
    let mut group = start::<SentinelGroup>().await?;
    let old = 0;
    leads(old, || group.leader()).await?;
    set(&group.members[old], "key", "first").await?;
    let begun = Instant::now();
    group.members[old].kill().await?;
    let leader = write_to_the_next_master(&group, old).await?;
    writable(Service::Redis, begun);
    group.members[old].restart().await?;
    leads(leader, || group.leader()).await
}

async fn sentinels_elect_a_new_master_while_the_old_one_is_paused() -> Outcome {
    let group = start::<SentinelGroup>().await?;
    let old = 0;
    leads(old, || group.leader()).await?;
    group.members[old].pause().await?;
    write_to_the_next_master(&group, old).await?;
    group.members[old].resume().await?;
    // It believes to be the master until the Sentinels tell it otherwise, after eight seconds.
    set(&group.members[old], "key", "lost").await?;
    until("the old master to follow", SOON, async || {
        let value: Option<String> = redis_of(&group.members[old]).await?.get("key").await?;
        Ok((value.as_deref() == Some("second")).then_some(()))
    })
    .await
}

async fn a_redis_cluster_elects_a_new_master_after_the_old_one_was_killed() -> Outcome {
    let mut group = start::<RedisCluster>().await?;
    let slot = group.slot_of("key").await?;
    let old = group.leader(slot).await.context("nobody has this slot")?;
    set(&group.members[old], "key", "first").await?;
    let begun = Instant::now();
    group.members[old].kill().await?;
    let leader = until("another master", SOON, async || {
        let Some(leader) = group.leader(slot).await.filter(|&it| it != old) else {
            return Ok(None);
        };
        set(&group.members[leader], "key", "second").await?;
        Ok(Some(leader))
    })
    .await?;
    writable(Service::Redis, begun);
    group.members[old].restart().await?;
    until("the old master to know that it is none", SOON, async || {
        let state: String = redis::cmd("ROLE")
            .query_async::<Vec<redis::Value>>(&mut redis_of(&group.members[old]).await?)
            .await?
            .first()
            .map(redis::from_redis_value_ref)
            .context("no role")??;
        Ok((state == "slave").then_some(()))
    })
    .await?;
    leads(leader, || group.leader(slot)).await
}

// RabbitMQ

/// Publishes one message through this node, and waits until the broker has confirmed it.
async fn publish(member: &OwnServer, text: &str) -> anyhow::Result<()> {
    let connection = Connection::connect(&member.url()?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let confirmation = channel
        .basic_publish(
            "".into(),
            "orders".into(),
            BasicPublishOptions::default(),
            text.as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        )
        .await?
        .await?;
    ensure!(matches!(confirmation, Confirmation::Ack(_)), "not confirmed: {confirmation:?}");
    Ok(connection.close(200, "goodbye".into()).await?)
}

async fn a_rabbitmq_queue_has_a_new_leader_after_the_old_one_was_killed() -> Outcome {
    let mut group = start::<RabbitMqGroup>().await?;
    let old = 0;
    let connection =
        Connection::connect(&group.members[old].url()?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-queue-leader-locator".into(), AMQPValue::LongString("client-local".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("orders".into(), durable, arguments).await?;
    ensure!(group.leader("orders").await? == Some(old), "the queue's leader is elsewhere");
    publish(&group.members[1], "first").await?;

    let begun = Instant::now();
    group.members[old].kill().await?;
    until("a confirmed message", SOON, async || {
        timeout(Duration::from_secs(2), publish(&group.members[1], "second")).await??;
        Ok(Some(()))
    })
    .await?;
    writable(Service::RabbitMq, begun);
    let leader = group.leader("orders").await?;
    ensure!(leader.is_some_and(|it| it != old), "the leader is {leader:?}");

    let connection =
        Connection::connect(&group.members[2].url()?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let first = channel.basic_get("orders".into(), BasicGetOptions::default()).await?;
    let first = first.context("the queue is empty")?;
    ensure!(first.delivery.data == b"first", "what was confirmed is lost");
    Ok(())
}

// etcd

/// Waits until another node than the old leader leads, and has taken a write.
async fn write_to_the_next_leader(group: &EtcdGroup, old: usize) -> anyhow::Result<usize> {
    until("another leader", SOON, async || {
        let Some(leader) = group.leader().await.filter(|&it| it != old) else { return Ok(None) };
        group.put(leader, "key", "second").await?;
        Ok(Some(leader))
    })
    .await
}

/// Waits until this node answers linearizable reads with the new value.
async fn knows_the_new_value(group: &EtcdGroup, node: usize) -> anyhow::Result<()> {
    until("the new value", SOON, async || {
        let value = group.get(node, "key", Read::Linearizable).await?;
        Ok((value.as_deref() == Some("second")).then_some(()))
    })
    .await
}

async fn etcd_elects_a_new_leader_after_the_old_one_was_killed() -> Outcome {
    let mut group = start::<EtcdGroup>().await?;
    let old = group.leader().await.context("no leader")?;
    group.put(old, "key", "first").await?;
    let begun = Instant::now();
    group.members[old].kill().await?;
    write_to_the_next_leader(&group, old).await?;
    writable(Service::Etcd, begun);
    group.members[old].restart().await?;
    knows_the_new_value(&group, old).await
}

async fn etcd_elects_a_new_leader_when_the_old_one_is_cut_off() -> Outcome {
    let group = start::<EtcdGroup>().await?;
    let old = group.leader().await.context("no leader")?;
    group.put(old, "key", "first").await?;
    let begun = Instant::now();
    group.links.isolate(old);
    write_to_the_next_leader(&group, old).await?;
    writable(Service::Etcd, begun);

    // The old leader has the old value, and knows that it has lost the majority.
    let value = group.get(old, "key", Read::Serializable).await?;
    ensure!(value.as_deref() == Some("first"), "{value:?}");
    let value = group.get(old, "key", Read::Linearizable).await;
    ensure!(value.is_err(), "cut off, and it answers {value:?}");
    // Another key: the failed write may still happen when the links are healed.
    ensure!(group.put(old, "other key", "third").await.is_err(), "cut off, and it took a write");

    let begun = Instant::now();
    group.links.heal();
    knows_the_new_value(&group, old).await?;
    eprintln!("etcd: healed in {:.2?}", begun.elapsed());
    Ok(())
}

async fn an_etcd_leader_that_hears_nobody_is_replaced() -> Outcome {
    let group = start::<EtcdGroup>().await?;
    let old = group.leader().await.context("no leader")?;
    // Its heartbeats still reach the other nodes. It steps down because no answers reach it.
    for other in (0..3).filter(|&it| it != old) {
        group.links.cut(other, old);
    }
    write_to_the_next_leader(&group, old).await?;
    ensure!(group.get(old, "key", Read::Linearizable).await.is_err(), "it hears nobody");
    group.links.heal();
    knows_the_new_value(&group, old).await
}

// Tools

async fn pgbouncer_shares_few_connections_among_many_clients() -> Outcome {
    let postgres = OwnServer::start(Service::Postgres).await?;
    let settings = [("default_pool_size", "2")];
    let pooler = PgBouncer::in_front_of(&postgres.url()?, &settings).await?;
    let url = pooler.url()?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(PgConnection::connect(&url).await?);
    }
    let mut processes = std::collections::HashSet::new();
    for client in &mut clients {
        // Without a prepared statement: the next transaction may be on another connection.
        let query = sqlx::query_scalar("select pg_backend_pid()").persistent(false);
        let process: i32 = query.fetch_one(client).await?;
        processes.insert(process);
    }
    ensure!(processes.len() <= 2, "{} connections for 20 clients", processes.len());
    Ok(())
}

/// An engine, and the id of a container that sleeps in it.
async fn sleeping_container() -> anyhow::Result<(ContainerEngine, String)> {
    let engine = ContainerEngine::start().await?;
    let root = tempfile::tempdir()?;
    copy_with_its_libraries(Path::new("/bin/sleep"), root.path()).await?;
    engine.import(root.path(), "sleep").await?;
    let run = ["run", "--detach", "--init", "--network", "none", "--memory", "16m", "sleep"];
    let id = engine.docker(&[&run[..], &["/bin/sleep", "600"]].concat()).await?;
    Ok((engine, id))
}

async fn a_container_of_our_own_engine_runs_and_stops() -> Outcome {
    let (engine, id) = sleeping_container().await?;
    let running = engine.docker(&["ps", "--no-trunc", "--quiet"]).await?;
    ensure!(running == id, "running: {running}");
    engine.docker(&["stop", "--time", "5", &id]).await?;
    let code = engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]).await?;
    ensure!(code == "143", "SIGTERM ended it with {code}");
    Ok(())
}

/// A root folder in which this program can run.
async fn copy_with_its_libraries(program: &Path, root: &Path) -> anyhow::Result<()> {
    let output = Command::new("ldd").arg(program).output().await.context("ldd")?;
    let libraries = String::from_utf8(output.stdout)?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.map(Path::new).chain([program]) {
        let copy = root.join(file.strip_prefix("/")?);
        fs::create_dir_all(copy.parent().context("no folder")?)?;
        fs::copy(file, copy)?;
    }
    Ok(())
}

// The end

/// Set in the environment of a process that holds servers and does nothing else.
const HOLDS: &str = "TESTS_HOLD";

/// If this process is one of those, starts its servers and drops them when it reads a line.
fn take_over() -> Option<ExitCode> {
    let what = std::env::var_os(HOLDS)?;
    let hold = async {
        if what == "containers" {
            hold(sleeping_container().await?).await
        } else {
            hold(harmed_groups().await?).await
        }
    };
    let runtime = tokio::runtime::Runtime::new().ok()?;
    Some(match runtime.block_on(hold) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

/// The hard cases: one member is dead, and others cannot receive the order to stop.
async fn harmed_groups() -> anyhow::Result<(PostgresGroup, SentinelGroup, EtcdGroup)> {
    let (mut postgres, sentinels, etcd) =
        tokio::try_join!(PostgresGroup::start(), SentinelGroup::start(), EtcdGroup::start())?;
    postgres.members[PRIMARY].kill().await?;
    postgres.members[ASYNCHRONOUS].pause().await?;
    sentinels.members[0].pause().await?;
    Ok((postgres, sentinels, etcd))
}

async fn hold<T>(servers: T) -> anyhow::Result<()> {
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    lines.next_line().await?;
    drop(servers);
    println!("dropped");
    lines.next_line().await?;
    Ok(())
}

/// A process that holds servers in a folder of its own.
struct Holder {
    folder: PathBuf,
    process: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Holder {
    /// `homes` is how many servers it has.
    async fn start(name: &str, what: &str, needs: &[Need], homes: usize) -> anyhow::Result<Self> {
        if let Some(why) = needs.iter().find_map(|need| need.obstacle()) {
            return Err(lab::skip(why));
        }
        // Under /var/tmp, because PostgreSQL's user has to be able to enter the folder.
        let folder = PathBuf::from(format!("/var/tmp/{what}-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut process = Command::new(std::env::current_exe()?)
            .env(HOLDS, what)
            .env("STACK_DIR", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let mut holder = Self { folder, process, lines };
        holder.says("ready").await?;
        ensure!(holder.homes()?.len() == homes, "{:?}", holder.homes()?);
        Ok(holder)
    }

    async fn says(&mut self, word: &str) -> anyhow::Result<()> {
        // It starts fifteen servers, beside those of the other tests.
        let line = timeout(2 * SOON, self.lines.next_line()).await??;
        ensure!(line.as_deref() == Some(word), "it says {line:?}");
        Ok(())
    }

    fn homes(&self) -> anyhow::Result<Vec<PathBuf>> {
        let homes = fs::read_dir(self.folder.join("own"))?;
        Ok(homes.map(|home| home.map(|it| it.path())).collect::<Result<_, _>>()?)
    }

    /// Waits until no process and no folder is left.
    async fn nothing_is_left(self) -> Outcome {
        let begun = Instant::now();
        until("everything to go", SOON, async || {
            let left = (self.homes()?, processes_in(&self.folder));
            ensure!(left.0.is_empty() && left.1.is_empty(), "left: {left:?}");
            Ok(Some(()))
        })
        .await?;
        eprintln!("nothing is left after {:.2?}", begun.elapsed());
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

/// The processes that work in this folder. Only Linux shows them; on other systems the test looks at the folders only.
fn processes_in(folder: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let works_there = |process: &PathBuf| {
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let processes = processes.flatten().map(|it| it.path()).filter(works_there);
    processes.filter_map(|it| fs::read_to_string(it.join("cmdline")).ok()).collect()
}

const GROUPS: [Need; 3] = [
    Need::Group(PostgresGroup::GROUP),
    Need::Group(SentinelGroup::GROUP),
    Need::Group(EtcdGroup::GROUP),
];

async fn groups_end_when_they_are_dropped() -> Outcome {
    let mut holder = Holder::start("dropped", "groups", &GROUPS, 12).await?;
    let stdin = holder.process.stdin.as_mut().context("piped")?;
    tokio::io::AsyncWriteExt::write_all(stdin, b"drop\n").await?;
    holder.says("dropped").await?;
    holder.nothing_is_left().await
}

async fn groups_end_when_their_process_is_killed() -> Outcome {
    let mut holder = Holder::start("killed", "groups", &GROUPS, 12).await?;
    holder.process.kill().await?;
    holder.nothing_is_left().await
}

async fn containers_end_when_their_process_is_killed() -> Outcome {
    let engine = [Need::Tool(Service::ContainerEngine)];
    let mut holder = Holder::start("killed", "containers", &engine, 1).await?;
    holder.process.kill().await?;
    holder.nothing_is_left().await
}
