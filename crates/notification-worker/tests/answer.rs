//! Does the notification system do what its table of calls cannot say? With options of its own, several processes, a
//! provider of pushes, a look into its servers, or a fault. What any server can be tried with is in `conform`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use conform::http::{client, header, problem};
use futures_util::StreamExt;
use lab::{
    child::Child,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run},
};
use lapin::{BasicProperties, options::BasicPublishOptions};
use notification_worker::experiments::{
    fcm::{FakeFcm, Fate},
    stand::{Api, PATIENCE, Stand, Stream},
};
use notification_worker::notification::Priority;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

fn main() -> ExitCode {
    run(notification_worker::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let stand = Stand::fresh(2, 50, 4).await?;
    let child = stand.serve(&[]).start().await?;
    Ok(Served::new(child, stand))
}

lab::tests![
    a_stream_on_another_process_gets_it_too,
    a_ticket_is_not_good_for_long,
    a_client_is_pinged_and_dropped_if_it_never_answers,
    a_push_goes_to_every_device_and_a_removed_one_gets_nothing,
    a_device_that_is_not_registered_is_dropped,
    a_push_that_is_invalid_is_dead_at_once,
    a_push_that_is_refused_for_now_is_retried_not_before_retry_after,
    a_token_that_was_revoked_is_replaced,
    a_push_that_fails_too_often_is_dead_and_can_be_queued_again,
    a_message_that_no_code_of_ours_wrote_is_buried_and_the_rest_goes_on,
    a_full_queue_is_503_and_nothing_is_kept,
    a_broker_that_is_away_is_503_and_the_same_call_works_later,
    a_database_or_a_redis_that_is_away_is_503,
    what_a_crash_left_unpublished_is_swept_up,
    high_priority_is_not_behind_the_rest,
    beyond_the_quiet_limit_notifications_collapse_into_one,
    the_key_guards_everything_but_the_stream,
    without_a_key_nothing_but_loopback_is_listened_on,
    a_worker_takes_only_its_shards,
    a_clean_stop_loses_nothing,
    a_worker_says_that_it_lives_and_is_ready_and_nothing_else,
];

/// A service of the test's own.
struct Service {
    api: Api,
    child: Child,
    stand: Stand,
}

impl Service {
    async fn start(options: &[&str]) -> anyhow::Result<Self> {
        let stand = Stand::fresh(2, 50, 4).await?;
        let child = stand.serve(options).start().await?;
        Ok(Self { api: Api::of(&child)?, child, stand })
    }

    /// With a worker that pushes by this server.
    async fn with(fcm: &FakeFcm) -> anyhow::Result<(Self, Child)> {
        let service = Self::start(&["--role", "api"]).await?;
        let worker = service.stand.worker(fcm, &[]).start().await?;
        Ok((service, worker))
    }

    fn ask(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        Ok(client()?.request(method, format!("{}/{path}", self.child.url())))
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        Ok(self.ask(method, path)?.send().await?)
    }
}

/// The status with which an upgrade is refused, and its problem document.
async fn refused(service: &Service, user: &str, query: &str) -> anyhow::Result<Response> {
    let request = service.ask(Method::GET, &format!("users/{user}/stream?{query}"))?;
    let request = request
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    Ok(request.send().await?)
}

async fn nothing_more(stream: &mut Stream) -> Outcome {
    let more = timeout(Duration::from_millis(300), stream.next()).await;
    ensure!(more.is_err(), "something more came: {more:?}");
    Ok(())
}

async fn a_stream_on_another_process_gets_it_too() -> Outcome {
    let service = Service::start(&["--role", "api"]).await?;
    let _worker = service.stand.serve(&["--role", "worker"]).start().await?;
    let other = service.stand.serve(&["--role", "api"]).start().await?;
    let other = Api::of(&other).map(|api| (api, other))?;
    let (mut here, mut there) =
        (service.api.stream("ann", 0).await?, other.0.stream("ann", 0).await?);
    service.api.notify("one", "ann", "websocket").await?;
    ensure!(here.soon().await? == there.soon().await?);
    Ok(())
}

async fn a_ticket_is_not_good_for_long() -> Outcome {
    let service = Service::start(&["--ticket-seconds", "1"]).await?;
    let old = format!("ticket={}", service.api.ticket("ann").await?);
    let keys = format!("{}ticket:*", service.stand.keys.prefix());
    let redis = service.stand.keys.connection().await?;
    eventually("the ticket expires", async || {
        let left: Vec<String> =
            redis::cmd("KEYS").arg(&keys).query_async(&mut redis.clone()).await?;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    problem(refused(&service, "ann", &old).await?, 401).await?;
    Ok(())
}

async fn a_client_is_pinged_and_dropped_if_it_never_answers() -> Outcome {
    let service = Service::start(&["--ping-seconds", "1"]).await?;
    let mut stream = service.api.stream("ann", 0).await?;
    let first = timeout(PATIENCE, stream.socket.next()).await.context("no ping came")?;
    ensure!(matches!(first, Some(Ok(Message::Ping(_)))), "{first:?}");
    // From here on it reads nothing, so it answers nothing.
    let open = service.api.sockets(0).await?;
    ensure!(open == 0, "a client that answers no ping is kept");
    stream.close().await;
    Ok(())
}

async fn a_push_goes_to_every_device_and_a_removed_one_gets_nothing() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (service, _worker) = Service::with(&fcm).await?;
    for device in ["phone:1-a_B", "tablet", "lost"] {
        service.api.device("ann", device).await?;
    }
    // Twice is once; what is not there can be removed.
    service.api.device("ann", "tablet").await?;
    for _ in 0..2 {
        let removed = service.send(Method::DELETE, "users/ann/devices/lost").await?;
        ensure!(removed.status() == 204 && removed.bytes().await?.is_empty());
    }
    service.api.notify("one", "ann", "push").await?;
    service.api.until("one", "delivered").await?;
    let mut devices: Vec<_> = fcm.sent().into_iter().map(|sent| sent.device).collect();
    devices.sort();
    ensure!(devices == ["phone:1-a_B", "tablet"], "{devices:?}");
    ensure!(fcm.sent().iter().all(|sent| sent.job_id == "one" && sent.seq == 1));
    let (tokens, forged) = fcm.tokens();
    ensure!((tokens, forged) == (1, 0), "{tokens} tokens, {forged} of them refused");
    service.api.notify("nobody", "bob", "push").await?;
    let progress = service.api.until("nobody", "dead").await?;
    ensure!(progress["last_error"] == "the user has no device", "{progress}");
    Ok(())
}

async fn a_device_that_is_not_registered_is_dropped() -> Outcome {
    let fcm = FakeFcm::start(|sent| match sent.device.as_str() {
        "gone" => Fate::refused(404, "UNREGISTERED", None),
        _ => Fate::TAKEN,
    })
    .await?;
    let (service, _worker) = Service::with(&fcm).await?;
    service.api.device("ann", "gone").await?;
    service.api.device("ann", "here").await?;
    for job in ["one", "two"] {
        service.api.notify(job, "ann", "push").await?;
        service.api.until(job, "delivered").await?;
    }
    let to = |device: &str| fcm.sent().iter().filter(|sent| sent.device == device).count();
    ensure!((to("gone"), to("here")) == (1, 2), "{:?}", fcm.sent());
    Ok(())
}

async fn a_push_that_is_invalid_is_dead_at_once() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::refused(400, "INVALID_ARGUMENT", None)).await?;
    let (service, _worker) = Service::with(&fcm).await?;
    service.api.device("ann", "phone").await?;
    service.api.notify("bad", "ann", "push").await?;
    let progress = service.api.until("bad", "dead").await?;
    ensure!(progress["attempts"] == 1, "{progress}");
    let error = progress["last_error"].as_str().context("no error")?;
    ensure!(error.contains("INVALID_ARGUMENT"), "{error}");
    let (payload, reasons) = service.stand.buried().await?;
    let payload: Value = serde_json::from_slice(&payload)?;
    ensure!(payload["job_id"] == "bad" && reasons.contains("INVALID_ARGUMENT"), "{reasons}");
    Ok(())
}

