//! What may each process do, and how does it come and go?

use std::time::Duration;

use anyhow::{Context, ensure};
use conform::http::{header, lives_and_is_ready, not_found, problem};
use lab::harness::Outcome;
use notification_worker::experiments::fixture::{Fixture, QUICK};
use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::start;

lab::tests![
    the_key_guards_everything_but_the_stream,
    without_a_key_nothing_but_loopback_is_listened_on,
    a_clean_stop_loses_nothing,
    a_worker_says_that_it_lives_and_is_ready_and_nothing_else,
];

async fn the_key_guards_everything_but_the_stream() -> Outcome {
    let (_fixture, _child, client) = start(&["--api-key", "geheim"]).await?;
    let wrong = [None, Some("Bearer "), Some("Bearer wrong"), Some("Basic geheim"), Some("geheim")];
    for (method, path) in [
        (Method::POST, "notifications"),
        (Method::GET, "notifications/one"),
        (Method::POST, "users/ann/stream-tickets"),
        (Method::PUT, "users/ann/devices/phone"),
        (Method::DELETE, "users/ann/devices/phone"),
        (Method::GET, "readyz"),
        (Method::GET, "no/such/path"),
    ] {
        for value in wrong {
            let mut request = client.target.request(method.clone(), path);
            if let Some(value) = value {
                request = request.header("authorization", value);
            }
            let response = client.target.send(request).await?;
            ensure!(header(&response, "www-authenticate") == "Bearer", "{path}");
            problem(response, 401).await.with_context(|| format!("{method} {path} {value:?}"))?;
        }
        let twice = client.target.request(method.clone(), path);
        let twice = twice.header("authorization", "Bearer geheim");
        let twice = twice.header("authorization", "Bearer geheim");
        problem(client.target.send(twice).await?, 401).await.context("two headers")?;
        let odd = HeaderValue::from_bytes(b"Bearer \xff\xfe")?;
        let request = client.target.request(method, path).header("authorization", odd);
        problem(client.target.send(request).await?, 401).await?;
    }
    let ask = |method, path: &str| {
        client.target.request(method, path).header("authorization", "bearer   geheim")
    };
    let ticket = ask(Method::POST, "users/ann/stream-tickets").send().await?;
    ensure!(ticket.status() == 201);
    let ticket: Value = ticket.json().await?;
    let query = format!("ticket={}", ticket["ticket"].as_str().context("no ticket")?);
    let mut stream = client.stream_with("ann", &query).await?;
    let body = json!({ "user_id": "ann", "channel": "websocket", "title": "t", "body": "b" });
    ensure!(ask(Method::POST, "notifications").json(&body).send().await?.status() == 202);
    ensure!(stream.soon().await?.title == "t");
    Ok(())
}

async fn without_a_key_nothing_but_loopback_is_listened_on() -> Outcome {
    let fixture = Fixture::fresh(QUICK).await?;
    let error =
        fixture.serve().args(&["--host", "0.0.0.0"]).start().await.err().context("it listens")?;
    ensure!(error.to_string().contains("--api-key"), "{error}");
    fixture.serve().args(&["--host", "0.0.0.0", "--api-key", "geheim"]).start().await?;
    Ok(())
}

async fn a_clean_stop_loses_nothing() -> Outcome {
    let (_fixture, mut child, client) = start(&[]).await?;
    let mut stream = client.stream("ann", 0).await?;
    for n in 0..50 {
        client.notify(&format!("job-{n}"), "ann").await?;
    }
    let begun = Instant::now();
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    ensure!(begun.elapsed() < Duration::from_secs(9), "it took {:?}", begun.elapsed());
    let mut last = 0;
    while let Some(frame) = stream.next().await? {
        ensure!(frame.seq == last + 1, "{frame:?} after {last}");
        last = frame.seq;
    }
    child.restart().await?;
    let mut stream = client.stream("ann", last).await?;
    for seq in last + 1..=50 {
        ensure!(stream.soon().await?.seq == seq);
    }
    stream.nothing_more().await
}

async fn a_worker_says_that_it_lives_and_is_ready_and_nothing_else() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    let (_worker, worker) = fixture.start(&["--role", "worker"]).await?;
    for process in [&client, &worker] {
        lives_and_is_ready(&process.target).await?;
        not_found(&process.target, &["none"]).await?;
    }
    not_found(&worker.target, &["notifications/one"]).await
}
