//! Redis is cut off, swallowed, killed and restarted with old data, under load. What do the clients see?

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use lab::{
    Experiment, Kind, Lab, Target,
    child::Child,
    fault::{Fault, Proxy},
    load::median,
    stack::own::OwnServer,
};
use redis::{Client, cmd};
use tokio::{task::JoinSet, time::sleep};

use super::{client::Api, ground};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds that each fault lasts
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Seconds for which Redis is believed: what a change waits that cannot reach it
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    trust: f64,
    /// Readers, and as many writers, on two processes
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=32))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "redis-away",
        "Redis cut off from one of two processes, black-holed, killed and restarted with old data, under \
         load: no request fails, no read is stale, hits return by themselves",
        &["--seconds", "0.4", "--trust", "0.3", "--clients", "6"],
        run,
    )
}

/// Users that are hot, and not written to except where it is said.
const QUIET: i64 = 20;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut server = lab.own_server(Kind::Redis).await?;
    let redis = server.url()?;
    let proxy = Proxy::to_url(&redis).await?;
    let serve = |redis: &str| {
        let trust = params.trust.to_string();
        // The database may take its time: a slow disk is not what this is about.
        let calm = ["--database-timeout", "5"];
        lab.serve().database(&database).args(&["--redis", redis, "--trust", &trust]).args(&calm)
    };
    let far = serve(&proxy.url(&redis)?).start().await?;
    let near = serve(&redis).start().await?;
    let writers = params.clients;
    ground::users(&database, u32::try_from(QUIET)? + u32::from(writers)).await?;
    let field = Field::new([&far, &near], writers)?;
    let load = field.load(params.clients);

    let lasts = Duration::from_secs_f64(params.seconds);
    field.phase(&lab, "all is well", lasts).await?;
    for (name, fault) in
        [("cut off from one", Fault::Cut), ("black-holed for one", Fault::BlackHole)]
    {
        proxy.set(fault);
        field.phase(&lab, name, lasts).await?;
        proxy.heal();
        field.hits_return(&lab, name).await?;
    }
    forget(&redis, &field).await?;
    server.kill().await?;
    field.phase(&lab, "killed", lasts).await?;
    server.restart().await?;
    let old = old_values(&server).await?;
    field.hits_return(&lab, "killed, restarted with old data").await?;
    field.phase(&lab, "after all that", lasts).await?;
    field.end.store(true, Ordering::Relaxed);
    load.join_all().await;

    lab.check(
        "values from before the last updates that the restart brought back",
        "1 or more, or nothing was tried",
        old,
        old > 0,
    );
    field.report(&lab).await
}

/// Makes the quiet users hot, and lets Redis lose what it does from now on, as a power cut would: what is
/// deleted now will be there again.
async fn forget(redis: &str, field: &Field) -> anyhow::Result<()> {
    for id in 1..=QUIET {
        for api in &field.apis {
            api.get(id).await?;
        }
    }
    let mut connection = Client::open(redis)?.get_multiplexed_async_connection().await?;
    connection.set_response_timeout(Duration::from_secs(10));
    cmd("CONFIG").arg("SET").arg("appendonly").arg("no").exec_async(&mut connection).await?;
    for id in 1..=QUIET {
        field.write(&field.apis[usize::from(id % 2 == 0)], id, 1).await?;
    }
    Ok(())
}

/// How many quiet users are there in Redis as they were.
async fn old_values(server: &OwnServer) -> anyhow::Result<u64> {
    let mut connection = Client::open(server.url()?)?.get_multiplexed_async_connection().await?;
    connection.set_response_timeout(Duration::from_secs(10));
    let mut old = 0;
    for id in 1..=QUIET {
        let value: Option<String> =
            cmd("GET").arg(format!("user:{id}")).query_async(&mut connection).await?;
        old += u64::from(value.is_some_and(|value| value.contains(&format!("\"user {id}\""))));
    }
    Ok(old)
}

/// Two processes, their clients, and what those were promised.
#[derive(Clone)]
struct Field {
    apis: [Api; 2],
    /// For each user, the number of the last change that was answered. Index 0 is nobody.
    promised: Arc<Vec<AtomicU64>>,
    end: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    writers: u16,
}

#[derive(Default)]
struct Seen {
    phase: String,
    rows: Vec<Vec<String>>,
    failed: Vec<String>,
    stale: Vec<String>,
    reads: Vec<f64>,
    writes: Vec<f64>,
    hits: u64,
    bypasses: u64,
    all_reads: u64,
    all_writes: u64,
    slowest_read: f64,
    /// Of the changes that were answered while Redis was away from somebody.
    writes_while_away: u64,
}

