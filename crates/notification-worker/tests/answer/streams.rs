//! What does a stream bring, and when does it end?

use anyhow::{Context, ensure};
use conform::http::problem;
use futures_util::StreamExt;
use lab::harness::{Outcome, eventually};
use notification_worker::cases::PATIENCE;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::start;

lab::tests![
    a_stream_on_another_process_gets_it_too,
    a_ticket_is_not_good_for_long,
    a_client_is_pinged_and_dropped_if_it_never_answers,
    beyond_the_quiet_limit_notifications_collapse_into_one,
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
    let (fixture, _child, client) = start(&["--ticket-seconds", "1"]).await?;
    let old = format!("ticket={}", client.ticket("ann").await?);
    let keys = format!("{}ticket:*", fixture.keys.prefix());
    let redis = fixture.keys.connection().await?;
    eventually("the ticket expires", async || {
        let left: Vec<String> =
            redis::cmd("KEYS").arg(&keys).query_async(&mut redis.clone()).await?;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    problem(client.refused("ann", &old).await?, 401).await?;
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

async fn beyond_the_quiet_limit_notifications_collapse_into_one() -> Outcome {
    let (fixture, _child, client) = start(&["--quiet-limit", "3"]).await?;
    // Not within the last seconds of a minute, which would make two of it.
    eventually("a minute with time left", async || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs() % 60;
        Ok((now < 48).then_some(()))
    })
    .await?;
    let mut stream = client.stream("ann", 0).await?;
    for n in 1..=10 {
        client.notify(&format!("job-{n}"), "ann").await?;
    }
    for n in 1..=10 {
        client.until(&format!("job-{n}"), "delivered").await?;
    }
    for n in 1..=3 {
        ensure!(stream.soon().await?.job_id == format!("job-{n}"));
    }
    stream.nothing_more().await?;
    // What waits for the minute to be over.
    let pool = fixture.database.pool().await?;
    let (title, collapsed): (String, i32) =
        sqlx::query_as("select title, collapsed from notifications where collapsed is not null")
            .fetch_one(&pool)
            .await?;
    ensure!((title.as_str(), collapsed) == ("7 more notifications", 7), "{title}");
    // The minute is over when the database says so.
    sqlx::query("update notifications set due_at = now() where collapsed is not null")
        .execute(&pool)
        .await?;
    pool.close().await;
    ensure!(stream.soon().await?.title == "7 more notifications");
    stream.nothing_more().await
}
