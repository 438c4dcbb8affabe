//! How much faster are four workers than one?

use std::{collections::HashSet, time::Duration};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target, child::Child};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
};
use crate::{
    cases::{PATIENCE, client::Client},
    notification::UserId,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Milliseconds that the channel takes for one notification
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    channel: u64,
    /// Deliveries that a worker has under way at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrency: u16,
    /// Notifications for each measurement
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(64..=10_000))]
    notifications: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "scale",
        "From one worker to four: throughput of a slow channel rises nearly four times; shards move when a \
         worker leaves",
        &["--notifications", "96", "--channel", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/worker.rs",
        replace: "members.get(usize::from(shard) % members.len().max(1))",
        with: "members.first().filter(|_| shard < u16::MAX)",
        check: "workers of the four that did nothing",
    })
}

const SHARDS: u16 = 8;
const USERS: usize = 64;

/// A worker, and the FCM that only it sends to: what arrives there is its work.
struct Member {
    fcm: FakeFcm,
    child: Child,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture =
        Fixture::of(&lab, Options { shards: SHARDS, backoff_ms: 200, attempts: 8 }).await?;
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    let users = users_on_all_shards(&fixture);
    for (n, user) in users.iter().enumerate() {
        client.add_device(user, &format!("device-{n}")).await?;
    }
    let mut members = vec![join(&fixture, &params).await?];
    let mut throughputs = Vec::new();
    for (phase, count) in [1, 2, 4].into_iter().enumerate() {
        lab.progress(phase as u64, 4, format!("measuring {count} workers"));
        while members.len() < count {
            members.push(join(&fixture, &params).await?);
        }
        // Until each has said that it lives, and each has heard of it.
        all_live(&fixture, i64::try_from(count)?).await?;
        sleep(Duration::from_millis(600)).await;
        let throughput = measure(&client, &members, &users, &format!("{count}"), &params).await?;
        let axes = ("workers", "notifications a second");
        lab.point("Throughput of a slow channel", axes, "measured", (count as f64, throughput));
        throughputs.push(throughput);
    }
    let shares: Vec<_> = members.iter().map(|it| of_phase(&it.fcm.sent(), "4").len()).collect();

    lab.progress(3, 4, "one worker leaves, one is killed");
    let gone = members.split_off(2);
    let [mut leaving, mut dying] =
        <[Member; 2]>::try_from(gone).ok().context("there were four workers")?;
    let theirs: HashSet<_> =
        [&leaving, &dying].iter().flat_map(|it| devices(&it.fcm.sent(), "4")).collect();
    let posting = post(&client, &users, "leave", params.notifications);
    leaving.child.stop().await?;
    dying.child.kill().await?;
    for posted in posting.join_all().await {
        posted?;
    }
    let all: Vec<_> = members.iter().chain([&leaving, &dying]).collect();
    let came = arrived(&all, "leave", params.notifications.into(), PATIENCE).await;
    // The two may have served all of theirs before they were gone. Now they are: one more for each user.
    for posted in post(&client, &users, "gone", u16::try_from(users.len())?).join_all().await {
        posted?;
    }
    let stayed: Vec<_> = members.iter().collect();
    arrived(&stayed, "gone", users.len(), PATIENCE).await;
    let taken_over: HashSet<_> =
        members.iter().flat_map(|member| devices(&member.fcm.sent(), "gone")).collect();
    let moved = theirs.intersection(&taken_over).count();

    let one = throughputs[0];
    lab.figure("throughput of one worker", one, "notifications/s");
    lab.figure("throughput of four workers", throughputs[2], "notifications/s");
    lab.figure("two workers ÷ one", throughputs[1] / one, "");
    lab.figure_with_target("four workers ÷ one", throughputs[2] / one, "", Target::AtLeast(3.2));
    let idle = shares.iter().filter(|&&share| share == 0).count();
    lab.text(format!("Of the last measurement each of the four did {shares:?}"));
    lab.check_eq("workers of the four that did nothing", 0, idle);
    lab.check_eq(
        "notifications that arrived while two workers left",
        usize::from(params.notifications),
        came,
    );
    lab.check("the two that left had users", "1 or more", theirs.len(), !theirs.is_empty());
    lab.check_eq("of their users, those served by the two that stayed", theirs.len(), moved);
    Ok(())
}