async fn a_push_that_is_refused_for_now_is_retried_not_before_retry_after() -> Outcome {
    for (status, code, after) in
        [(429, "QUOTA_EXCEEDED", Some(1)), (503, "UNAVAILABLE", Some(1)), (500, "INTERNAL", None)]
    {
        let times = std::sync::atomic::AtomicU32::new(0);
        let fcm = FakeFcm::start(move |_| {
            match times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Fate::refused(status, code, after),
                _ => Fate::TAKEN,
            }
        })
        .await?;
        let (service, _worker) = Service::with(&fcm).await?;
        service.api.device("ann", "phone").await?;
        service.api.notify("one", "ann", "push").await?;
        let progress = service.api.until("one", "delivered").await?;
        ensure!(progress["attempts"] == 2, "{code}: {progress}");
        ensure!(progress["last_error"].as_str().is_some_and(|it| it.contains(code)), "{progress}");
        let sent = fcm.sent();
        let waited = (sent[1].at - sent[0].at).as_secs_f64();
        ensure!(waited >= after.unwrap_or(0) as f64 - 0.03, "{code}: only {waited} s");
    }
    Ok(())
}

async fn a_token_that_was_revoked_is_replaced() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (service, _worker) = Service::with(&fcm).await?;
    service.api.device("ann", "phone").await?;
    service.api.notify("one", "ann", "push").await?;
    service.api.until("one", "delivered").await?;
    fcm.revoke();
    service.api.notify("two", "ann", "push").await?;
    let progress = service.api.until("two", "delivered").await?;
    ensure!(progress["attempts"] == 2, "{progress}");
    Ok(())
}

