//! Redis is smaller than what is read. Which policy keeps the right things?

use std::sync::Arc;

use anyhow::{Context, ensure};
use lab::{Experiment, Lab, Need, Sabotage};
use rand::{Rng, SeedableRng, rngs::StdRng};
use redis::{aio::MultiplexedConnection, cmd};
use tokio::task::JoinSet;

use super::fixture::{self, Fixture};
use crate::{service::Service, value::Source};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Users
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    users: u32,
    /// Reads with each policy. As many come before, to warm up, and as many after, with other favourites
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(500..=1_000_000))]
    reads: u32,
    /// How uneven the reads are: Zipf's exponent
    #[arg(long, default_value_t = 1.0, value_parser = exponent)]
    zipf: f64,
    /// The share of the users for which there is room, in percent, about
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=90))]
    room_percent: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "eviction",
        "Under maxmemory with a Zipf load every read is answered, and LFU hits more often than random eviction; \
         noeviction keeps what came first, also when nobody asks for it any more",
        &["--users", "4000", "--reads", "6000"],
        run,
    )
    .needs(&[Need::Own(lab::Service::Redis)])
    .sabotage(Sabotage {
        file: "src/link.rs",
        replace: r#"Some("WRONGTYPE" | "OOM")"#,
        with: r#"Some("WRONGTYPE")"#,
        check: "noeviction: reads that went around Redis",
    })
}

fn exponent(text: &str) -> Result<f64, String> {
    let exponent: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=3.0).contains(&exponent) {
        Ok(exponent)
    } else {
        Err("must be 0.01 to 3".to_owned())
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let server = lab.own_server(lab::Service::Redis).await?;
    let fixture = Fixture::with_redis(&lab, server.url()?).await?;
    fixture.make_users(params.users).await?;
    let mut redis = fixture.redis().await?;
    set(&mut redis, "appendonly", "no").await?;
    let app = fixture.app(&fixture.no_timeouts()).await?;
    let room = room(&params, &mut redis, &app).await?;
    let ids = Arc::new(zipf(&params));
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    let policies = ["allkeys-lfu", "allkeys-lru", "allkeys-random", "noeviction"];
    for (done, policy) in policies.into_iter().enumerate() {
        lab.progress(done as u64, 4, policy);
        cmd("FLUSHALL").exec_async(&mut redis).await?;
        set(&mut redis, "maxmemory-policy", policy).await?;
        set(&mut redis, "maxmemory", &room.to_string()).await?;
        let evicted_before = stat(&mut redis, "stats", "evicted_keys:").await?;
        read(&app, &ids, 0).await?;
        let seen = read(&app, &ids, 1).await?;
        let after = read(&app, &ids, 2).await?;
        let evicted = stat(&mut redis, "stats", "evicted_keys:").await? - evicted_before;
        let kept: u64 = cmd("DBSIZE").query_async(&mut redis).await?;
        ensure!(evicted > 0 || policy == "noeviction", "nothing had to go: there is room for all");
        lab.figure(format!("{policy}: hit ratio"), seen.ratio(), "");
        let answered = seen.reads + after.reads;
        lab.check_eq(format!("{policy}: reads answered"), 2 * u64::from(params.reads), answered);
        let around = seen.around + after.around;
        lab.check_eq(format!("{policy}: reads that went around Redis"), 0, around);
        let cells = [kept, evicted, seen.loads + after.loads, seen.unstored + after.unstored];
        let shares = [seen.ratio(), after.ratio()].map(|ratio| format!("{ratio:.3}")).to_vec();
        let cells = cells.map(|cell| cell.to_string()).to_vec();
        rows.push([vec![policy.to_owned()], shares, cells].concat());
        ratios.push((seen, after, evicted));
    }
    let columns =
        ["policy", "hit ratio", "new favourites", "keys", "evicted", "loads", "not stored"];
    lab.table("The same reads with each policy", &columns, rows);
    let random = ratios[2].0.ratio();
    let lfu = ratios[0].0.ratio();
    lab.check(
        "LFU hits more often than random eviction",
        format!("above {random:.3}"),
        format!("{lfu:.3}"),
        lfu > random,
    );
    lab.text(
        "LRU is a figure and no check: Redis' clock for it ticks once a second, and this cache is turned over \
         within seconds, so LRU evicts nearly at random.",
    );
    let (_, after, evicted) = &ratios[3];
    lab.check_eq("noeviction: keys that had to go", 0, *evicted);
    let (lru, after) = (ratios[1].1.ratio(), after.ratio());
    lab.check(
        "noeviction, when other users have become the favourites",
        format!("below the {lru:.3} of LRU"),
        format!("{after:.3}"),
        after < lru,
    );
    app.stop().await;
    Ok(())
}

