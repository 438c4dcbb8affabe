//! Redis is cut off, black-holed, killed and restarted with old data, under load. What do the clients see?

use std::{sync::atomic::Ordering, time::Duration};

use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    fault::{Fault, Proxy},
};
use redis::cmd;

use super::{
    fixture::Fixture,
    witnesses::{QUIET, Witnesses},
};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds that each fault lasts
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Seconds for which Redis is believed. A change that cannot reach it waits this long
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
    .needs(&[Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/write.rs",
        replace: "sleep_until(committed + self.trust.period).await;",
        with: "",
        check: "reads that were older than a change answered before",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.own_server(Service::Redis).await?;
    let fixture = Fixture::with_redis(&lab, server.url()?).await?;
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    let trust = params.trust.to_string();
    // The database may take its time, because this is not about slow disks.
    let calm = ["--trust", &trust, "--database-timeout", "5"];
    let far = fixture.serve_through(&proxy.url(&fixture.redis_url)?).args(&calm).start().await?;
    let near = fixture.serve().args(&calm).start().await?;
    let writers = params.clients;
    fixture.make_users(Witnesses::users(writers)).await?;
    let clients = [Client::at(far.url())?, Client::at(near.url())?];
    let witnesses = Witnesses::new(clients, writers)?;
    let load = witnesses.load(params.clients);

    let lasts = Duration::from_secs_f64(params.seconds);
    // Ends early if hits do not return. Then there is nothing left to try.
    let story = async {
        witnesses.phase(&lab, "all is well", lasts).await?;
        let faults = [("cut off from one", Fault::Cut), ("black-holed for one", Fault::BlackHole)];
        for (change, (name, fault)) in (1..).zip(faults) {
            proxy.set(fault);
            let phase = witnesses.phase(&lab, name, lasts);
            let (phase, ()) = tokio::join!(phase, witnesses.probe(change));
            phase?;
            proxy.heal();
            if !witnesses.hits_return(&lab, name).await? {
                return Ok(None);
            }
        }
        forget(&fixture, &witnesses).await?;
        // The keys of the life that ends now.
        let keys = fixture.keys_of_users().await?;
        server.kill().await?;
        witnesses.phase(&lab, "killed", lasts).await?;
        // The readers are held back until the old values are counted, because they replace them.
        witnesses.hold.store(true, Ordering::Relaxed);
        server.restart().await?;
        let old = old_values(&fixture, &keys).await?;
        witnesses.hold.store(false, Ordering::Relaxed);
        if witnesses.hits_return(&lab, "killed, restarted with old data").await? {
            witnesses.phase(&lab, "after all that", lasts).await?;
        }
        anyhow::Ok(Some(old))
    };
    let old = story.await?;
    witnesses.end.store(true, Ordering::Relaxed);
    load.join_all().await;

    if let Some(old) = old {
        lab.check(
            "values from before the last updates that the restart brought back",
            "1 or more, or nothing was tried",
            old,
            old > 0,
        );
    }
    witnesses.report(&lab).await
}

/// Makes the quiet users hot, and lets Redis lose what it does from now on, as a power cut would: what is
/// deleted now will be there again.
async fn forget(fixture: &Fixture, witnesses: &Witnesses) -> anyhow::Result<()> {
    for id in 1..=QUIET {
        for client in &witnesses.clients {
            client.read(id).await?;
        }
    }
    let mut connection = fixture.redis().await?;
    cmd("CONFIG").arg("SET").arg("appendonly").arg("no").exec_async(&mut connection).await?;
    for id in 1..=QUIET {
        witnesses.write(&witnesses.clients[usize::from(id % 2 == 0)], id, 1).await?;
    }
    Ok(())
}

/// How many quiet users are in Redis with their old values.
async fn old_values(fixture: &Fixture, keys: &str) -> anyhow::Result<u64> {
    let mut connection = fixture.redis().await?;
    let mut old = 0;
    for id in 1..=QUIET {
        let value: Option<String> =
            cmd("GET").arg(format!("{keys}{id}")).query_async(&mut connection).await?;
        old += u64::from(value.is_some_and(|value| value.contains(&format!("\"user {id}\""))));
    }
    Ok(old)
}