async fn a_push_that_fails_too_often_is_dead_and_can_be_queued_again() -> Outcome {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_well = well.clone();
    let fcm = FakeFcm::start(move |_| {
        if is_well.load(std::sync::atomic::Ordering::Relaxed) {
            Fate::TAKEN
        } else {
            Fate::refused(503, "UNAVAILABLE", None)
        }
    })
    .await?;
    let (service, _worker) = Service::with(&fcm).await?;
    service.api.device("ann", "phone").await?;
    service.api.notify("one", "ann", "push").await?;
    let progress = service.api.until("one", "dead").await?;
    ensure!(progress["attempts"] == 4, "{progress}");
    let (_, reasons) = service.stand.buried().await?;
    ensure!(reasons.lines().count() == 4 && reasons.contains("gave up after 4"), "{reasons}");
    well.store(true, std::sync::atomic::Ordering::Relaxed);
    let again = service.send(Method::POST, "notifications/one/requeue").await?;
    ensure!(again.status() == 202, "{}", again.status());
    ensure!(again.json::<Value>().await? == json!({ "job_id": "one" }));
    let progress = service.api.until("one", "delivered").await?;
    ensure!(progress["attempts"] == 5, "{progress}");
    Ok(())
}

async fn a_message_that_no_code_of_ours_wrote_is_buried_and_the_rest_goes_on() -> Outcome {
    let service = Service::start(&["--quiet-limit", "1000"]).await?;
    let connection = service.stand.queues.connection().await?;
    let channel = connection.create_channel().await?;
    let foreign: [&[u8]; 8] = [
        b"",
        b"\xff\xfe",
        b"{",
        br#"{"job_id":"nobody-knows","user_id":"ann","generation":0}"#,
        // What PostgreSQL cannot be asked for.
        br#"{"job_id":"a\u0000b","user_id":"ann","generation":0}"#,
        br#"{"job_id":"a","user_id":"nobody","generation":0}"#,
        br#"{"job_id":7}"#,
        &[b'['; 5_000],
    ];
    for payload in foreign {
        for shard in 0..2 {
            let key = service.stand.topology.key(None, shard, Priority::Normal);
            let exchange = service.stand.topology.exchange();
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            channel
                .basic_publish(exchange.into(), key.into(), options, payload, properties)
                .await?;
        }
    }
    let mut buried = Vec::new();
    for _ in 0..foreign.len() * 2 {
        let (payload, reasons) = service.stand.buried().await?;
        ensure!(!reasons.is_empty());
        buried.push(payload);
    }
    for payload in foreign {
        ensure!(buried.iter().filter(|it| it.as_slice() == payload).count() == 2);
    }
    for user in 0..6 {
        service.api.notify(&format!("job-{user}"), &format!("user-{user}"), "websocket").await?;
        service.api.until(&format!("job-{user}"), "delivered").await?;
    }
    Ok(())
}

