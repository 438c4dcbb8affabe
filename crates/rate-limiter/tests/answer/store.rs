//! Does it count right in Redis, and what happens when Redis forgets or is away?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use conform::http::{header, problem};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
    keys::Keys,
};
use rate_limiter::{
    algorithm::{Algorithm, Limits},
    cases::told::units_left,
    client::Key,
    experiments::fixture::{Fixture, start},
    memory::Memory,
    shared::Shared,
};
use serde_json::Value;

lab::tests![
    processes_with_one_redis_count_together,
    quota_in_redis_survives_a_restart_and_quota_in_memory_does_not,
    counters_in_redis_expire,
    redis_decides_as_memory_does_to_the_microsecond,
    scripts_that_redis_has_forgotten_are_sent_again,
    a_redis_key_of_the_wrong_type_starts_again,
    no_client_is_named_in_redis_or_in_the_log,
    a_store_that_is_away_opens_or_closes_as_chosen,
];

async fn processes_with_one_redis_count_together() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start_in_redis(&["--limit", "11"]).await?;
    let (_other_child, other) = fixture.start_in_redis(&["--limit", "11"]).await?;
    let mut passed = 0;
    for _ in 0..10 {
        passed += u64::from(client.hello().await?.status() == 200);
        passed += u64::from(other.hello().await?.status() == 200);
    }
    ensure!(passed == 11, "{passed} passed");
    Ok(())
}

async fn quota_in_redis_survives_a_restart_and_quota_in_memory_does_not() -> Outcome {
    let fixture = Fixture::fresh().await?;
    // First the one that counts in memory.
    let both = fixture.start_both(&["--limit", "1"]).await?;
    for ((mut child, client), afterwards) in both.into_iter().zip([200, 429]) {
        ensure!(client.hello().await?.status() == 200);
        child.kill().await?;
        child.restart().await?;
        let status = client.hello().await?.status();
        ensure!(status == afterwards, "after a restart: {status}");
    }
    Ok(())
}

/// Every key below the prefix, with its type.
async fn keys_of(keys: &Keys) -> anyhow::Result<Vec<(String, String)>> {
    let mut connection = keys.connection().await?;
    let pattern = format!("{}*", keys.prefix());
    let found: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
    let mut all = Vec::new();
    for key in found {
        let kind = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
        all.push((key, kind));
    }
    Ok(all)
}

async fn counters_in_redis_expire() -> Outcome {
    for algorithm in Algorithm::ALL {
        let arguments = ["--algorithm", algorithm.name(), "--limit", "5", "--window", "300ms"];
        let fixture = Fixture::fresh().await?;
        let (_child, client) = fixture.start_in_redis(&arguments).await?;
        for _ in 0..7 {
            client.hello().await?;
        }
        eventually("its counter expires", async || {
            Ok(keys_of(&fixture.keys).await?.is_empty().then_some(()))
        })
        .await
        .with_context(|| algorithm.name())?;
    }
    Ok(())
}

