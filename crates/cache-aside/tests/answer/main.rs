//! Does the cache-aside answer do what its table of calls says? Over HTTP, as its clients would.

mod faults;
mod tls;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::ensure;
use cache_aside::{
    cases::client::{Client, is_hit, name},
    experiments::fixture::{CALM, Fixture, believing},
};
use conform::http::{header, problem};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, Trial, eventually, run},
};
use redis::AsyncCommands;
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(cache_aside::answer(), || Box::pin(serve_for_cases()), all())
}

fn all() -> Vec<Trial> {
    [tests(), faults::tests(), tls::tests()].into_iter().flatten().collect()
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().args(&CALM).start().await?, fixture))
}

lab::tests![
    a_change_is_seen_by_the_next_read_in_every_process,
    a_deleted_user_is_found_in_no_process,
    a_value_in_redis_that_is_not_ours_is_replaced,
    a_value_in_another_format_is_not_read,
    a_user_lies_under_its_key_for_at_most_an_hour,
    an_expired_user_is_loaded_again,
    a_loader_that_died_does_not_hold_up_others_for_long,
    without_redis_it_answers_and_hits_return_by_themselves,
    a_change_that_cannot_reach_redis_is_seen_where_redis_is_near,
    a_near_cache_hears_of_changes_and_is_believed_no_longer_than_redis,
    without_the_database_nothing_is_believed_for_long,
    a_clean_stop_ends_well,
];

async fn a_change_is_seen_by_the_next_read_in_every_process() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_one, client) = fixture.start(&[]).await?;
    let (_two, other) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    for round in 0..30 {
        // Hot in both.
        for client in [&client, &other, &client] {
            client.read(id).await?;
        }
        let new = format!("Ada {round}");
        let changed =
            client.change(id, &json!({ "name": new, "email": client.email("Ada") })).await?;
        ensure!(changed.status() == 200);
        let changed: Value = changed.json().await?;
        ensure!(changed["name"] == new && changed["id"] == id, "{changed}");
        ensure!(changed["updated_at"].as_str() > changed["created_at"].as_str(), "{changed}");
        let seen = (name(other.read(id).await?).await?, name(client.read(id).await?).await?);
        ensure!(seen == (new.clone(), new), "{seen:?}");
    }
    Ok(())
}

async fn a_deleted_user_is_found_in_no_process() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_one, client) = fixture.start(&[]).await?;
    let (_two, other) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    ensure!(other.read(id).await?.status() == 200 && client.read(id).await?.status() == 200);
    let deleted = client.delete(id).await?;
    ensure!(deleted.status() == 204 && deleted.bytes().await?.is_empty());
    for client in [&other, &client] {
        problem(client.read(id).await?, 404).await?;
    }
    problem(client.delete(id).await?, 404).await?;
    // The address is free again, and the id is not given out again.
    ensure!(client.sign_up("Ada").await? > id);
    Ok(())
}

async fn a_value_in_redis_that_is_not_ours_is_replaced() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    let key = fixture.key(id).await?;
    let mut redis = fixture.redis().await?;
    let user = format!(r#"{{"id":{id},"name":"Eve","email":"eve@example.org"}}"#);
    for rubbish in [
        b"".to_vec(),
        b"nonsense".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        user.clone().into_bytes(),
        format!("user/1 x x 1 1\n{user}").into_bytes(),
        format!("0123456789abcdef 1 user 9999999999999 1 1\n{user}\n").into_bytes(),
        b"lease/1 nobody nothing".to_vec(),
        vec![b'x'; 1_000_000],
    ] {
        let () = redis.set(&key, &rubbish).await?;
        is_replaced(&client, id).await?;
    }
    let () = redis.del(&key).await?;
    let () = redis.lpush(&key, "a list").await?;
    is_replaced(&client, id).await?;
    let () = redis.del(&key).await?;
    let () = redis.hset(&key, "a", "hash").await?;
    let many = client.read_many(&[id]).await?;
    ensure!(many.json::<Value>().await?["users"][0]["name"] == "Ada");
    Ok(())
}

