//! What happens when a server is away or full, or holds what no code of ours wrote?

use std::time::Duration;

use anyhow::{Context, ensure};
use conform::http::{header, problem};
use futures_util::future::try_join_all;
use lab::{
    Service,
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
    stack::own::OwnServer,
};
use lapin::{BasicProperties, options::BasicPublishOptions};
use notification_worker::experiments::fixture::{self, Fixture, QUICK};
use reqwest::Method;
use tokio::time::Instant;

use crate::start;

lab::tests![
    a_message_that_no_code_of_ours_wrote_is_buried_and_the_rest_goes_on,
    a_full_queue_is_503_and_nothing_is_kept,
    a_broker_that_is_away_is_503_and_the_same_call_works_later,
    a_database_or_a_redis_that_is_away_is_503,
    a_redis_that_became_a_replica_is_left,
    what_a_crash_left_unpublished_is_swept_up,
];

async fn a_message_that_no_code_of_ours_wrote_is_buried_and_the_rest_goes_on() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    let connection = fixture.queues.connection().await?;
    let channel = connection.create_channel().await?;
    let foreign: [&[u8]; 6] = [
        b"",
        b"\xff\xfe",
        b"{",
        // What PostgreSQL cannot be asked for.
        br#"{"job_id":"a\u0000b","user_id":"ann","alone":false}"#,
        br#"{"job_id":7}"#,
        &[b'['; 5_000],
    ];
    // What was taken back, or is old and forgotten. Nobody has to look at it.
    let void: &[u8] = br#"{"job_id":"nobody-knows","user_id":"ann","alone":false}"#;
    for payload in foreign.into_iter().chain([void]) {
        for shard in 0..2 {
            let (queue, options) = (fixture.topology.queue(shard), BasicPublishOptions::default());
            let properties = BasicProperties::default();
            channel.basic_publish("".into(), queue.into(), options, payload, properties).await?;
        }
    }
    let mut buried = Vec::new();
    for _ in 0..foreign.len() * 2 {
        buried.push(fixture.buried().await?);
    }
    for payload in foreign {
        ensure!(buried.iter().filter(|it| it.as_slice() == payload).count() == 2);
    }
    for user in 0..6 {
        client.notify(&format!("job-{user}"), &format!("user-{user}")).await?;
        client.until(&format!("job-{user}"), "delivered").await?;
    }
    Ok(())
}

async fn a_full_queue_is_503_and_nothing_is_kept() -> Outcome {
    // Nobody works, so the queues fill up.
    let (fixture, _child, client) = start(&["--role", "api", "--max-queue", "5"]).await?;
    let (mut accepted, mut refused) = (Vec::new(), None);
    for n in 0..100 {
        let job = format!("job-{n}");
        let answer = client.try_notify(&job, "ann", "websocket").await?;
        if answer.status() == 202 {
            accepted.push(job);
        } else {
            ensure!(header(&answer, "retry-after").parse::<u64>().is_ok(), "no Retry-After");
            problem(answer, 503).await?;
            refused = Some(job);
            break;
        }
    }
    let refused = refused.context("a queue of five took a hundred")?;
    ensure!(accepted.len() >= 5, "{accepted:?}");
    problem(client.target.get(&format!("notifications/{refused}")).await?, 404).await?;
    // Fifty calls for one new job, of which none can be confirmed.
    let together = (0..50).map(|_| client.try_notify("together", "ann", "websocket"));
    for answer in try_join_all(together).await? {
        ensure!(answer.status() == 503, "{} for what the broker did not take", answer.status());
    }
    let _worker = fixture.serve().args(&["--role", "worker", "--max-queue", "5"]).start().await?;
    for job in accepted {
        client.until(&job, "delivered").await?;
    }
    client.notify(&refused, "ann").await?;
    client.until(&refused, "delivered").await?;
    Ok(())
}