async fn a_full_queue_is_503_and_nothing_is_kept() -> Outcome {
    // Nobody works, so the queues fill up.
    let service = Service::start(&["--role", "api", "--max-queue", "5"]).await?;
    let (mut accepted, mut refused) = (Vec::new(), None);
    for n in 0..100 {
        let job = format!("job-{n}");
        let answer = service.api.try_notify(&job, "ann", "websocket").await?;
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
    problem(service.send(Method::GET, &format!("notifications/{refused}")).await?, 404).await?;
    let _worker = service.stand.serve(&["--role", "worker", "--max-queue", "5"]).start().await?;
    for job in accepted {
        service.api.until(&job, "delivered").await?;
    }
    service.api.notify(&refused, "ann", "websocket").await?;
    service.api.until(&refused, "delivered").await?;
    Ok(())
}

async fn a_broker_that_is_away_is_503_and_the_same_call_works_later() -> Outcome {
    let stand = Stand::fresh(2, 50, 4).await?;
    let proxy = Proxy::to_url(stand.queues.url()).await?;
    let child = stand.serve(&[]).env("AMQP_URL", proxy.url(stand.queues.url())?).start().await?;
    let service = Service { api: Api::of(&child)?, child, stand };
    service.api.notify("before", "ann", "websocket").await?;
    service.api.until("before", "delivered").await?;
    // A cable that is pulled: nothing says that the broker has gone.
    for fault in [Fault::BlackHole, Fault::Cut] {
        proxy.set(fault);
        let begun = Instant::now();
        let answer = service.api.try_notify("during", "ann", "websocket").await?;
        ensure!(header(&answer, "retry-after").parse::<u64>().is_ok(), "no Retry-After");
        problem(answer, 503).await.with_context(|| format!("{fault:?}"))?;
        ensure!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    }
    proxy.heal();
    let answer = eventually("the broker is back", async || {
        let answer = service.api.try_notify("during", "ann", "websocket").await?;
        Ok((answer.status() != 503).then_some(answer.status()))
    })
    .await?;
    ensure!(answer.is_success(), "{answer}");
    service.api.until("during", "delivered").await?;
    let mut stream = service.api.stream("ann", 0).await?;
    ensure!(stream.soon().await?.job_id == "before" && stream.soon().await?.job_id == "during");
    nothing_more(&mut stream).await
}

async fn a_database_or_a_redis_that_is_away_is_503() -> Outcome {
    let stand = Stand::fresh(2, 50, 4).await?;
    let database = Proxy::to_url(stand.database.url()).await?;
    let redis = Proxy::to_url(stand.keys.url()).await?;
    let child = stand
        .serve(&[])
        .env("DATABASE_URL", database.url(stand.database.url())?)
        .env("REDIS_URL", redis.url(stand.keys.url())?)
        .start()
        .await?;
    let service = Service { api: Api::of(&child)?, child, stand };
    service.api.notify("before", "ann", "websocket").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        database.set(fault);
        let answer = service.api.try_notify("during", "ann", "websocket").await?;
        ensure!(!header(&answer, "retry-after").is_empty(), "no Retry-After");
        problem(answer, 503).await?;
        problem(service.send(Method::GET, "readyz").await?, 503).await?;
        ensure!(service.send(Method::GET, "healthz").await?.status() == 200);
        database.heal();
        redis.set(fault);
        let ticket = service.send(Method::POST, "users/ann/stream-tickets").await?;
        problem(ticket, 503).await?;
        redis.heal();
        eventually("both are back", async || {
            let ticket = service.send(Method::POST, "users/ann/stream-tickets").await?;
            let ready = service.send(Method::GET, "readyz").await?;
            Ok((ticket.status() == 201 && ready.status() == 200).then_some(()))
        })
        .await?;
    }
    let mut stream = service.api.stream("ann", 0).await?;
    ensure!(stream.soon().await?.job_id == "before");
    service.api.notify("after", "ann", "websocket").await?;
    while stream.soon().await?.job_id != "after" {}
    Ok(())
}

