//! Faults of earlier versions, each with the test that found it.

use std::time::Duration;

use anyhow::{Context, ensure};
use conform::http::header;
use lab::{
    Service,
    fault::Proxy,
    harness::{Outcome, eventually},
    stack::own::OwnServer,
};
use rate_limiter::{
    algorithm::Algorithm,
    cases::told::units_left,
    experiments::fixture::{Fixture, start, start_in_memory},
};

lab::tests![
    an_ipv4_mapped_proxy_is_trusted,
    a_quota_that_changed_starts_a_counter_of_its_own,
    a_request_that_costs_ten_thousand_is_one_entry_of_the_log,
    only_a_corrupt_counter_is_deleted,
    a_primary_that_became_a_replica_is_left,
];

async fn an_ipv4_mapped_proxy_is_trusted() -> Outcome {
    for proxy in ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104"] {
        let (_child, client) = start_in_memory(&["--limit", "1", "--trusted-proxy", proxy]).await?;
        for (address, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.2", 429)] {
            let seen = client.hello_with("x-forwarded-for", address).await?.status();
            ensure!(seen == status, "{proxy}, {address}: {seen}");
        }
    }
    Ok(())
}

async fn a_quota_that_changed_starts_a_counter_of_its_own() -> Outcome {
    for algorithm in Algorithm::ALL {
        let fixture = Fixture::fresh().await?;
        let name = ["--algorithm", algorithm.name(), "--report-cost", "10000"];
        let before = [&name[..], &["--limit", "10000", "--window", "15m"]].concat();
        let (_child, client) = fixture.start_in_redis(&before).await?;
        ensure!(client.report().await?.status() == 200);
        ensure!(client.hello().await?.status() == 429);
        let after = [&name[..], &["--limit", "10", "--window", "1s"]].concat();
        let (_child, client) = fixture.start_in_redis(&after).await?;
        let response = client.hello().await?;
        let wait = header(&response, "retry-after");
        ensure!(response.status() == 200, "{algorithm:?}: told to wait for {wait} s");
    }
    Ok(())
}

async fn a_request_that_costs_ten_thousand_is_one_entry_of_the_log() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let dear = ["--algorithm", "sliding-log", "--limit", "10000", "--report-cost", "10000"];
    let (_child, client) = fixture.start_in_redis(&dear).await?;
    ensure!(client.report().await?.status() == 200);
    let mut redis = fixture.keys.connection().await?;
    let pattern = format!("{}*", fixture.keys.prefix());
    let names: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await?;
    let entries: u64 = redis::cmd("LLEN").arg(&names[0]).query_async(&mut redis).await?;
    ensure!(entries == 1, "{entries} entries");
    Ok(())
}

/// A Redis of the test's own, and a connection to it.
async fn own_redis() -> anyhow::Result<(OwnServer, redis::aio::MultiplexedConnection)> {
    let server = OwnServer::start(Service::Redis).await?;
    let client = redis::Client::open(server.url()?)?;
    let redis = client.get_multiplexed_async_connection().await?;
    Ok((server, redis))
}

/// An account that may not write, or not even read, makes the script fail, and says nothing about the counter.
async fn only_a_corrupt_counter_is_deleted() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (server, mut redis) = own_redis().await?;
    let serve = |url: String| fixture.in_redis().env("REDIS_URL", url).args(&["--limit", "5"]);
    let (_child, client) = start(serve(server.url()?)).await?;
    ensure!(client.hello().await?.status() == 200);
    for (forbidden, expected) in [("-set", 3), ("-get", 2)] {
        let rules = ["on", ">secret", "~*", "+@all", forbidden];
        redis::cmd("ACL").arg("SETUSER").arg("guest").arg(&rules).exec_async(&mut redis).await?;
        let url = format!("redis://guest:secret@127.0.0.1:{}", server.port()?);
        let (_other_child, other) = start(serve(url)).await?;
        other.hello().await?;
        ensure!(other.metric(r#"rate_limiter_store_away_total{mode="fail-open"}"#).await? == 1);
        let left = units_left(&client.hello().await?)?;
        ensure!(left == expected, "{forbidden}: {left} left: the counter was deleted");
    }
    Ok(())
}

async fn a_primary_that_became_a_replica_is_left() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (server, mut redis) = own_redis().await?;
    let proxy = Proxy::to_url(&server.url()?).await?;
    let serve = fixture.in_redis().env("REDIS_URL", proxy.url(&server.url()?)?);
    let (_child, client) = start(serve).await?;
    ensure!(client.hello().await?.status() == 200);
    let connections = proxy.connections();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut redis).await?;
    // The fallback decides; and the next connection may lead to another server.
    ensure!(client.hello().await?.status() == 200);
    let again = async || {
        client.hello().await?;
        Ok((proxy.connections() > connections).then_some(()))
    };
    let patience = Duration::from_secs(5);
    let left = tokio::time::timeout(patience, eventually("a new connection", again)).await;
    left.context("the connection to the replica was kept")??;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await?;
    eventually("the new connection is used", async || {
        let away = r#"rate_limiter_store_away_total{mode="fail-open"}"#;
        let before = client.metric(away).await?;
        client.hello().await?;
        Ok((client.metric(away).await? == before).then_some(()))
    })
    .await
}
