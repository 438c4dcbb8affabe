//! What does a store answer with yes, and then lose? The server itself is killed while clients write.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use conform::target::within;
use futures_util::future::{join_all, try_join_all};
use lab::{Experiment, Lab, Need, Sabotage, Service, database::migrate};
use redis::cmd;
use tokio::time::timeout;

use super::fixture::customer;
use crate::{
    MIGRATIONS,
    entity::Kind,
    error::Error,
    store::{Model, Store},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Answered writes after which each server is killed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    writes: u32,
    /// Clients that write
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "durability",
        "What a store has answered is there after SIGKILL if its log is written before the answer: PostgreSQL with its \
         defaults and Redis with appendfsync always lose nothing, and Redis without persistence loses everything",
        &["--writes", "200"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres), Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/postgres.rs",
        replace: "let old = self.lock(tx, kind, id).await?;",
        with: r#"sqlx::query("set local synchronous_commit = off").execute(&mut *tx).await?;
            let old = self.lock(tx, kind, id).await?;"#,
        check: "PostgreSQL, tables: answered writes that are lost",
    })
}

/// How a server is set before its clients write.
struct Setting {
    name: &'static str,
    model: Model,
    /// For `CONFIG SET`.
    config: Option<[&'static str; 2]>,
    promise: Promise,
}

/// What is left after the kill.
#[derive(Clone, Copy)]
enum Promise {
    Everything,
    Nothing,
    /// `everysec` answers before the flush. Redis writes to the kernel before it answers, but not while a slow flush is going
    /// on. So the loss is a figure.
    NothingPromised,
}

const REDIS: Setting = Setting {
    name: "Redis, appendfsync everysec",
    model: Model::KeyValue,
    config: Some(["appendfsync", "everysec"]),
    promise: Promise::NothingPromised,
};

const SETTINGS: [Setting; 5] = [
    Setting {
        name: "PostgreSQL, tables",
        model: Model::Tables,
        config: None,
        promise: Promise::Everything,
    },
    Setting {
        name: "PostgreSQL, documents",
        model: Model::Documents,
        config: None,
        promise: Promise::Everything,
    },
    Setting {
        name: "Redis, appendfsync always",
        config: Some(["appendfsync", "always"]),
        promise: Promise::Everything,
        ..REDIS
    },
    REDIS,
    Setting {
        name: "Redis without persistence",
        config: Some(["appendonly", "no"]),
        promise: Promise::Nothing,
        ..REDIS
    },
];

/// For one write. A server that was killed refuses connections at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// For all writes before a kill, also on a slow disk.
const LONGEST: Duration = Duration::from_mins(2);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (mut rows, mut rates) = (Vec::new(), Vec::new());
    for (n, setting) in (0..).zip(SETTINGS) {
        lab.progress(n, 5, setting.name);
        let (rate, answered, lost) = once(&params, &lab, &setting).await?;
        let name = setting.name;
        let check = format!("{name}: answered writes that are lost");
        match setting.promise {
            Promise::Everything => lab.check_eq(check, 0, lost),
            Promise::Nothing => lab.check_eq(check, answered, lost),
            Promise::NothingPromised => lab.figure(check, lost as f64, ""),
        }
        lab.figure(format!("{name}: answered writes"), rate, "writes/s");
        rows.push(vec![name.to_owned(), answered.to_string(), lost.to_string()]);
        rates.push(rate);
    }
    lab.figure("writes with everysec ÷ with always", rates[3] / rates[2], "");
    lab.table("Each kill of a server", &["setting", "answered", "lost"], rows);
    lab.text(
        "SIGKILL loses what is in the memory of the server. What it has handed to the kernel survives, and would not survive a \
         power failure. So this cannot show the second that everysec may lose.",
    );
    Ok(())
}

/// Lets clients write to a server of their own until it is killed; how many writes were answered in a second, how many were
/// answered, and how many of these are not there when it is back.
async fn once(
    params: &Params,
    lab: &Lab,
    setting: &Setting,
) -> anyhow::Result<(f64, usize, usize)> {
    let is_redis = setting.model == Model::KeyValue;
    let service = if is_redis { Service::Redis } else { Service::Postgres };
    let mut server = lab.own_server(service).await?;
    let url = server.url()?;
    if let Some([name, value]) = setting.config {
        let mut redis = redis::Client::open(&*url)?.get_multiplexed_async_connection().await?;
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut redis).await?;
    } else {
        migrate(&url, &MIGRATIONS).await?;
    }
    let open = || Store::new(setting.model, (&url, None), (&url, "durability:"));
    let (store, over, count) = (open()?, AtomicBool::new(false), AtomicU32::new(0));
    // Connections take their time, and the load shall not begin with it.
    let first: Vec<_> = (0..params.clients).map(|client| format!("first-{client}")).collect();
    try_join_all(first.iter().map(|id| customer(&store, id, "GB", 0))).await?;
    let clients = (0..params.clients).map(|client| {
        let (store, over, count) = (&store, &over, &count);
        async move {
            let mut answered = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let id = format!("c{client}-{}", answered.len());
                // What was asked for while the server died has no answer, and so there is no promise.
                match timeout(PATIENCE, customer(store, &id, "GB", 0)).await {
                    Ok(Ok(())) => {
                        answered.push(id);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => break,
                }
            }
            answered
        }
    });
    let begun = Instant::now();
    let killing = async {
        // However fast the server is, it is killed while it answers.
        let enough = within(LONGEST, "so many writes are answered", async || {
            let count = count.load(Ordering::Relaxed);
            Ok((count >= params.writes).then(|| f64::from(count) / begun.elapsed().as_secs_f64()))
        });
        let (rate, killed) = (enough.await, server.kill().await);
        over.store(true, Ordering::Relaxed);
        killed?;
        rate
    };
    let (answered, rate) = tokio::join!(join_all(clients), killing);
    let rate = rate?;
    server.restart().await?;
    let store = &open()?;
    let losses = answered.iter().map(|ids| async move {
        let mut lost = 0;
        for id in ids {
            match store.get(Kind::Customer, id, None).await {
                Ok(_) => {}
                Err(Error::Refused(404, _)) => lost += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    });
    let lost = try_join_all(losses).await?.into_iter().sum();
    Ok((rate, answered.iter().map(Vec::len).sum(), lost))
}