/// The memory that Redis takes when it is empty, and for that share of the users. A few users show how much one takes.
async fn room(
    params: &Params,
    redis: &mut MultiplexedConnection,
    service: &Arc<Service>,
) -> anyhow::Result<u64> {
    let empty = stat(redis, "memory", "used_memory:").await?;
    let sample = (1..=500).map(fixture::id).collect::<anyhow::Result<Vec<_>>>()?;
    for ids in sample.chunks(100) {
        service.get_many(ids).await?;
    }
    let each = stat(redis, "memory", "used_memory:").await?.saturating_sub(empty) / 500;
    Ok(empty + each * u64::from(params.users) * params.room_percent / 100)
}

async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) -> anyhow::Result<()> {
    Ok(cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(redis).await?)
}

async fn stat(redis: &mut MultiplexedConnection, part: &str, name: &str) -> anyhow::Result<u64> {
    let about: String = cmd("INFO").arg(part).query_async(redis).await?;
    let line = about.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("INFO has no {name}"))?.trim().parse()?)
}

/// The ids to read, the same for every policy. The n-th most popular id comes as often as 1/n^s says. There are three
/// parts, and the last has other favourites.
fn zipf(params: &Params) -> Vec<u32> {
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for n in 1..=params.users {
        sum += 1.0 / f64::from(n).powf(params.zipf);
        sums.push(sum);
    }
    let mut chance = StdRng::seed_from_u64(rand::random());
    let mut draw = |part: u64| {
        let at = chance.random::<f64>() * sum;
        // Scattered over the ids, so that the popular ones do not lie side by side.
        let rank = sums.partition_point(|&sum| sum < at) as u64;
        let rank = rank + part / 2 * u64::from(params.users / 2);
        u32::try_from(rank * 7_919 % u64::from(params.users)).unwrap_or(0) + 1
    };
    (0..3).flat_map(|part| (0..params.reads).map(|_| draw(part)).collect::<Vec<_>>()).collect()
}

#[derive(Default)]
struct Seen {
    reads: u64,
    hits: u64,
    loads: u64,
    unstored: u64,
    /// Reads for which Redis was taken to be away. A full server is not away.
    around: u64,
}

impl Seen {
    fn ratio(&self) -> f64 {
        self.hits as f64 / self.reads as f64
    }
}

/// Reads one third of the ids, with sixteen readers.
async fn read(service: &Arc<Service>, ids: &Arc<Vec<u32>>, third: usize) -> anyhow::Result<Seen> {
    let mut readers = JoinSet::new();
    for reader in 0..16 {
        let (service, ids) = (Arc::clone(service), Arc::clone(ids));
        readers.spawn(async move {
            let mut seen = Seen::default();
            let part = ids.len() / 3;
            for n in (third * part..(third + 1) * part).skip(reader).step_by(16) {
                let (user, source) = service.get(fixture::id(ids[n])?).await?;
                seen.reads += u64::from(user.is_some());
                match source {
                    Source::Near(_) | Source::Hit(_) => seen.hits += 1,
                    Source::Miss { stored } => {
                        seen.loads += 1;
                        seen.unstored += u64::from(!stored);
                    }
                    Source::Bypass => seen.around += 1,
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    for seen in readers.join_all().await {
        let seen = seen?;
        all.reads += seen.reads;
        all.hits += seen.hits;
        all.loads += seen.loads;
        all.unstored += seen.unstored;
        all.around += seen.around;
    }
    Ok(all)
}