async fn a_broker_that_is_away_is_503_and_the_same_call_works_later() -> Outcome {
    let fixture = Fixture::fresh(QUICK).await?;
    let proxy = Proxy::to_url(fixture.queues.url()).await?;
    let proxied = proxy.url(fixture.queues.url())?;
    let (_child, client) = fixture::start(fixture.serve().env("AMQP_URL", proxied)).await?;
    client.notify("before", "ann").await?;
    client.until("before", "delivered").await?;
    // A cable that is pulled: nothing says that the broker has gone.
    for fault in [Fault::BlackHole, Fault::Cut] {
        proxy.set(fault);
        let begun = Instant::now();
        let answer = client.try_notify("during", "ann", "websocket").await?;
        ensure!(header(&answer, "retry-after").parse::<u64>().is_ok(), "no Retry-After");
        problem(answer, 503).await.with_context(|| format!("{fault:?}"))?;
        ensure!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    }
    proxy.heal();
    let answer = eventually("the broker is back", async || {
        let answer = client.try_notify("during", "ann", "websocket").await?;
        Ok((answer.status() != 503).then_some(answer.status()))
    })
    .await?;
    ensure!(answer.is_success(), "{answer}");
    client.until("during", "delivered").await?;
    let mut stream = client.stream("ann", 0).await?;
    ensure!(stream.soon().await?.job_id == "before" && stream.soon().await?.job_id == "during");
    stream.nothing_more().await
}

async fn a_database_or_a_redis_that_is_away_is_503() -> Outcome {
    let fixture = Fixture::fresh(QUICK).await?;
    let database = Proxy::to_url(fixture.database.url()).await?;
    let redis = Proxy::to_url(fixture.keys.url()).await?;
    let process = fixture
        .serve()
        .env("DATABASE_URL", database.url(fixture.database.url())?)
        .env("REDIS_URL", redis.url(fixture.keys.url())?);
    let (_child, client) = fixture::start(process).await?;
    client.notify("before", "ann").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        database.set(fault);
        let answer = client.try_notify("during", "ann", "websocket").await?;
        ensure!(!header(&answer, "retry-after").is_empty(), "no Retry-After");
        problem(answer, 503).await?;
        problem(client.target.get("readyz").await?, 503).await?;
        ensure!(client.target.get("healthz").await?.status() == 200);
        database.heal();
        redis.set(fault);
        let ticket = client.target.ask(Method::POST, "users/ann/stream-tickets").await?;
        problem(ticket, 503).await?;
        redis.heal();
        eventually("both are back", async || {
            let ticket = client.target.ask(Method::POST, "users/ann/stream-tickets").await?;
            let ready = client.target.get("readyz").await?;
            Ok((ticket.status() == 201 && ready.status() == 200).then_some(()))
        })
        .await?;
    }
    let mut stream = client.stream("ann", 0).await?;
    ensure!(stream.soon().await?.job_id == "before");
    client.notify("after", "ann").await?;
    while stream.soon().await?.job_id != "after" {}
    Ok(())
}

async fn a_redis_that_became_a_replica_is_left() -> Outcome {
    // Of its own: nobody else's Redis may become a replica.
    let server = OwnServer::start(Service::Redis).await?;
    let url = server.url()?;
    let mut redis = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    let proxy = Proxy::to_url(&url).await?;
    let fixture = Fixture::fresh(QUICK).await?;
    let process = fixture.serve().args(&["--role", "api"]).env("REDIS_URL", proxy.url(&url)?);
    let (_child, client) = fixture::start(process).await?;
    let ticket = async || client.target.ask(Method::POST, "users/ann/stream-tickets").await;
    let gets_one = async || {
        eventually("a ticket", async || Ok((ticket().await?.status() == 201).then_some(()))).await
    };
    gets_one().await?;
    eventually("the subscription is there: it connects by itself", async || {
        let mut redis = redis.clone();
        let channels: Vec<String> =
            redis::cmd("PUBSUB").arg("CHANNELS").query_async(&mut redis).await?;
        Ok((!channels.is_empty()).then_some(()))
    })
    .await?;
    let connections = proxy.connections();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut redis).await?;
    problem(ticket().await?, 503).await?;
    // The next connection may lead to another server.
    eventually("the connection to the replica is left", async || {
        ticket().await?;
        Ok((proxy.connections() > connections).then_some(()))
    })
    .await?;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await?;
    gets_one().await?;
    Ok(())
}

async fn what_a_crash_left_unpublished_is_swept_up() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    // What remains of a process that died between its record and its publish.
    let pool = fixture.database.pool().await?;
    sqlx::query(
        "insert into notifications (job_id, user_id, channel, title, body, sweep_at) \
         values ('left', 'ann', 'websocket', 't', 'b', now() - interval '1 minute')",
    )
    .execute(&pool)
    .await?;
    pool.close().await;
    client.until("left", "delivered").await?;
    Ok(())
}