async fn what_a_crash_left_unpublished_is_swept_up() -> Outcome {
    let service = Service::start(&[]).await?;
    // What remains of a process that died between its record and its publish.
    let pool = service.stand.database.pool().await?;
    sqlx::query(
        "insert into notifications (job_id, user_id, seq, channel, priority, title, body, created_at) \
         values ('left', 'ann', 1, 'websocket', 'normal', 't', 'b', now() - interval '1 minute')",
    )
    .execute(&pool)
    .await?;
    sqlx::query("insert into users (user_id, last_seq) values ('ann', 1)").execute(&pool).await?;
    pool.close().await;
    service.api.until("left", "delivered").await?;
    Ok(())
}

async fn high_priority_is_not_behind_the_rest() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::slow(Duration::from_millis(50))).await?;
    let service = Service::start(&["--role", "api"]).await?;
    for user in ["ann", "bob"] {
        service.api.device(user, user).await?;
    }
    for n in 0..60 {
        service.api.notify(&format!("news-{n}"), "ann", "push").await?;
    }
    let reset = json!({
        "job_id": "reset", "user_id": "ann", "channel": "push", "priority": "high",
        "title": "Your password", "body": "…",
    });
    ensure!(service.api.post("notifications", &reset).await?.status() == 202);
    let _worker = service.stand.worker(&fcm, &["--concurrency", "1"]).start().await?;
    let sent = fcm.until("the reset", PATIENCE, |sent| sent.iter().any(|it| it.job_id == "reset"));
    let sent = sent.await?;
    ensure!(sent.len() < 30, "{} were before it", sent.len() - 1);
    ensure!(sent.iter().all(|it| (it.job_id == "reset") == (it.priority == "HIGH")));
    Ok(())
}

async fn beyond_the_quiet_limit_notifications_collapse_into_one() -> Outcome {
    let service = Service::start(&["--quiet-limit", "3"]).await?;
    // Not within the last seconds of a minute, which would make two of it.
    eventually("a minute with time left", async || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs() % 60;
        Ok((now < 48).then_some(()))
    })
    .await?;
    let mut stream = service.api.stream("ann", 0).await?;
    for n in 1..=10 {
        service.api.notify(&format!("job-{n}"), "ann", "websocket").await?;
    }
    for n in 1..=10 {
        service.api.until(&format!("job-{n}"), "delivered").await?;
    }
    for n in 1..=3 {
        ensure!(stream.soon().await?.job_id == format!("job-{n}"));
    }
    nothing_more(&mut stream).await?;
    // What waits for the minute to be over.
    let pool = service.stand.database.pool().await?;
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
    nothing_more(&mut stream).await
}

async fn the_key_guards_everything_but_the_stream() -> Outcome {
    let service = Service::start(&["--api-key", "geheim"]).await?;
    let wrong = [None, Some("Bearer "), Some("Bearer wrong"), Some("Basic geheim"), Some("geheim")];
    for (method, path) in [
        (Method::POST, "notifications"),
        (Method::GET, "notifications/one"),
        (Method::POST, "notifications/one/requeue"),
        (Method::POST, "users/ann/stream-tickets"),
        (Method::PUT, "users/ann/devices/phone"),
        (Method::DELETE, "users/ann/devices/phone"),
        (Method::GET, "readyz"),
        (Method::GET, "no/such/path"),
    ] {
        for value in wrong {
            let mut request = service.ask(method.clone(), path)?;
            if let Some(value) = value {
                request = request.header("authorization", value);
            }
            let response = request.send().await?;
            ensure!(header(&response, "www-authenticate") == "Bearer", "{path}");
            problem(response, 401).await.with_context(|| format!("{method} {path} {value:?}"))?;
        }
        let odd = reqwest::header::HeaderValue::from_bytes(b"Bearer \xff\xfe")?;
        problem(service.ask(method, path)?.header("authorization", odd).send().await?, 401).await?;
    }
    let ask = |method, path: &str| {
        anyhow::Ok(service.ask(method, path)?.header("authorization", "Bearer geheim"))
    };
    let ticket = ask(Method::POST, "users/ann/stream-tickets")?.send().await?;
    ensure!(ticket.status() == 201);
    let ticket: Value = ticket.json().await?;
    let query = format!("ticket={}", ticket["ticket"].as_str().context("no ticket")?);
    let mut stream = service.api.stream_with("ann", &query).await?;
    let body = json!({ "user_id": "ann", "channel": "websocket", "title": "t", "body": "b" });
    ensure!(ask(Method::POST, "notifications")?.json(&body).send().await?.status() == 202);
    ensure!(stream.soon().await?.title == "t");
    Ok(())
}