async fn is_replaced(client: &Client, id: i64) -> Outcome {
    let read = client.read(id).await?;
    ensure!(header(&read, "cache-status") == "redis; fwd=miss; stored", "{read:?}");
    ensure!(name(read).await? == "Ada");
    ensure!(is_hit(&client.read(id).await?));
    Ok(())
}

async fn a_value_in_another_format_is_not_read() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    let key = fixture.key(id).await?;
    let mut redis = fixture.redis().await?;
    for other in ["1", "3", ""] {
        client.hit(id).await?;
        let ours: String = redis.get(&key).await?;
        let mut words: Vec<_> = ours.split(' ').collect();
        ensure!(words[1] == "2", "{ours}");
        words[1] = other;
        let () = redis.set(&key, words.join(" ")).await?;
        is_replaced(&client, id).await?;
    }
    Ok(())
}

async fn a_user_lies_under_its_key_for_at_most_an_hour() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let mut redis = fixture.redis().await?;
    let keys = fixture.keys_of_users().await?;
    let mut lives = std::collections::HashSet::new();
    for n in 0..20 {
        let id = client.sign_up(&format!("Ada{n}")).await?;
        client.read(id).await?;
        let life: i64 = redis.pttl(format!("{keys}{id}")).await?;
        ensure!((3_200_000..=3_600_000).contains(&life), "{life} ms");
        lives.insert(life / 1_000);
    }
    ensure!(lives.len() > 5, "lives should be spread: {lives:?}");
    Ok(())
}

async fn an_expired_user_is_loaded_again() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&["--ttl", "0.5", "--beta", "0"]).await?;
    let id = client.sign_up("Ada").await?;
    client.read(id).await?;
    eventually("it expires", async || {
        let read = client.read(id).await?;
        Ok((header(&read, "cache-status") == "redis; fwd=miss; stored").then_some(()))
    })
    .await
}

async fn a_loader_that_died_does_not_hold_up_others_for_long() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let doomed = fixture
        .serve()
        .env("DATABASE_URL", proxy.url(fixture.database.url())?)
        .args(&["--database-timeout", "30"]);
    let mut doomed = doomed.start().await?;
    believing(&doomed).await?;
    proxy.set(Fault::BlackHole);
    let key = fixture.key(id).await?;
    let stuck = Client::at(doomed.url())?;
    let stuck = tokio::spawn(async move { stuck.read(id).await });
    let redis = fixture.redis().await?;
    eventually("it has the lease", async || {
        let held: Option<String> = redis.clone().get(&key).await?;
        Ok(held.filter(|held| held.ends_with(" lease")))
    })
    .await?;
    doomed.kill().await?;
    ensure!(stuck.await?.is_err());
    // The lease would last a minute. Nobody waits for its end longer than a command to Redis may take.
    ensure!(name(client.read(id).await?).await? == "Ada");
    Ok(())
}

