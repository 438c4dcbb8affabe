//! Redis is cut off, swallowed, killed and restarted with old data, under load. What do the clients see?

use std::{sync::atomic::Ordering, time::Duration};

use lab::{
    Experiment, Lab, Need, Service,
    fault::{Fault, Proxy},
    stack::own::OwnServer,
};
use redis::{Client, cmd};

use super::{
    field::{Field, QUIET},
    ground,
};

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
    .needs(&[Need::Own(Service::Redis)])
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut server = lab.own_server(Service::Redis).await?;
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
    ground::users(&database, Field::users(writers)).await?;
    let field = Field::new([&far, &near], writers)?;
    let load = field.load(params.clients);

    let lasts = Duration::from_secs_f64(params.seconds);
    field.phase(&lab, "all is well", lasts).await?;
    let faults = [("cut off from one", Fault::Cut), ("black-holed for one", Fault::BlackHole)];
    for (change, (name, fault)) in (1..).zip(faults) {
        proxy.set(fault);
        let (phase, ()) = tokio::join!(field.phase(&lab, name, lasts), field.probe(change));
        phase?;
        proxy.heal();
        field.hits_return(&lab, name).await?;
    }
    forget(&redis, &field).await?;
    server.kill().await?;
    field.phase(&lab, "killed", lasts).await?;
    // The old values are counted before a reader has replaced them, however slow this machine is; then come
    // the readers.
    field.hold.store(true, Ordering::Relaxed);
    server.restart().await?;
    let old = old_values(&server).await?;
    field.hold.store(false, Ordering::Relaxed);
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
