//! Does a client get its quota, no less and no more, and is it told where it stands?

use std::time::Duration;

use anyhow::ensure;
use conform::http::{header, problem};
use lab::harness::{Outcome, eventually};
use rate_limiter::{
    algorithm::Algorithm,
    cases::told::{field, parameter, units_left},
    experiments::fixture::{Fixture, start_in_memory},
};
use serde_json::{Value, json};

lab::tests![
    a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused,
    every_answer_says_where_the_client_stands,
    a_refused_client_may_come_back_when_it_was_told_to,
    a_window_that_is_not_whole_seconds_is_not_told,
    health_is_never_limited,
    a_dear_request_costs_more,
    of_several_policies_all_are_taken_or_none,
    a_refused_request_costs_quota_only_if_told_so,
    extreme_quotas_work_in_both_stores,
    a_burst_of_concurrent_requests_gets_exactly_the_limit,
];

async fn a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused() -> Outcome {
    for algorithm in Algorithm::ALL {
        let fixture = Fixture::fresh().await?;
        for (_child, client) in
            fixture.start_both(&["--algorithm", algorithm.name(), "--limit", "20"]).await?
        {
            for n in (0..20).rev() {
                let response = client.hello().await?;
                ensure!(
                    response.status() == 200,
                    "{algorithm:?}: {} with {n} left",
                    response.status()
                );
                ensure!(units_left(&response)? == n, "{algorithm:?}");
                let body: Value = response.json().await?;
                ensure!(body == json!({ "hello": "world" }), "{body}");
            }
            let refused = client.hello().await?;
            let after: i64 = header(&refused, "retry-after").parse()?;
            ensure!((1..=1_800).contains(&after), "Retry-After: {after}");
            ensure!(units_left(&refused)? == 0);
            let told = parameter(&refused, "ratelimit", "api", "t")?;
            ensure!(after == told, "{algorithm:?}: Retry-After is {after} s, and t is {told} s");
            let problem = problem(refused, 429).await?;
            let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
            ensure!(problem["type"] == kind, "{problem}");
            ensure!(problem["violated-policies"] == json!(["api"]), "{problem}");
        }
    }
    Ok(())
}

