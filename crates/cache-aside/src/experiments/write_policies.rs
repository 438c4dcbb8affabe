//! What do write-through and write-behind lose that a delete on update keeps?

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    fault::{Proxy, Side},
    load::median,
};
use redis::cmd;
use tokio::time::timeout;

use super::{
    compare::write_policies::Servers,
    fixture::{self, Fixture, believes},
};
use crate::{
    service::Tuning,
    user::{Email, Name},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Users
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    users: u32,
    /// Changes of each user before the power cut
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    changes: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "write-policies",
        "Write-through leaves the older of two changes in the cache when they reach Redis in the other order; \
         write-behind loses every answered change that was not flushed when Redis dies; delete on update does neither",
        &["--users", "4", "--changes", "4"],
        run,
    )
    .needs(&[Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/link.rs",
        replace: r#"delete.cmd("DEL").arg(self.key(*id)).ignore();"#,
        with: r#"delete.cmd("EXISTS").arg(self.key(*id)).ignore();"#,
        check: "delete on update: the name that is read after two changes",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.own_server(Service::Redis).await?;
    let fixture = Fixture::with_redis(&lab, server.url()?).await?;
    fixture.make_users(params.users + 2).await?;
    // Redis as it is run for a cache: it keeps nothing over a power cut.
    let mut redis = fixture.redis().await?;
    cmd("CONFIG").arg("SET").arg("appendonly").arg("no").exec_async(&mut redis).await?;
    let trust = Duration::from_secs(1);
    let app = fixture.app(&Tuning { trust, ..fixture.no_timeouts() }).await?;
    let servers = Servers::connect(fixture.database.url(), &fixture.redis_url).await?;

    let (cached, kept) = crossed(&fixture, &servers, i64::from(params.users) + 1).await?;
    lab.check_eq("write-through: the name in the database after two changes", "second", &kept);
    lab.check_eq("write-through: the name in the cache", "first", &cached);

    let id = fixture::id(params.users + 2)?;
    let email = Email::parse("policies@example.org").map_err(anyhow::Error::msg)?;
    for name in ["first", "second"] {
        // This read makes the user hot, so that there is something to delete.
        app.get(id).await?;
        let name = Name::parse(name).map_err(anyhow::Error::msg)?;
        app.update(id, None, &name, &email).await?;
    }
    let read = app.get(id).await?.0.context("nobody")?;
    let read: serde_json::Value = serde_json::from_slice(&read.json)?;
    let seen = read["name"].as_str().unwrap_or_default();
    lab.check_eq("delete on update: the name that is read after two changes", "second", seen);

    // The same changes with each, the last of them just before the power cut. Write-behind flushes half-way.
    let mut rows = Vec::new();
    let mut times = [vec![], vec![], vec![]];
    let mut flushed = 0;
    for change in 1..=params.changes {
        for n in 1..=params.users {
            let (id, new) = (i64::from(n), format!("change {change}"));
            let begun = Instant::now();
            servers.write_behind(id, &new).await?;
            times[2].push(begun.elapsed().as_secs_f64() * 1e3);
        }
        if change == params.changes / 2 {
            flushed = servers.flush().await?;
        }
    }
    server.kill().await?;
    let last = format!("change {}", params.changes);
    let mut lost = 0_u64;
    for n in 1..=params.users {
        lost += u64::from(servers.kept(n.into()).await? != last);
    }
    let all = u64::from(params.users);
    lab.check_eq("write-behind: users whose last answered change is lost", all, lost);
    lab.check_eq("write-behind: writes of the database before the power cut", all, flushed);

    server.restart().await?;
    let servers = Servers::connect(fixture.database.url(), &fixture.redis_url).await?;
    // This read finds the old connection dead, so that no change has to.
    app.get(id).await?;
    believes(&app).await?;
    for change in 1..=params.changes {
        for n in 1..=params.users {
            let new = format!("change {change}");
            let begun = Instant::now();
            servers.write_through(n.into(), &new).await?;
            times[1].push(begun.elapsed().as_secs_f64() * 1e3);
            let name = Name::parse(&new).map_err(anyhow::Error::msg)?;
            let email = Email::parse(&format!("user{n}@example.org"));
            let email = email.map_err(anyhow::Error::msg)?;
            let begun = Instant::now();
            app.update(fixture::id(n)?, None, &name, &email).await?;
            times[0].push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    server.kill().await?;
    let mut lost = 0_u64;
    for n in 1..=params.users {
        lost += u64::from(servers.kept(n.into()).await? != last);
    }
    lab.check_eq("write-through and delete on update: users whose last change is lost", 0, lost);
    for (policy, times) in
        ["delete on update", "write-through", "write-behind"].into_iter().zip(times)
    {
        let took = median(times);
        lab.figure(format!("{policy}: a change takes, median"), took, "ms");
        rows.push(vec![policy.to_owned(), format!("{took:.2}")]);
    }
    lab.table("What a change takes (ms, median)", &["policy", "ms"], rows);
    app.stop().await;
    Ok(())
}

/// Two clients change one user. The first is held up between the database and the cache. Returns what the cache and the
/// database say in the end.
async fn crossed(fixture: &Fixture, second: &Servers, id: i64) -> anyhow::Result<(String, String)> {
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    let first = Servers::connect(fixture.database.url(), &proxy.url(&fixture.redis_url)?).await?;
    let set = proxy.at_message(proxy.messages() + 1, Side::Before);
    let writing = tokio::spawn({
        let first = first.clone();
        async move { first.write_through(id, "first").await }
    });
    let held = timeout(Duration::from_secs(10), set).await.context("no write came")??;
    second.write_through(id, "second").await?;
    drop(held);
    writing.await??;
    Ok((second.cached(id).await?.context("nothing is cached")?, second.kept(id).await?))
}
