//! Faults of earlier versions, each with the test that found it.

use std::time::Duration;

use anyhow::ensure;
use cache_aside::{
    cases::client::{is_hit, name},
    experiments::fixture::{Fixture, NO_TIMEOUTS, believing},
};
use conform::http::{header, problem};
use lab::{
    fault::{Fault, Proxy, Side},
    harness::{Outcome, eventually},
    skip,
};
use redis::cmd;
use sqlx::{Connection, PgConnection};
use tokio::{process::Command, time::sleep};

lab::tests![
    a_database_that_was_emptied_is_not_answered_from_the_cache_of_the_old_one,
    a_client_that_disconnects_leaves_no_lease_behind,
    one_slow_answer_of_redis_costs_one_request_and_no_more,
    without_the_database_readers_make_no_storm_of_connections,
    a_database_that_became_read_only_is_away,
    many_users_are_read_from_a_redis_cluster,
];

async fn a_database_that_was_emptied_is_not_answered_from_the_cache_of_the_old_one() -> Outcome {
    let (mut before, after) = (Fixture::fresh().await?, Fixture::fresh().await?);
    // The same Redis and the same prefix, as after `serve --reset`.
    before.key_prefix.clone_from(&after.key_prefix);
    let (mut child, client) = before.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    client.hit(id).await?;
    child.stop().await?;
    // Both databases are copies of one template, where a migration has made the row.
    let mut database = PgConnection::connect(after.database.url()).await?;
    sqlx::query("update origin set id = default").execute(&mut database).await?;
    let (_child, client) = after.start(&[]).await?;
    problem(client.read(id).await?, 404).await?;
    Ok(())
}

async fn a_client_that_disconnects_leaves_no_lease_behind() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.make_users(100).await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let serve = fixture.serve().env("DATABASE_URL", proxy.url(fixture.database.url())?);
    // A lease that is left behind lasts two minutes: no reader here would wait for its end.
    let child = serve.args(&NO_TIMEOUTS).start().await?;
    let client = believing(&child).await?;
    proxy.set(Fault::BlackHole);
    let ids: Vec<i64> = (1..=100).collect();
    let impatient = client.clone();
    let many = ids.clone();
    let reading = tokio::spawn(async move { impatient.read_many(&many).await });
    let mut redis = fixture.redis().await?;
    eventually("the leases are there", async || {
        Ok((fixture.keys(&mut redis.clone()).await?.len() == 100).then_some(()))
    })
    .await?;
    reading.abort();
    // Dropping the request closes its connection; the server sees it within moments.
    sleep(Duration::from_millis(200)).await;
    proxy.heal();
    eventually("all of them are cached, though a lease lasts two minutes", async || {
        let many = client.read_many(&ids).await?;
        Ok(is_hit(&many).then_some(()))
    })
    .await?;
    ensure!(fixture.keys(&mut redis).await?.len() == 100);
    Ok(())
}

async fn one_slow_answer_of_redis_costs_one_request_and_no_more() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    // The next confirmation is ten seconds away.
    let serve = fixture.serve_through(&proxy.url(&fixture.redis_url)?).args(&["--trust", "30"]);
    let child = serve.args(&["--database-timeout", "10"]).start().await?;
    let client = believing(&child).await?;
    let id = client.sign_up("Ada").await?;
    client.hit(id).await?;
    let slow = proxy.at_message(proxy.messages() + 1, Side::Before);
    let reading = tokio::spawn({
        let client = client.clone();
        async move { client.read(id).await }
    });
    let slow = slow.await?;
    let read = reading.await??;
    drop(slow);
    ensure!(!is_hit(&read), "the slow answer was used");
    ensure!(name(read).await? == "Ada");
    let begun = std::time::Instant::now();
    client.hit(id).await?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(3), "hits were back after {took:?}");
    Ok(())
}

async fn without_the_database_readers_make_no_storm_of_connections() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let serve = fixture.serve().env("DATABASE_URL", proxy.url(fixture.database.url())?);
    // Each reader gives up at once, so that only what the process does by itself is counted.
    let child = serve.args(&["--trust", "0.3", "--redis-timeout", "0.05"]).start().await?;
    let client = believing(&child).await?;
    proxy.set(Fault::Cut);
    eventually("nothing is believed any more", async || {
        Ok((client.read(1).await?.status() == 503).then_some(()))
    })
    .await?;
    let (before, reads) = (proxy.connections(), 300);
    let begun = std::time::Instant::now();
    for _ in 0..reads {
        ensure!(client.read(1).await?.status() == 503);
    }
    let took = begun.elapsed();
    let connections = proxy.connections() - before;
    // Each read tries once; the watcher pauses between its attempts, up to a tenth of a second.
    let most = reads + 10 + u64::try_from(took.as_millis())? / 90;
    ensure!(connections <= most, "{connections} connections for {reads} reads in {took:?}");
    Ok(())
}

async fn a_database_that_became_read_only_is_away() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    // As a primary that was demoted refuses each change.
    let refuse = r#"
        create function refuse() returns trigger language plpgsql as
            $$begin raise exception 'read-only' using errcode = '25006'; end$$;
        create trigger refuse before update on users for each statement execute function refuse();
    "#;
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    sqlx::raw_sql(refuse).execute(&mut database).await?;
    let changed = client.change(id, &client.user("Ada")).await?;
    ensure!(header(&changed, "retry-after") == "1", "{changed:?}");
    problem(changed, 503).await?;
    Ok(())
}

async fn many_users_are_read_from_a_redis_cluster() -> Outcome {
    let (port, bus) = (lab::port::free()?, lab::port::free()?);
    let folder = tempfile::tempdir()?;
    let serve = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let _server = serve.map_err(|error| skip(format!("redis-server does not start: {error}")))?;
    let url = format!("redis://127.0.0.1:{port}/");
    let mut fixture = Fixture::fresh().await?;
    fixture.redis_url = url;
    let mut redis = eventually("the node answers", async || Ok(fixture.redis().await.ok())).await?;
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec_async(&mut redis).await?;
    eventually("the cluster is whole", async || {
        let info: String = cmd("CLUSTER").arg("INFO").query_async(&mut redis.clone()).await?;
        Ok(info.contains("cluster_state:ok").then_some(()))
    })
    .await?;
    let (_child, client) = fixture.start(&[]).await?;
    let ids = [client.sign_up("One").await?, client.sign_up("Two").await?];
    client.hit(ids[0]).await?;
    eventually("both are cached", async || Ok(is_hit(&client.read_many(&ids).await?).then_some(())))
        .await
}