async fn without_redis_it_answers_and_hits_return_by_themselves() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    proxy.set(Fault::Cut);
    let serve = fixture.serve_through(&proxy.url(&fixture.redis_url)?);
    let child = serve.args(&["--database-timeout", "10"]).start().await?;
    let client = Client::at(child.url())?;
    let id = client.sign_up("Ada").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let began = Instant::now();
        let read = eventually("the breaker opens", async || {
            let read = client.read(id).await?;
            Ok((header(&read, "cache-status") == "redis; fwd=bypass").then_some(read))
        })
        .await?;
        ensure!(name(read).await? == "Ada");
        let nobody = client.read(id + 1_000).await?;
        ensure!(header(&nobody, "cache-status") == "redis; fwd=bypass", "{nobody:?}");
        problem(nobody, 404).await?;
        let many = client.read_many(&[id]).await?;
        ensure!(header(&many, "cache-status") == "redis; fwd=bypass", "{many:?}");
        ensure!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        eventually("Redis is known to be away", async || {
            let ready: Value = client.readiness().await?.json().await?;
            Ok((ready == json!({ "status": "ready", "redis": "away" })).then_some(()))
        })
        .await?;
        proxy.heal();
        eventually("hits return", async || {
            let read = client.read(id).await?;
            Ok(is_hit(&read).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn a_change_that_cannot_reach_redis_is_seen_where_redis_is_near() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_near_child, near) = fixture.start(&[]).await?;
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    let far_child = fixture.serve_through(&proxy.url(&fixture.redis_url)?);
    let far_child = far_child.args(&["--database-timeout", "10"]).start().await?;
    let far = Client::at(far_child.url())?;
    let id = near.sign_up("Ada").await?;
    for (n, fault) in [Fault::Cut, Fault::BlackHole, Fault::Cut].into_iter().enumerate() {
        eventually("hot where Redis is near", async || {
            Ok(is_hit(&near.read(id).await?).then_some(()))
        })
        .await?;
        proxy.set(fault);
        let began = Instant::now();
        let new = json!({ "name": format!("Ada {n}"), "email": near.email("Ada") });
        ensure!(far.change(id, &new).await?.status() == 200);
        let took = began.elapsed();
        ensure!(took >= Duration::from_secs(1), "answered before it was safe: {took:?}");
        ensure!(name(near.read(id).await?).await? == format!("Ada {n}"), "a stale value");
        proxy.heal();
    }
    Ok(())
}

async fn a_near_cache_hears_of_changes_and_is_believed_no_longer_than_redis() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(&fixture.redis_url).await?;
    let serve = fixture.serve_through(&proxy.url(&fixture.redis_url)?).args(&["--near", "100"]);
    let child = serve.args(&["--database-timeout", "10"]).start().await?;
    let near = believing(&child).await?;
    let (_child, other) = fixture.start(&[]).await?;
    let id = other.sign_up("Ada").await?;
    for round in 0..10 {
        eventually("it is kept in the process", async || {
            let status = header(&near.read(id).await?, "cache-status").to_owned();
            Ok(status.starts_with("near; hit; ttl=").then_some(()))
        })
        .await?;
        let new = json!({ "name": format!("Ada {round}"), "email": other.email("Ada") });
        ensure!(other.change(id, &new).await?.status() == 200);
        eventually("the invalidation arrives", async || {
            Ok((name(near.read(id).await?).await? == new["name"]).then_some(()))
        })
        .await?;
        // A change through the process itself is seen at once.
        let own = json!({ "name": format!("Own {round}"), "email": other.email("Ada") });
        near.read(id).await?;
        ensure!(near.change(id, &own).await?.status() == 200);
        ensure!(name(near.read(id).await?).await? == own["name"]);
    }
    // When no message gets through, nothing is believed after a period, which is a second.
    near.read(id).await?;
    proxy.set(Fault::BlackHole);
    let new = json!({ "name": "Ada", "email": other.email("Ada") });
    ensure!(other.change(id, &new).await?.status() == 200);
    let answered = Instant::now();
    while name(near.read(id).await?).await? != "Ada" {
        ensure!(answered.elapsed() < Duration::from_secs(5), "the near copy is believed for ever");
    }
    Ok(())
}

async fn without_the_database_nothing_is_believed_for_long() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let serve = fixture.serve().env("DATABASE_URL", proxy.url(fixture.database.url())?);
    let child = serve.args(&["--database-timeout", "10"]).start().await?;
    let client = Client::at(child.url())?;
    let id = client.sign_up("Ada").await?;
    client.read(id).await?;
    proxy.set(Fault::Cut);
    let away = eventually("the last confirmation is too old", async || {
        let read = client.read(id).await?;
        Ok((read.status() == 503).then_some(read))
    })
    .await?;
    ensure!(header(&away, "retry-after") == "1", "{away:?}");
    problem(away, 503).await?;
    problem(client.readiness().await?, 503).await?;
    problem(client.create_once(&client.user("Grace")).await?, 503).await?;
    problem(client.change(id, &client.user("Grace")).await?, 503).await?;
    problem(client.delete(id).await?, 503).await?;
    problem(client.read_many(&[id]).await?, 503).await?;
    proxy.heal();
    ensure!(name(client.read(id).await?).await? == "Ada", "the next request works");
    Ok(())
}

async fn a_clean_stop_ends_well() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut child, client) = fixture.start(&[]).await?;
    let id = client.sign_up("Ada").await?;
    client.read(id).await?;
    let ended = child.stop().await?;
    ensure!(ended.success(), "{ended}: {}", child.log());
    Ok(())
}