impl Field {
    fn new(children: [&Child; 2], writers: u16) -> anyhow::Result<Self> {
        let users = usize::try_from(QUIET)? + usize::from(writers) + 1;
        Ok(Self {
            apis: [Api::of(children[0])?, Api::of(children[1])?],
            promised: Arc::new((0..users).map(|_| AtomicU64::new(0)).collect()),
            end: Arc::default(),
            seen: Arc::default(),
            writers,
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readers of all users by turns, and a writer for each of the users that are not quiet.
    fn load(&self, readers: u16) -> JoinSet<()> {
        let mut load = JoinSet::new();
        for n in 0..readers {
            let field = self.clone();
            load.spawn(async move {
                let users = field.promised.len() - 1;
                for turn in usize::from(n).. {
                    if field.end.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = i64::try_from(turn * 7 % users + 1).unwrap_or(1);
                    field.read(&field.apis[turn % 2], id).await;
                    // Not as fast as it can: this is about what is answered, not about how much.
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        for n in 0..self.writers {
            let field = self.clone();
            load.spawn(async move {
                let id = QUIET + 1 + i64::from(n);
                for change in 1.. {
                    if field.end.load(Ordering::Relaxed) {
                        break;
                    }
                    let api = &field.apis[usize::from(n % 2)];
                    // Told in the failures.
                    let _ = field.write(api, id, change).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        load
    }

    /// Reads a user, who must not be older than what was promised before.
    async fn read(&self, api: &Api, id: i64) {
        let Some(promised) = usize::try_from(id).ok().and_then(|id| self.promised.get(id)) else {
            return;
        };
        let promised = promised.load(Ordering::SeqCst);
        let began = Instant::now();
        let read = api.get(id).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let mut seen = self.seen();
        let phase = seen.phase.clone();
        match read {
            Ok(read) if read.status == 200 => {
                let number = change_of(&read.name);
                if number < promised {
                    seen.stale.push(format!("{phase}: {number} after {promised}: {}", read.cache));
                }
                seen.hits += u64::from(read.is_hit());
                seen.bypasses += u64::from(read.cache.contains("bypass"));
                seen.all_reads += 1;
                seen.reads.push(took);
                seen.slowest_read = seen.slowest_read.max(took);
            }
            Ok(read) => seen.failed.push(format!("{phase}: a read: {}", read.status)),
            Err(error) => seen.failed.push(format!("{phase}: a read: {error:#}")),
        }
    }

    /// Changes a user, and remembers the promise when it is answered.
    async fn write(&self, api: &Api, id: i64, change: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        let written = api.put(id, &format!("change {change}")).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        if let Ok(200) = written
            && let Some(promised) = usize::try_from(id).ok().and_then(|id| self.promised.get(id))
        {
            promised.fetch_max(change, Ordering::SeqCst);
        }
        let mut seen = self.seen();
        match written {
            Ok(200) => {
                seen.writes.push(took);
                seen.all_writes += 1;
                Ok(())
            }
            other => {
                let failed = format!("{}: a change: {other:?}", seen.phase);
                seen.failed.push(failed.clone());
                bail!(failed)
            }
        }
    }

    /// Lets the load go on for a while, and writes down what it was like.
    async fn phase(&self, lab: &Lab, name: &str, lasts: Duration) -> anyhow::Result<()> {
        lab.progress(0, 0, name);
        self.begin(name);
        sleep(lasts).await;
        let mut seen = self.seen();
        let (reads, writes) = (std::mem::take(&mut seen.reads), std::mem::take(&mut seen.writes));
        let slowest = reads.iter().copied().fold(0.0, f64::max);
        let row = vec![
            name.to_owned(),
            reads.len().to_string(),
            seen.hits.to_string(),
            seen.bypasses.to_string(),
            format!("{slowest:.0}"),
            writes.len().to_string(),
            format!("{:.0}", median(writes.clone())),
        ];
        seen.rows.push(row);
        if name != "all is well" && name != "after all that" {
            seen.writes_while_away += writes.len() as u64;
        }
        Ok(())
    }

    fn begin(&self, name: &str) {
        let mut seen = self.seen();
        name.clone_into(&mut seen.phase);
        (seen.hits, seen.bypasses) = (0, 0);
        seen.reads.clear();
        seen.writes.clear();
    }

    /// Waits until both processes answer from Redis again, though nobody tells them to.
    async fn hits_return(&self, lab: &Lab, name: &str) -> anyhow::Result<()> {
        self.begin(&format!("after: {name}"));
        let healed = Instant::now();
        for api in &self.apis {
            while !api.get(1).await?.is_hit() {
                ensure!(healed.elapsed() < Duration::from_secs(20), "{name}: hits do not return");
                sleep(Duration::from_millis(5)).await;
            }
        }
        let took = healed.elapsed().as_secs_f64();
        lab.figure(format!("{name}: hits are back after"), took, "s");
        Ok(())
    }

    async fn report(&self, lab: &Lab) -> anyhow::Result<()> {
        // The last word has the database: every user, by both processes.
        for id in 1..self.promised.len() {
            for api in &self.apis {
                self.read(api, i64::try_from(id).context("an id")?).await;
            }
        }
        let seen = self.seen();
        let columns = [
            "Redis is",
            "reads",
            "hits",
            "bypasses",
            "slowest read (ms)",
            "changes",
            "a change takes (ms, median)",
        ];
        lab.table("What clients of the two processes saw", &columns, seen.rows.clone());
        lab.figure("reads", seen.all_reads as f64, "");
        lab.figure("changes", seen.all_writes as f64, "");
        // The time-out of Redis is 100 ms; then comes the database, with all others.
        let target = Target::AtMost(300.0);
        lab.figure_with_target("slowest read of all", seen.slowest_read, "ms", target);
        let few = |all: &[String]| match all {
            [] => "none".to_owned(),
            [first, ..] => format!("{}, such as {first}", all.len()),
        };
        let failed = few(&seen.failed);
        lab.check("requests that failed", "none", failed, seen.failed.is_empty());
        let stale = few(&seen.stale);
        lab.check(
            "reads that were older than a change answered before",
            "none",
            stale,
            seen.stale.is_empty(),
        );
        let away = seen.writes_while_away;
        lab.check("changes answered while Redis was away", "1 or more", away, away > 0);
        Ok(())
    }
}

/// `change 7` is 7; what the user was called at first is 0.
fn change_of(name: &str) -> u64 {
    name.strip_prefix("change ").and_then(|number| number.parse().ok()).unwrap_or(0)
}
