//! What does a stream bring, and when does it end?

use std::time::Duration;

use anyhow::{Context, ensure};
use conform::http::problem;
use futures_util::{FutureExt, SinkExt, StreamExt};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
};
use notification_worker::{
    cases::PATIENCE,
    experiments::fixture::{self, Fixture, QUICK},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::start;

lab::tests![
    a_stream_on_another_process_gets_it_too,
    a_ticket_is_not_good_for_long,
    a_client_is_pinged_and_dropped_if_it_never_answers,
    a_client_that_pings_and_reads_nothing_costs_no_memory_and_is_dropped,
    a_client_that_pings_and_answers_no_ping_is_dropped,
    a_client_that_goes_on_after_the_goodbye_is_cut_off,
    a_socket_hears_although_its_subscription_is_dead,
];

async fn a_stream_on_another_process_gets_it_too() -> Outcome {
    let (fixture, _child, client) = start(&["--role", "api"]).await?;
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    let (_other, other) = fixture.start(&["--role", "api"]).await?;
    let (mut here, mut there) = (client.stream("ann", 0).await?, other.stream("ann", 0).await?);
    client.notify("one", "ann").await?;
    ensure!(here.soon().await? == there.soon().await?);
    Ok(())
}

async fn a_ticket_is_not_good_for_long() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    let ticket = client.ticket("ann").await?;
    let key = format!("{}ticket:ann:{ticket}", fixture.keys.prefix());
    let mut redis = fixture.keys.connection().await?;
    let seconds: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await?;
    ensure!((20..=30).contains(&seconds), "it has {seconds} s left");
    // Half a minute later.
    let expired: i64 = redis::cmd("PEXPIRE").arg(&key).arg(1).query_async(&mut redis).await?;
    ensure!(expired == 1);
    eventually("the ticket is refused", async || {
        let left: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut redis.clone()).await?;
        Ok((!left).then_some(()))
    })
    .await?;
    problem(client.refused("ann", &format!("ticket={ticket}")).await?, 401).await?;
    Ok(())
}

async fn a_client_is_pinged_and_dropped_if_it_never_answers() -> Outcome {
    let (_fixture, _child, client) = start(&["--ping-seconds", "1"]).await?;
    let mut stream = client.stream("ann", 0).await?;
    let first = timeout(PATIENCE, stream.socket.next()).await.context("no ping came")?;
    ensure!(matches!(first, Some(Ok(Message::Ping(_)))), "{first:?}");
    // From here on it reads nothing, so it answers nothing.
    eventually("a client that answers no ping is dropped", async || {
        Ok((client.sockets().await? == Some(0)).then_some(()))
    })
    .await?;
    stream.close().await;
    Ok(())
}

/// What the process may grow by while a client does its worst. The allocator and the tasks need some of it.
const LITTLE: u64 = 16_000_000;

async fn a_client_that_pings_and_reads_nothing_costs_no_memory_and_is_dropped() -> Outcome {
    let (_fixture, child, client) = start(&["--ping-seconds", "2"]).await?;
    let mut stream = client.stream("ann", 0).await?;
    let before = child.memory().await?;
    // A thousand pings of 125 bytes, with a mask of zeros: RFC 6455, section 5.2.
    let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    let pings = ping.repeat(1_000);
    let (begun, mut most, mut sent) = (Instant::now(), before, 0_u64);
    // Until the server has enough of it. What it answers is never read.
    while begun.elapsed() < PATIENCE {
        let sending = stream.socket.get_mut().write_all(&pings);
        if !matches!(timeout(PATIENCE, sending).await, Ok(Ok(()))) {
            break;
        }
        sent += 1_000;
        most = most.max(child.memory().await?);
    }
    let grown = most.saturating_sub(before);
    ensure!(grown < LITTLE, "after {sent} pings the process has grown by {grown} bytes");
    eventually("it is dropped", async || Ok((client.sockets().await? == Some(0)).then_some(())))
        .await
}

async fn a_client_that_pings_and_answers_no_ping_is_dropped() -> Outcome {
    let (_fixture, _child, client) = start(&["--ping-seconds", "1"]).await?;
    let mut stream = client.stream("ann", 0).await?;
    let begun = Instant::now();
    while client.sockets().await? == Some(1) {
        ensure!(begun.elapsed() < PATIENCE, "its own pings keep it alive");
        // It is heard, and reads nothing, so it answers nothing.
        let _ = stream.socket.send(Message::Ping(vec![1].into())).now_or_never();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn a_client_that_goes_on_after_the_goodbye_is_cut_off() -> Outcome {
    let (_fixture, _child, client) = start(&[]).await?;
    let mut stream = client.stream("ann", 0).await?;
    let begun = Instant::now();
    // The first one brings it a Close, which it does not read. The connection has to end all the same.
    while stream.socket.send(Message::text("and another thing")).await.is_ok() {
        ensure!(begun.elapsed() < PATIENCE, "it may talk for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Not by its first message: a client that does read has a moment to answer.
    ensure!(begun.elapsed() > Duration::from_millis(500), "after {:?}", begun.elapsed());
    Ok(())
}

async fn a_socket_hears_although_its_subscription_is_dead() -> Outcome {
    let fixture = Fixture::fresh(QUICK).await?;
    let redis = Proxy::to_url(fixture.keys.url()).await?;
    let through_proxy = redis.url(fixture.keys.url())?;
    let server = fixture.serve().args(&["--role", "api", "--ping-seconds", "1"]);
    let (_server, client) = fixture::start(server.env("REDIS_URL", through_proxy)).await?;
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    let mut stream = client.stream("ann", 0).await?;
    client.notify("before", "ann").await?;
    ensure!(stream.soon().await?.job_id == "before");
    let connections = redis.connections();
    // The other end has vanished, and nothing says so.
    redis.set(Fault::BlackHole);
    client.notify("after", "ann").await?;
    ensure!(stream.soon().await?.job_id == "after");
    eventually("the hub notices that its subscription is dead", async || {
        Ok((redis.connections() > connections).then_some(()))
    })
    .await
}