/// Waits until so many workers have said that they live.
async fn all_live(fixture: &Fixture, count: i64) -> anyhow::Result<()> {
    let pool = fixture.database.pool().await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let live: i64 = sqlx::query_scalar("select count(*) from workers").fetch_one(&pool).await?;
        if live >= count {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "only {live} of {count} workers live");
        sleep(Duration::from_millis(20)).await;
    }
    pool.close().await;
    Ok(())
}

async fn join(fixture: &Fixture, params: &Params) -> anyhow::Result<Member> {
    let time = Duration::from_millis(params.channel);
    let fcm = FakeFcm::start(move |_| Fate::slow(time)).await?;
    let concurrency = params.concurrency.to_string();
    let options = ["--lease-ms", "500", "--concurrency", &concurrency];
    let child = fixture.worker(&fcm).args(&options).start().await?;
    Ok(Member { fcm, child })
}

/// As many users on each shard: what is measured is the workers, and not the luck of a few names.
fn users_on_all_shards(fixture: &Fixture) -> Vec<String> {
    let mut of_shard = [0; SHARDS as usize];
    let names = (0..).map(|n| format!("user-{n}"));
    let fits = names.filter(|name| {
        let Ok(user) = UserId::try_from(name.clone()) else { return false };
        let count: &mut usize = &mut of_shard[usize::from(fixture.topology.shard_of(&user))];
        *count += 1;
        *count <= USERS / usize::from(SHARDS)
    });
    fits.take(USERS).collect()
}

/// Notifications a second, from the first that arrives until nine in ten have: the last few keep no worker busy.
async fn measure(
    client: &Client,
    members: &[Member],
    users: &[String],
    phase: &str,
    params: &Params,
) -> anyhow::Result<f64> {
    for posted in post(client, users, phase, params.notifications).join_all().await {
        posted?;
    }
    let all: Vec<_> = members.iter().collect();
    let expected = usize::from(params.notifications);
    let came = arrived(&all, phase, expected, PATIENCE).await;
    anyhow::ensure!(came >= expected, "only {came} of {expected} arrived");
    let mut times: Vec<_> = members
        .iter()
        .flat_map(|member| of_phase(&member.fcm.sent(), phase))
        .map(|sent| sent.at)
        .collect();
    times.sort_unstable();
    let most = times.len() * 9 / 10;
    let first = times.first().context("nothing arrived")?;
    Ok(most as f64 / (times[most - 1] - *first).as_secs_f64())
}

/// Sixteen clients post them all, to one user after the other.
fn post(client: &Client, users: &[String], phase: &str, count: u16) -> JoinSet<anyhow::Result<()>> {
    let mut posting = JoinSet::new();
    for number in 0..16 {
        let (client, users, phase) = (client.clone(), users.to_vec(), phase.to_owned());
        posting.spawn(async move {
            for n in (number..count).step_by(16) {
                let user = &users[usize::from(n) % users.len()];
                client.push(&format!("{phase}-{n}"), user).await?;
            }
            Ok(())
        });
    }
    posting
}

/// How many different jobs of a phase have arrived; waits until there are so many.
async fn arrived(members: &[&Member], phase: &str, count: usize, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    loop {
        let all = members.iter().flat_map(|member| of_phase(&member.fcm.sent(), phase));
        let came = all.map(|sent| sent.job_id).collect::<HashSet<_>>().len();
        if came >= count || Instant::now() > deadline {
            return came;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn of_phase(sent: &[Sent], phase: &str) -> Vec<Sent> {
    let phase = format!("{phase}-");
    sent.iter().filter(|sent| sent.job_id.starts_with(&phase)).cloned().collect()
}

fn devices(sent: &[Sent], phase: &str) -> HashSet<String> {
    of_phase(sent, phase).into_iter().map(|sent| sent.device).collect()
}
