//! What is lost when a node of RabbitMQ's cluster dies under load, and for how long does everybody wait?

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use lab::{
    Experiment, Lab, Need, Sabotage, Service, Target,
    group::{RabbitMqGroup, ServerGroup, until},
    queues::Queues,
    stack::own::OwnServer,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    broker_restart::{LOST_AFTER, SETTLED, Told, all_served, lock, notify, user},
    fixture::{self, Fixture, Options},
    seen::Seen,
};
use crate::cases::PATIENCE;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that notify, each a user of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    clients: u16,
    /// Seconds of load before each kill, and after the last
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "node-lost",
        "A node of a cluster of three is killed under load, and then the one that leads a shard's queue: nothing that \
         was accepted is lost, and each user's order holds",
        &["--clients", "4", "--seconds", "0.7"],
        run,
    )
    .needs(&[Need::Group(RabbitMqGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/topology.rs",
        replace: r#"text("balanced")"#,
        with: r#"text("client-local")"#,
        check: "nodes that lead a queue",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 4, "three nodes are starting");
    let mut group = lab.group::<RabbitMqGroup>().await?;
    let nodes = group.members.iter().map(OwnServer::url).collect::<anyhow::Result<Vec<_>>>()?;
    let queues = Queues::fresh_on(&nodes[0], "notification-worker");
    tokio::try_join!(lab.server(Service::Postgres), lab.server(Service::Redis))?;
    let fixture = Fixture::on(queues, Options { shards: 4, backoff_ms: 100, attempts: 8 }).await?;
    let process = || nodes.iter().fold(fixture.serve(), |it, url| it.args(&["--amqp-url", url]));
    let (server, client) = fixture::start(process().args(&["--role", "api"])).await?;
    // Before the load: an election on a busy machine may give two queues the same leader, and nobody spreads them again.
    let leaders = group.leaders().await?;
    let spread = leaders.values().flatten().collect::<BTreeSet<_>>().len();
    let _worker = process().args(&["--role", "worker"]).start().await?;
    let (told, stop) = (Arc::new(Mutex::new(Told::default())), CancellationToken::new());
    let mut load = JoinSet::new();
    for number in 0..params.clients {
        load.spawn(notify(client.clone(), number, told.clone(), stop.clone()));
    }
    anyhow::ensure!(all_served(&told, 0, params.clients).await, "nobody was served at first");
    lab.progress(0, 4, "letting the queues settle");
    sleep(SETTLED).await;

    let queue = fixture.topology.queue(0);
    let (mut pauses, mut served) = (Vec::new(), 0_u64);
    for (n, what) in
        ["a node that does not lead the shard", "the one that does"].into_iter().enumerate()
    {
        lab.progress(n as u64 + 1, 4, format!("killing {what}"));
        sleep(Duration::from_secs_f64(params.seconds)).await;
        let led = async || group.leader(&queue).await;
        let leader = until("a leader", PATIENCE, led).await?;
        let victim = if n == 0 { (leader + 1) % nodes.len() } else { leader };
        group.members[victim].kill().await?;
        let (killed, before) = (Instant::now(), lock(&told).accepted.len());
        served += u64::from(all_served(&told, before, params.clients).await);
        pauses.push(killed.elapsed().as_secs_f64());
        group.members[victim].restart().await?;
    }
    sleep(Duration::from_secs_f64(params.seconds)).await;
    stop.cancel();
    load.join_all().await;

    lab.progress(3, 4, "reading what arrived");
    let told = std::mem::take(&mut *lock(&told));
    let latest = Instant::now() + LOST_AFTER;
    let reading = (0..params.clients).map(|number| {
        let jobs = told.accepted.iter().filter(|(of, _)| *of == number);
        let jobs: Vec<_> = jobs.map(|(_, job)| job.clone()).collect();
        let client = &client;
        async move {
            let mut seen = Seen::default();
            seen.watch_for(client, &user(number), &jobs, latest).await;
            let accepted = |job: &&String| jobs.contains(job);
            let came: Vec<_> = seen.frames.iter().map(|it| &it.job_id).filter(accepted).collect();
            (seen.missing(&jobs), seen.twice(), u64::from(came.into_iter().eq(&jobs)))
        }
    });
    let seen = join_all(reading).await;
    let (missing, twice) = (seen.iter().map(|it| it.0).sum(), seen.iter().map(|it| it.1).sum());
    if spread < nodes.len() || served < 2 || missing > 0 {
        let words = server.log();
        lab.text(format!("Who led at first: {leaders:?}\nThe service's last words:\n{words}"));
    }
    let [follower, leader] = pauses[..] else { anyhow::bail!("two nodes were killed") };
    lab.figure("accepted", told.accepted.len() as f64, "");
    lab.figure("refused with 503 meanwhile", told.refused.0 as f64, "");
    let name = "until everybody was served, after a node that does not lead the shard died";
    lab.figure_with_target(name, follower, "s", Target::AtMost(10.0));
    let name = "until everybody was served, after the shard's leader died";
    lab.figure_with_target(name, leader, "s", Target::AtMost(10.0));
    lab.check_eq("nodes that lead a queue", nodes.len(), spread);
    lab.check_eq(
        "kills after which every client was served again while the node was away",
        2_u64,
        served,
    );
    lab.check(
        "nothing else was answered",
        "only 202 and 503",
        format!("{:?}", told.others),
        told.others.is_empty(),
    );
    lab.check_eq::<usize>("accepted notifications that did not arrive", 0, missing);
    lab.check_eq::<usize>("notifications that arrived twice", 0, twice);
    let ordered = seen.iter().map(|it| it.2).sum::<u64>();
    lab.check_eq(
        "users whose notifications came in the order of the calls",
        u64::from(params.clients),
        ordered,
    );
    Ok(())
}
