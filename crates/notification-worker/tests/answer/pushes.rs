//! What becomes of a push, whatever the provider says?

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use lab::{child::Child, harness::Outcome};
use notification_worker::{
    cases::client::Client,
    experiments::{
        fcm::{FakeFcm, Fate},
        fixture::Fixture,
    },
};
use serde_json::Value;

use crate::start;

lab::tests![
    a_push_goes_to_every_device_and_a_removed_one_gets_nothing,
    a_phone_belongs_to_whoever_logged_in_last,
    a_device_that_is_not_registered_is_dropped,
    a_push_that_is_invalid_is_dead_at_once,
    a_push_that_is_refused_for_now_is_retried_not_before_retry_after,
    a_push_that_fails_too_often_is_dead,
];

/// A process for the calls, a worker that pushes by way of this server, and a client. The fixture has to outlive them.
async fn start_with(fcm: &FakeFcm) -> anyhow::Result<(Fixture, [Child; 2], Client)> {
    let (fixture, server, client) = start(&["--role", "api"]).await?;
    let worker = fixture.worker(fcm).start().await?;
    Ok((fixture, [server, worker], client))
}

async fn a_push_goes_to_every_device_and_a_removed_one_gets_nothing() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (_fixture, _children, client) = start_with(&fcm).await?;
    for device in ["phone:1-a_B", "tablet", "lost"] {
        client.add_device("ann", device).await?;
    }
    // Twice is once; what is not there can be removed.
    client.add_device("ann", "tablet").await?;
    for _ in 0..2 {
        client.remove_device("ann", "lost").await?;
    }
    client.push("one", "ann").await?;
    client.until("one", "delivered").await?;
    let mut devices: Vec<_> = fcm.sent().into_iter().map(|sent| sent.device).collect();
    devices.sort();
    ensure!(devices == ["phone:1-a_B", "tablet"], "{devices:?}");
    ensure!(fcm.sent().iter().all(|sent| sent.job_id == "one" && sent.number >= 1));
    let (tokens, forged) = fcm.tokens();
    ensure!((tokens, forged) == (1, 0), "{tokens} tokens, {forged} of them refused");
    client.push("nobody", "bob").await?;
    let progress = client.until("nobody", "dead").await?;
    ensure!(progress["last_error"] == "the user has no device", "{progress}");
    Ok(())
}

async fn a_phone_belongs_to_whoever_logged_in_last() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (_fixture, _children, client) = start_with(&fcm).await?;
    client.add_device("ann", "phone").await?;
    client.add_device("bob", "phone").await?;
    client.push("for-ann", "ann").await?;
    let progress = client.until("for-ann", "dead").await?;
    ensure!(progress["last_error"] == "the user has no device", "{progress}");
    // Ann logs out late, which must not take the phone from Bob.
    client.remove_device("ann", "phone").await?;
    client.push("for-bob", "bob").await?;
    client.until("for-bob", "delivered").await?;
    ensure!(fcm.sent().iter().all(|sent| sent.job_id == "for-bob"), "{:?}", fcm.sent());
    Ok(())
}

async fn a_device_that_is_not_registered_is_dropped() -> Outcome {
    let fcm = FakeFcm::start(|sent| match sent.device.as_str() {
        "gone" => Fate::refused(404, "UNREGISTERED", None),
        _ => Fate::TAKEN,
    })
    .await?;
    let (_fixture, _children, client) = start_with(&fcm).await?;
    client.add_device("ann", "gone").await?;
    client.add_device("ann", "here").await?;
    for job in ["one", "two"] {
        client.push(job, "ann").await?;
        client.until(job, "delivered").await?;
    }
    let to = |device: &str| fcm.sent().iter().filter(|sent| sent.device == device).count();
    ensure!((to("gone"), to("here")) == (1, 2), "{:?}", fcm.sent());
    Ok(())
}

async fn a_push_that_is_invalid_is_dead_at_once() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::refused(400, "INVALID_ARGUMENT", None)).await?;
    let (fixture, _children, client) = start_with(&fcm).await?;
    client.add_device("ann", "phone").await?;
    client.push("bad", "ann").await?;
    let progress = client.until("bad", "dead").await?;
    ensure!(progress["attempts"] == 1, "{progress}");
    let error = progress["last_error"].as_str().context("no error")?;
    ensure!(error.contains("INVALID_ARGUMENT"), "{error}");
    let payload: Value = serde_json::from_slice(&fixture.buried().await?)?;
    ensure!(payload["job_id"] == "bad", "{payload}");
    Ok(())
}

async fn a_push_that_is_refused_for_now_is_retried_not_before_retry_after() -> Outcome {
    for (status, code, after) in
        [(429, "QUOTA_EXCEEDED", Some(1)), (503, "UNAVAILABLE", Some(1)), (500, "INTERNAL", None)]
    {
        let times = AtomicU32::new(0);
        let fcm = FakeFcm::start(move |_| match times.fetch_add(1, Ordering::Relaxed) {
            0 => Fate::refused(status, code, after),
            _ => Fate::TAKEN,
        })
        .await?;
        let (_fixture, _children, client) = start_with(&fcm).await?;
        client.add_device("ann", "phone").await?;
        client.push("one", "ann").await?;
        let progress = client.until("one", "delivered").await?;
        ensure!(progress["attempts"] == 2, "{code}: {progress}");
        ensure!(progress["last_error"].as_str().is_some_and(|it| it.contains(code)), "{progress}");
        let sent = fcm.sent();
        let waited = (sent[1].at - sent[0].at).as_secs_f64();
        ensure!(waited >= after.unwrap_or(0) as f64 - 0.03, "{code}: only {waited} s");
    }
    Ok(())
}

async fn a_push_that_fails_too_often_is_dead() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::refused(503, "UNAVAILABLE", None)).await?;
    let (fixture, _children, client) = start_with(&fcm).await?;
    client.add_device("ann", "phone").await?;
    client.push("one", "ann").await?;
    let progress = client.until("one", "dead").await?;
    ensure!(progress["attempts"] == 4, "{progress}");
    let error = progress["last_error"].as_str().context("no error")?;
    ensure!(error.contains("gave up after 4 failures: 503"), "{error}");
    let payload: Value = serde_json::from_slice(&fixture.buried().await?)?;
    ensure!(payload["job_id"] == "one", "{payload}");
    Ok(())
}