async fn every_answer_says_where_the_client_stands() -> Outcome {
    let (_child, client) =
        start_in_memory(&["--algorithm", "fixed-window", "--policy", "burst=5/1s"]).await?;
    let response = client.hello().await?;
    ensure!(header(&response, "ratelimit-policy") == r#""api";q=100;w=900, "burst";q=5;w=1"#);
    ensure!(header(&response, "ratelimit") == r#""api";r=99, "burst";r=4"#);
    let names =
        |field: Vec<(String, _)>| field.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for name in ["ratelimit", "ratelimit-policy"] {
        ensure!(names(field(&response, name)?) == ["api", "burst"]);
    }
    // Also in an answer that no handler gave.
    let response = client.get("api/nowhere").await?;
    ensure!(units_left(&response)? == 98);
    problem(response, 404).await?;
    Ok(())
}

async fn a_refused_client_may_come_back_when_it_was_told_to() -> Outcome {
    for algorithm in Algorithm::ALL {
        let fixture = Fixture::fresh().await?;
        let (_child, client) = fixture
            .start_in_redis(&["--algorithm", algorithm.name(), "--limit", "2", "--window", "1s"])
            .await?;
        let told = eventually("a refusal", async || {
            let response = client.hello().await?;
            let after = header(&response, "retry-after").parse::<u64>();
            Ok((response.status() == 429).then(|| after.map(Duration::from_secs)))
        });
        let told = told.await??;
        ensure!(told <= Duration::from_secs(2), "{algorithm:?}: {told:?}");
        // The property tests check, to the microsecond, that nobody is told to wait for too long.
        tokio::time::sleep(told).await;
        let status = client.hello().await?.status();
        ensure!(status == 200, "{algorithm:?}: {status} after the {told:?} that it was told");
    }
    Ok(())
}

async fn a_window_that_is_not_whole_seconds_is_not_told() -> Outcome {
    let (_child, client) = start_in_memory(&["--window", "1500ms"]).await?;
    ensure!(header(&client.hello().await?, "ratelimit-policy") == r#""api";q=100"#);
    Ok(())
}

async fn health_is_never_limited() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (_child, client) in fixture.start_both(&["--limit", "1"]).await? {
        for path in ["healthz", "readyz", "metrics"] {
            for _ in 0..20 {
                let response = client.get(path).await?;
                ensure!(response.status() == 200, "{path}: {}", response.status());
                ensure!(header(&response, "ratelimit").is_empty(), "{path} is counted");
            }
        }
        ensure!(client.hello().await?.status() == 200, "and costs nothing");
        ensure!(client.hello().await?.status() == 429);
        ensure!(client.get("healthz").await?.status() == 200);
        ensure!(client.metric(r#"rate_limiter_requests_total{decision="allowed"}"#).await? == 1);
        ensure!(client.metric(r#"rate_limiter_requests_total{decision="refused"}"#).await? == 1);
    }
    Ok(())
}

async fn a_dear_request_costs_more() -> Outcome {
    for algorithm in Algorithm::ALL {
        let arguments = ["--algorithm", algorithm.name(), "--limit", "25"];
        let fixture = Fixture::fresh().await?;
        for (_child, client) in fixture.start_both(&arguments).await? {
            for left in [15, 5] {
                let response = client.report().await?;
                ensure!(response.status() == 200 && units_left(&response)? == left);
            }
            problem(client.report().await?, 429).await?;
            let cheap = client.hello().await?;
            ensure!(cheap.status() == 200, "{algorithm:?}: what was refused took nothing");
            ensure!(units_left(&cheap)? == 4);
        }
    }
    // A request that costs more than the whole quota passes when the quota is whole, or it could never pass.
    let fixture = Fixture::fresh().await?;
    let dear = ["--limit", "5", "--report-cost", "4000000000"];
    let (_child, client) = fixture.start_in_redis(&dear).await?;
    ensure!(client.report().await?.status() == 200);
    problem(client.hello().await?, 429).await?;
    Ok(())
}

async fn of_several_policies_all_are_taken_or_none() -> Outcome {
    for algorithm in Algorithm::ALL {
        // An hour for a burst: nothing comes back while we look.
        let arguments =
            ["--algorithm", algorithm.name(), "--limit", "10", "--policy", "burst=3/1h"];
        let fixture = Fixture::fresh().await?;
        for (_child, client) in fixture.start_both(&arguments).await? {
            for _ in 0..3 {
                ensure!(client.hello().await?.status() == 200);
            }
            for _ in 0..5 {
                let refused = client.hello().await?;
                ensure!(units_left(&refused)? == 7, "{algorithm:?}: it took");
                ensure!(parameter(&refused, "ratelimit", "burst", "r")? == 0);
                let problem = problem(refused, 429).await?;
                ensure!(problem["violated-policies"] == json!(["burst"]), "{problem}");
            }
        }
    }
    Ok(())
}

async fn a_refused_request_costs_quota_only_if_told_so() -> Outcome {
    for (arguments, left) in [(&[][..], 5), (&["--count-refused"][..], 0)] {
        for algorithm in Algorithm::ALL {
            let arguments =
                [&["--algorithm", algorithm.name(), "--limit", "15"], arguments].concat();
            let fixture = Fixture::fresh().await?;
            for (_child, client) in fixture.start_both(&arguments).await? {
                client.report().await?;
                // This does not fit; counted, it takes what is left.
                let refused = client.report().await?;
                ensure!(refused.status() == 429);
                let seen = units_left(&refused)?;
                ensure!(seen == left, "{arguments:?}: {seen}");
            }
        }
    }
    Ok(())
}

async fn extreme_quotas_work_in_both_stores() -> Outcome {
    for algorithm in Algorithm::ALL {
        let largest = if algorithm == Algorithm::SlidingLog { "10000" } else { "4294967295" };
        for (limit, window) in [(largest, "15m"), (largest, "1s"), ("1", "366d"), ("1", "1ms")] {
            let arguments = ["--algorithm", algorithm.name(), "--limit", limit, "--window", window];
            let fixture = Fixture::fresh().await?;
            for (_child, client) in fixture.start_both(&arguments).await? {
                let response = client.hello().await?;
                ensure!(response.status() == 200, "{arguments:?}: {}", response.status());
                let left = units_left(&response)?;
                ensure!(left == limit.parse::<i64>()? - 1, "{arguments:?}: {left}");
                let dear = client.report().await?.status().as_u16();
                ensure!(matches!(dear, 200 | 429), "{arguments:?}: {dear}");
            }
        }
    }
    Ok(())
}

async fn a_burst_of_concurrent_requests_gets_exactly_the_limit() -> Outcome {
    for algorithm in Algorithm::ALL {
        let arguments = ["--algorithm", algorithm.name(), "--limit", "50", "--window", "1d"];
        let fixture = Fixture::fresh().await?;
        for (_child, client) in fixture.start_both(&arguments).await? {
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..200 {
                let client = client.clone();
                asking.spawn(async move { client.hello().await.map(|it| it.status().as_u16()) });
            }
            let statuses: Vec<u16> =
                asking.join_all().await.into_iter().collect::<Result<_, _>>()?;
            let passed = statuses.iter().filter(|&&status| status == 200).count();
            ensure!(passed == 50, "{algorithm:?}: {passed} passed");
            ensure!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
        }
    }
    Ok(())
}