async fn without_a_key_nothing_but_loopback_is_listened_on() -> Outcome {
    let stand = Stand::fresh(1, 50, 4).await?;
    let error = stand.serve(&["--host", "0.0.0.0"]).start().await.err().context("it listens")?;
    ensure!(error.to_string().contains("--api-key"), "{error}");
    stand.serve(&["--host", "0.0.0.0", "--api-key", "geheim"]).start().await?;
    Ok(())
}

async fn a_worker_takes_only_its_shards() -> Outcome {
    let service = Service::start(&["--role", "api"]).await?;
    let ring = notification_worker::shard::Ring::new(2);
    let on = |shard| {
        let names = (0..).map(|n| format!("user-{n}"));
        names.into_iter().find(|name| {
            notification_worker::ids::UserId::parse(name.as_str())
                .is_ok_and(|user| ring.shard_of(&user) == shard)
        })
    };
    let users = [on(0).context("none")?, on(1).context("none")?];
    for user in &users {
        service.api.notify(&format!("job-{user}"), user, "websocket").await?;
    }
    let _zero = service.stand.serve(&["--role", "worker", "--shards", "0"]).start().await?;
    service.api.until(&format!("job-{}", users[0]), "delivered").await?;
    let other = service.api.progress(&format!("job-{}", users[1])).await?;
    ensure!(other["status"] == "queued" && other["attempts"] == 0, "{other}");
    let _one = service.stand.serve(&["--role", "worker", "--shards", "1-1"]).start().await?;
    service.api.until(&format!("job-{}", users[1]), "delivered").await?;
    Ok(())
}

async fn a_clean_stop_loses_nothing() -> Outcome {
    let mut service = Service::start(&[]).await?;
    let mut stream = service.api.stream("ann", 0).await?;
    for n in 0..50 {
        service.api.notify(&format!("job-{n}"), "ann", "websocket").await?;
    }
    let begun = Instant::now();
    let status = service.child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    ensure!(begun.elapsed() < Duration::from_secs(9), "it took {:?}", begun.elapsed());
    let mut last = 0;
    while let Some(frame) = stream.next().await? {
        ensure!(frame.seq == last + 1, "{frame:?} after {last}");
        last = frame.seq;
    }
    service.child.restart().await?;
    let mut stream = service.api.stream("ann", last).await?;
    for seq in last + 1..=50 {
        ensure!(stream.soon().await?.seq == seq);
    }
    nothing_more(&mut stream).await
}

async fn a_worker_says_that_it_lives_and_is_ready_and_nothing_else() -> Outcome {
    let service = Service::start(&[]).await?;
    let worker = service.stand.serve(&["--role", "worker"]).start().await?;
    for url in [service.child.url(), worker.url()] {
        ensure!(reqwest::get(format!("{url}/healthz")).await?.status() == 200);
        ensure!(reqwest::get(format!("{url}/readyz")).await?.status() == 200);
        problem(reqwest::get(format!("{url}/none")).await?, 404).await?;
    }
    problem(reqwest::get(format!("{}/notifications/one", worker.url())).await?, 404).await?;
    Ok(())
}