async fn redis_decides_as_memory_does_to_the_microsecond() -> Outcome {
    let keys = Fixture::fresh().await?.keys;
    let shared = Shared::new(keys.url(), keys.prefix(), Duration::from_secs(10))?;
    for algorithm in Algorithm::ALL {
        // Windows short enough for several to pass, and one that does not divide evenly.
        for (name, policies) in [
            ("a", &["one=7/20ms"][..]),
            ("b", &["one=9/30ms", "two=31/200ms"]),
            ("c", &["one=1000/1d"]),
        ] {
            for count_refused in [false, true] {
                let policies = policies.iter().map(|it| it.parse()).collect::<Result<_, _>>()?;
                let limits = Limits::new(algorithm, policies)?.counting_refused(count_refused);
                let now = Arc::new(AtomicU64::new(0));
                let hands = now.clone();
                let clock = Arc::new(move || hands.load(Ordering::Relaxed));
                let memory = Memory::new(&limits, 10, clock);
                let key = Key::of(name, &[u8::from(count_refused)]);
                for n in 0..120_u64 {
                    let cost = [1, 1, 2, 0, 1, 5, 1][usize::try_from(n % 7)?];
                    let grant = shared.decide(&limits, key, cost, 0).await?;
                    now.store(grant.at, Ordering::Relaxed);
                    let there = grant.decision;
                    let here = memory.decide(key, cost);
                    ensure!(
                        there == here,
                        "{algorithm:?} {name} {n}: {there:?}, in memory {here:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

async fn scripts_that_redis_has_forgotten_are_sent_again() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start_in_redis(&["--limit", "2"]).await?;
    ensure!(client.hello().await?.status() == 200);
    // On the shared server this makes other tests send their scripts again too, which they must be able to do.
    let mut connection = fixture.keys.connection().await?;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?;
    ensure!(client.hello().await?.status() == 200);
    ensure!(client.hello().await?.status() == 429);
    Ok(())
}

async fn a_redis_key_of_the_wrong_type_starts_again() -> Outcome {
    for algorithm in Algorithm::ALL {
        let fixture = Fixture::fresh().await?;
        let (_child, client) =
            fixture.start_in_redis(&["--algorithm", algorithm.name(), "--limit", "2"]).await?;
        client.hello().await?;
        let keys = keys_of(&fixture.keys).await?;
        ensure!(keys.len() == 1, "{keys:?}");
        let key = &keys[0].0;
        let mut connection = fixture.keys.connection().await?;
        for (command, value) in
            [("HSET", &["a", "b"][..]), ("SET", &["nonsense"]), ("RPUSH", &["x"])]
        {
            redis::cmd("DEL").arg(key).exec_async(&mut connection).await?;
            redis::cmd(command).arg(key).arg(value).exec_async(&mut connection).await?;
            // The process remembers the last refusal for a second.
            let response = eventually("the refusal is forgotten", async || {
                let response = client.hello().await?;
                Ok((response.status() != 429).then_some(response))
            });
            let response = response.await?;
            ensure!(response.status() == 200, "{algorithm:?} {command}: {}", response.status());
            ensure!(units_left(&response)? == 1, "{algorithm:?} {command}");
            ensure!(client.hello().await?.status() == 200 && client.hello().await?.status() == 429);
        }
        ensure!(client.metric(r#"rate_limiter_store_away_total{mode="fail-open"}"#).await? == 0);
    }
    Ok(())
}

async fn no_client_is_named_in_redis_or_in_the_log() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.keys.url()).await?;
    let serve = fixture
        .in_redis()
        .env("REDIS_URL", proxy.url(fixture.keys.url())?)
        .env("RUST_LOG", "info,rate_limiter=trace")
        .args(&["--trusted-proxy", "127.0.0.1", "--user", "ada:secret"]);
    let (child, client) = start(serve).await?;
    client.hello_with("x-forwarded-for", "203.0.113.77").await?;
    client.hello_with("x-api-key", "secret").await?;
    let names: Vec<String> =
        keys_of(&fixture.keys).await?.into_iter().map(|(key, _)| key).collect();
    ensure!(names.len() == 2, "{names:?}");
    proxy.set(Fault::Cut);
    client.hello_with("x-forwarded-for", "203.0.113.77").await?;
    eventually("the log says so", async || {
        Ok(child.log().contains("the store is away").then_some(()))
    })
    .await?;
    for secret in ["203.0.113.77", "secret", "ada"] {
        ensure!(names.iter().all(|name| !name.contains(secret)), "{names:?}");
        ensure!(!child.log().contains(secret), "{}", child.log());
    }
    Ok(())
}

async fn a_store_that_is_away_opens_or_closes_as_chosen() -> Outcome {
    for mode in ["fail-open", "fail-closed"] {
        let fixture = Fixture::fresh().await?;
        let proxy = Proxy::to_url(fixture.keys.url()).await?;
        let serve = fixture.in_redis().env("REDIS_URL", proxy.url(fixture.keys.url())?);
        let (child, client) = start(serve.args(&["--when-away", mode, "--limit", "3"])).await?;
        let ready: Value = client.get("readyz").await?.json().await?;
        ensure!(ready["store"] == "there", "{ready}");
        ensure!(client.hello().await?.status() == 200);

        proxy.set(Fault::Cut);
        for n in 0..5 {
            let response = client.hello().await?;
            if mode == "fail-closed" {
                ensure!(header(&response, "retry-after") == "1");
                problem(response, 503).await?;
            } else if n < 3 {
                ensure!(response.status() == 200, "the local limiter lets three in");
            } else {
                problem(response, 429).await?;
            }
        }
        ensure!(client.get("healthz").await?.status() == 200);
        let ready = client.get("readyz").await?;
        if mode == "fail-closed" {
            problem(ready, 503).await?;
        } else {
            ensure!(ready.json::<Value>().await?["store"] == "away");
        }
        let metric = format!("rate_limiter_store_away_total{{mode=\"{mode}\"}}");
        ensure!(client.metric(&metric).await? == 5);

        proxy.heal();
        eventually("there is a connection again", async || {
            let ready = client.get("readyz").await?;
            let there = ready.status() == 200 && ready.json::<Value>().await?["store"] == "there";
            Ok(there.then_some(()))
        })
        .await?;
        // What Redis knew before counts now: one was taken, two are left.
        let statuses = [client.hello().await?, client.hello().await?, client.hello().await?]
            .map(|it| it.status().as_u16());
        ensure!(statuses == [200, 200, 429], "{mode}: {statuses:?}");
        eventually("the log tells both", async || {
            let log = child.log();
            let told = log.contains("the store is away")
                && log.contains("the store is back")
                && log.contains(mode);
            Ok(told.then_some(()))
        })
        .await?;
    }
    Ok(())
}
