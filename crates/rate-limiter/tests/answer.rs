//! Does the rate limiter do what it promises? Over HTTP, as its clients would see it.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use conform::http::{client, header, problem};
use lab::{
    child::{Child, ChildBuilder},
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run},
    keys::Keys,
};
use rate_limiter::{
    algorithm::Algorithm, key::Key, limits::Limits, memory::Memory, shared::Shared,
};
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue};
use serde_json::{Value, json};
use sfv::{BareItem, List, ListEntry, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn main() -> ExitCode {
    run(rate_limiter::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let keys = Keys::fresh("rate-limiter").await?;
    // Nothing comes back while a case asks, and a busy machine must not look like a Redis that is away.
    let calm = ["--window", "1d", "--store-timeout", "10s"];
    let place = ["--prefix", keys.prefix(), "--trusted-proxy", "127.0.0.1"];
    let child = Child::serve("rate-limiter").env("REDIS_URL", keys.url()).args(&place).args(&calm);
    Ok(Served::new(child.start().await?, keys))
}

lab::tests![
    a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused,
    every_answer_says_where_the_client_stands,
    a_refused_client_may_come_back_when_it_was_told_to,
    a_window_that_is_not_whole_seconds_is_not_told,
    health_is_never_limited,
    a_dear_request_costs_more,
    of_several_policies_all_are_taken_or_none,
    a_refused_request_costs_quota_only_if_told_so,
    users_have_their_own_quota_and_invented_api_keys_do_not,
    a_forged_header_buys_nothing,
    behind_a_trusted_proxy_each_client_has_its_own_quota,
    headers_that_cannot_be_read_are_ignored,
    processes_with_one_redis_count_together,
    quota_in_redis_survives_a_restart_and_quota_in_memory_does_not,
    counters_in_redis_expire,
    redis_decides_as_memory_does_to_the_microsecond,
    scripts_that_redis_has_forgotten_are_sent_again,
    a_redis_key_of_the_wrong_type_starts_again,
    no_client_is_named_in_redis_or_in_the_log,
    a_store_that_is_away_opens_or_closes_as_chosen,
    quotas_that_mean_nothing_are_refused_at_the_start,
    extreme_quotas_work_in_both_stores,
    a_burst_of_concurrent_requests_gets_exactly_the_limit,
    a_clean_stop_lets_requests_finish,
];

/// A limiter of the test's own.
struct Api {
    child: Child,
    http: reqwest::Client,
    keys: Option<Keys>,
}

fn in_memory(arguments: &[&str]) -> ChildBuilder {
    Child::serve("rate-limiter").args(&["--store", "memory"]).args(arguments)
}

/// Busy machines must not look like a Redis that is away.
fn in_redis(keys: &Keys, arguments: &[&str]) -> ChildBuilder {
    let serve = Child::serve("rate-limiter").env("REDIS_URL", keys.url());
    serve
        .args(&["--store", "redis", "--store-timeout", "10s", "--prefix", keys.prefix()])
        .args(arguments)
}

impl Api {
    async fn memory(arguments: &[&str]) -> anyhow::Result<Self> {
        Ok(Self { child: in_memory(arguments).start().await?, http: client()?, keys: None })
    }

    async fn redis(arguments: &[&str]) -> anyhow::Result<Self> {
        let keys = Keys::fresh("rate-limiter").await?;
        let child = in_redis(&keys, arguments).start().await?;
        Ok(Self { child, http: client()?, keys: Some(keys) })
    }

    /// In each of the stores.
    async fn both(arguments: &[&str]) -> anyhow::Result<[Self; 2]> {
        Ok([Self::memory(arguments).await?, Self::redis(arguments).await?])
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.child.url()))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(self.request(Method::GET, path).send().await?)
    }

    async fn hello(&self) -> anyhow::Result<Response> {
        self.get("api/hello").await
    }

    /// With one more header.
    async fn hello_with(&self, name: &str, value: &str) -> anyhow::Result<u16> {
        let request = self.request(Method::GET, "api/hello").header(name, value);
        Ok(request.send().await?.status().as_u16())
    }

    /// The value of a metric.
    async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.get("metrics").await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{name} is not in {text}"))?.parse()?)
    }

    fn keys(&self) -> anyhow::Result<&Keys> {
        self.keys.as_ref().context("it counts in memory")
    }
}

/// A name, and its parameters.
type Item = (String, Vec<(String, i64)>);

/// A field parsed as RFC 9651 has it: the name of each item, and its parameters that are numbers.
fn field(response: &Response, name: &str) -> anyhow::Result<Vec<Item>> {
    let text = header(response, name);
    let list: List =
        Parser::new(text).parse().map_err(|error| anyhow::anyhow!("{text}: {error}"))?;
    let item = |entry: ListEntry| {
        let ListEntry::Item(item) = entry else { anyhow::bail!("{text}: an inner list") };
        let BareItem::String(name) = item.bare_item else { anyhow::bail!("{text}: no string") };
        let params = item.params.into_iter().map(|(key, value)| match value {
            BareItem::Integer(value) => Ok((key.as_str().to_owned(), value.into())),
            other => anyhow::bail!("{text}: {other:?}"),
        });
        Ok((name.as_str().to_owned(), params.collect::<anyhow::Result<_>>()?))
    };
    list.into_iter().map(item).collect()
}

/// One parameter of one policy.
fn param(response: &Response, name: &str, policy: &str, param: &str) -> anyhow::Result<i64> {
    let field = field(response, name)?;
    let (_, params) = field.iter().find(|(name, _)| name == policy).context("no such policy")?;
    let found = params.iter().find(|(name, _)| name == param);
    Ok(found.with_context(|| format!("no {param} in {params:?}"))?.1)
}

async fn a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused() -> Outcome {
    for algorithm in Algorithm::ALL {
        for api in Api::both(&["--algorithm", algorithm.name(), "--limit", "20"]).await? {
            for n in (0..20).rev() {
                let response = api.hello().await?;
                ensure!(
                    response.status() == 200,
                    "{algorithm:?}: {} with {n} left",
                    response.status()
                );
                ensure!(param(&response, "ratelimit", "api", "r")? == n, "{algorithm:?}");
                let body: Value = response.json().await?;
                ensure!(body == json!({ "hello": "world" }), "{body}");
            }
            let refused = api.hello().await?;
            let after: i64 = header(&refused, "retry-after").parse()?;
            ensure!((1..=1_800).contains(&after), "Retry-After: {after}");
            ensure!(param(&refused, "ratelimit", "api", "r")? == 0);
            let whole = param(&refused, "ratelimit", "api", "t")?;
            ensure!(
                after <= whole,
                "{algorithm:?}: comes back after {after} s, whole in {whole} s"
            );
            let problem = problem(refused, 429).await?;
            let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
            ensure!(problem["type"] == kind, "{problem}");
            ensure!(problem["violated-policies"] == json!(["api"]), "{problem}");
        }
    }
    Ok(())
}

async fn every_answer_says_where_the_client_stands() -> Outcome {
    let api = Api::memory(&["--algorithm", "fixed-window", "--policy", "burst=5/1s"]).await?;
    let response = api.hello().await?;
    ensure!(header(&response, "ratelimit-policy") == r#""api";q=100;w=900, "burst";q=5;w=1"#);
    ensure!(header(&response, "ratelimit") == r#""api";r=99;t=900, "burst";r=4;t=1"#);
    let names =
        |field: Vec<(String, _)>| field.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for name in ["ratelimit", "ratelimit-policy"] {
        ensure!(names(field(&response, name)?) == ["api", "burst"]);
    }
    // Also an answer that the handler did not want to give.
    let response = api.get("api/nowhere").await?;
    ensure!(param(&response, "ratelimit", "api", "r")? == 98);
    problem(response, 404).await?;
    Ok(())
}

async fn a_refused_client_may_come_back_when_it_was_told_to() -> Outcome {
    for algorithm in Algorithm::ALL {
        let api = Api::redis(&["--algorithm", algorithm.name(), "--limit", "2", "--window", "1s"])
            .await?;
        let told = eventually("a refusal", async || {
            let response = api.hello().await?;
            let after = header(&response, "retry-after").parse::<u64>();
            Ok((response.status() == 429).then(|| after.map(Duration::from_secs)))
        });
        let told = told.await??;
        ensure!(told <= Duration::from_secs(2), "{algorithm:?}: {told:?}");
        // That nobody is told to wait for longer than he must is held by the property tests, to the microsecond.
        tokio::time::sleep(told).await;
        let status = api.hello().await?.status();
        ensure!(status == 200, "{algorithm:?}: {status} after the {told:?} that it was told");
    }
    Ok(())
}

async fn a_window_that_is_not_whole_seconds_is_not_told() -> Outcome {
    let api = Api::memory(&["--window", "1500ms"]).await?;
    ensure!(header(&api.hello().await?, "ratelimit-policy") == r#""api";q=100"#);
    Ok(())
}

async fn health_is_never_limited() -> Outcome {
    for api in Api::both(&["--limit", "1"]).await? {
        for path in ["healthz", "readyz", "metrics"] {
            for _ in 0..20 {
                let response = api.get(path).await?;
                ensure!(response.status() == 200, "{path}: {}", response.status());
                ensure!(header(&response, "ratelimit").is_empty(), "{path} is counted");
            }
        }
        ensure!(api.hello().await?.status() == 200, "and costs nothing");
        ensure!(api.hello().await?.status() == 429);
        ensure!(api.get("healthz").await?.status() == 200);
        ensure!(api.metric(r#"rate_limiter_requests_total{decision="allowed"}"#).await? == 1);
        ensure!(api.metric(r#"rate_limiter_requests_total{decision="refused"}"#).await? == 1);
    }
    Ok(())
}

async fn a_dear_request_costs_more() -> Outcome {
    for algorithm in Algorithm::ALL {
        let arguments = ["--algorithm", algorithm.name(), "--limit", "25"];
        for api in Api::both(&arguments).await? {
            for left in [15, 5] {
                let response = api.get("api/report").await?;
                ensure!(
                    response.status() == 200 && param(&response, "ratelimit", "api", "r")? == left
                );
            }
            problem(api.get("api/report").await?, 429).await?;
            let cheap = api.hello().await?;
            ensure!(cheap.status() == 200, "{algorithm:?}: what was refused took nothing");
            ensure!(param(&cheap, "ratelimit", "api", "r")? == 4);
        }
    }
    // What costs more than the whole quota passes when it is whole, or it could never pass.
    let api = Api::redis(&["--limit", "5", "--report-cost", "4000000000"]).await?;
    ensure!(api.get("api/report").await?.status() == 200);
    problem(api.hello().await?, 429).await?;
    Ok(())
}

async fn of_several_policies_all_are_taken_or_none() -> Outcome {
    for algorithm in Algorithm::ALL {
        // An hour for a burst: nothing comes back while we look.
        let arguments =
            ["--algorithm", algorithm.name(), "--limit", "10", "--policy", "burst=3/1h"];
        for api in Api::both(&arguments).await? {
            for _ in 0..3 {
                ensure!(api.hello().await?.status() == 200);
            }
            for _ in 0..5 {
                let refused = api.hello().await?;
                ensure!(param(&refused, "ratelimit", "api", "r")? == 7, "{algorithm:?}: it took");
                ensure!(param(&refused, "ratelimit", "burst", "r")? == 0);
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
            for api in Api::both(&arguments).await? {
                api.get("api/report").await?;
                // This does not fit; counted, it takes what is left.
                let refused = api.get("api/report").await?;
                ensure!(refused.status() == 429);
                let seen = param(&refused, "ratelimit", "api", "r")?;
                ensure!(seen == left, "{arguments:?}: {seen}");
            }
        }
    }
    Ok(())
}

async fn users_have_their_own_quota_and_invented_api_keys_do_not() -> Outcome {
    let users = ["--user", "ada:one", "--user", "ada:two", "--user", "bob:three", "--limit", "2"];
    for (by, passes) in [("api-key", [2, 2, 2]), ("user", [2, 0, 2]), ("address", [2, 0, 0])] {
        let api = Api::memory(&[&users[..], &["--key", by]].concat()).await?;
        for (key, expected) in ["one", "two", "three"].into_iter().zip(passes) {
            let mut passed = 0;
            for _ in 0..4 {
                passed += u64::from(api.hello_with("x-api-key", key).await? == 200);
            }
            ensure!(passed == expected, "{by}: {passed} passed with key {key}");
        }
        let mut invented = 0;
        for n in 0..50 {
            invented +=
                u64::from(api.hello_with("x-api-key", &format!("invented-{n}")).await? == 200);
        }
        let address = if by == "address" { 0 } else { 2 };
        ensure!(invented == address, "{by}: {invented} passed with invented keys");
    }
    Ok(())
}

async fn a_forged_header_buys_nothing() -> Outcome {
    let api = Api::memory(&["--limit", "5"]).await?;
    let mut passed = 0;
    for n in 0..60 {
        let (name, value) = match n % 3 {
            0 => ("x-forwarded-for", format!("192.0.2.{n}")),
            1 => ("forwarded", format!("for=192.0.2.{n}")),
            _ => ("x-real-ip", format!("192.0.2.{n}")),
        };
        passed += u64::from(api.hello_with(name, &value).await? == 200);
    }
    ensure!(passed == 5, "{passed} passed");
    Ok(())
}

async fn behind_a_trusted_proxy_each_client_has_its_own_quota() -> Outcome {
    let api = Api::memory(&["--limit", "1", "--trusted-proxy", "127.0.0.0/8"]).await?;
    for (value, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("198.51.100.7, 192.0.2.1", 429),
        ("192.0.2.1:4711", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("[2001:db8::2]:80", 429),
        ("2001:db8:0:1::1", 200),
        ("::ffff:192.0.2.2", 429),
    ] {
        let seen = api.hello_with("x-forwarded-for", value).await?;
        ensure!(seen == status, "{value}: {seen}");
    }
    for (value, status) in [
        ("for=192.0.2.1", 429),
        ("for=192.0.2.3;proto=https", 200),
        ("For=\"192.0.2.3:80\"", 429),
        ("for=\"[2001:db8::7]\"", 429),
        ("for=192.0.2.99, for=192.0.2.3", 429),
    ] {
        let seen = api.hello_with("forwarded", value).await?;
        ensure!(seen == status, "{value}: {seen}");
    }
    Ok(())
}

async fn headers_that_cannot_be_read_are_ignored() -> Outcome {
    let api =
        Api::memory(&["--limit", "100", "--trusted-proxy", "127.0.0.0/8", "--key", "user"]).await?;
    let bytes = HeaderValue::from_bytes(b"\xff\xfe, \xff")?;
    let long = vec!["192.0.2.1"; 10_000].join(", ") + ", unknown";
    let hops = vec!["127.0.0.1"; 10_000].join(",");
    let mut sent = 0;
    for name in ["x-forwarded-for", "forwarded", "x-api-key"] {
        for value in [
            "",
            ",",
            ",,,",
            "unknown",
            "_hidden",
            "for=_hidden",
            "for=unknown",
            "for=",
            "=",
            ";;;",
            "\"",
            "for=\"",
            "999.999.999.999",
            "1.2.3",
            "[::1",
            "::1]:80",
            "1.2.3.4:99999",
            "1.2.3.4:-1",
            "fe80::1%eth0",
            "localhost",
            "'; drop table",
            "0x7f000001",
            "2130706433",
            "{}",
            "*",
            &long,
            &hops,
        ] {
            let seen = api.hello_with(name, value).await?;
            sent += 1;
            ensure!(seen == 200, "{name}: {value:.40}: {seen}");
        }
        let request = api.request(Method::GET, "api/hello").header(name, bytes.clone());
        ensure!(request.send().await?.status() == 200, "{name} that is no text");
        sent += 1;
    }
    // All of them were the same client: the peer, who is the only one we know.
    let response = api.hello().await?;
    let left = param(&response, "ratelimit", "api", "r")?;
    ensure!(left == 100 - sent - 1, "{left} left after {sent}: somebody got a quota of their own");
    Ok(())
}

async fn processes_with_one_redis_count_together() -> Outcome {
    let api = Api::redis(&["--limit", "11"]).await?;
    let other = in_redis(api.keys()?, &["--limit", "11"]).start().await?;
    let elsewhere = format!("{}/api/hello", other.url());
    let mut passed = 0;
    for _ in 0..10 {
        passed += u64::from(api.hello().await?.status() == 200);
        passed += u64::from(api.http.get(&elsewhere).send().await?.status() == 200);
    }
    ensure!(passed == 11, "{passed} passed");
    Ok(())
}

async fn quota_in_redis_survives_a_restart_and_quota_in_memory_does_not() -> Outcome {
    let [mut memory, mut redis] = Api::both(&["--limit", "1"]).await?;
    for api in [&mut memory, &mut redis] {
        ensure!(api.hello().await?.status() == 200);
        api.child.kill().await?;
        api.child.restart().await?;
    }
    ensure!(memory.hello().await?.status() == 200);
    ensure!(redis.hello().await?.status() == 429);
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
        let api = Api::redis(&arguments).await?;
        for _ in 0..7 {
            api.hello().await?;
        }
        eventually("its counter expires", async || {
            Ok(keys_of(api.keys()?).await?.is_empty().then_some(()))
        })
        .await
        .with_context(|| algorithm.name())?;
    }
    Ok(())
}

async fn redis_decides_as_memory_does_to_the_microsecond() -> Outcome {
    let keys = Keys::fresh("rate-limiter").await?;
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
                    let (at, there) = shared.decide_at(&limits, key, cost).await?;
                    now.store(at, Ordering::Relaxed);
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
    let api = Api::redis(&["--limit", "2"]).await?;
    ensure!(api.hello().await?.status() == 200);
    // On the shared server this makes others send their scripts again too: that is what it is there for.
    let mut connection = api.keys()?.connection().await?;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?;
    ensure!(api.hello().await?.status() == 200);
    ensure!(api.hello().await?.status() == 429);
    Ok(())
}

async fn a_redis_key_of_the_wrong_type_starts_again() -> Outcome {
    for algorithm in Algorithm::ALL {
        let api = Api::redis(&["--algorithm", algorithm.name(), "--limit", "2"]).await?;
        api.hello().await?;
        let keys = keys_of(api.keys()?).await?;
        ensure!(keys.len() == 1, "{keys:?}");
        let key = &keys[0].0;
        let mut connection = api.keys()?.connection().await?;
        for (command, value) in
            [("HSET", &["a", "b"][..]), ("SET", &["nonsense"]), ("RPUSH", &["x"])]
        {
            redis::cmd("DEL").arg(key).exec_async(&mut connection).await?;
            redis::cmd(command).arg(key).arg(value).exec_async(&mut connection).await?;
            let response = api.hello().await?;
            ensure!(response.status() == 200, "{algorithm:?} {command}: {}", response.status());
            ensure!(param(&response, "ratelimit", "api", "r")? == 1, "{algorithm:?} {command}");
            ensure!(api.hello().await?.status() == 200 && api.hello().await?.status() == 429);
        }
        ensure!(api.metric(r#"rate_limiter_store_away_total{mode="fail-open"}"#).await? == 0);
    }
    Ok(())
}

async fn no_client_is_named_in_redis_or_in_the_log() -> Outcome {
    let keys = Keys::fresh("rate-limiter").await?;
    let proxy = Proxy::to_url(keys.url()).await?;
    let arguments = ["--trusted-proxy", "127.0.0.1", "--key", "user", "--user", "ada:secret"];
    let serve = in_redis(&keys, &arguments).env("REDIS_URL", proxy.url(keys.url())?);
    let child = serve.env("RUST_LOG", "info,rate_limiter=trace").start().await?;
    let api = Api { child, http: client()?, keys: Some(keys) };
    api.hello_with("x-forwarded-for", "203.0.113.77").await?;
    api.hello_with("x-api-key", "secret").await?;
    let names: Vec<String> = keys_of(api.keys()?).await?.into_iter().map(|(key, _)| key).collect();
    ensure!(names.len() == 2, "{names:?}");
    proxy.set(Fault::Cut);
    api.hello_with("x-forwarded-for", "203.0.113.77").await?;
    eventually("the log says so", async || {
        Ok(api.child.log().contains("the store is away").then_some(()))
    })
    .await?;
    for secret in ["203.0.113.77", "secret", "ada"] {
        ensure!(names.iter().all(|name| !name.contains(secret)), "{names:?}");
        ensure!(!api.child.log().contains(secret), "{}", api.child.log());
    }
    Ok(())
}

async fn a_store_that_is_away_opens_or_closes_as_chosen() -> Outcome {
    for mode in ["fail-open", "fail-closed"] {
        let keys = Keys::fresh("rate-limiter").await?;
        let proxy = Proxy::to_url(keys.url()).await?;
        let serve = Child::serve("rate-limiter").env("REDIS_URL", proxy.url(keys.url())?);
        let serve = serve.args(&["--prefix", keys.prefix(), "--when-away", mode, "--limit", "3"]);
        // A cut is seen at once; a busy machine must not look like one.
        let serve = serve.args(&["--store-timeout", "10s"]);
        let child = serve.start().await?;
        let api = Api { child, http: client()?, keys: Some(keys) };
        let ready: Value = api.get("readyz").await?.json().await?;
        ensure!(ready["store"] == "there", "{ready}");
        ensure!(api.hello().await?.status() == 200);

        proxy.set(Fault::Cut);
        for n in 0..5 {
            let response = api.hello().await?;
            if mode == "fail-closed" {
                ensure!(header(&response, "retry-after") == "1");
                problem(response, 503).await?;
            } else if n < 3 {
                ensure!(response.status() == 200, "the local limiter lets three in");
            } else {
                problem(response, 429).await?;
            }
        }
        ensure!(api.get("healthz").await?.status() == 200);
        let ready = api.get("readyz").await?;
        if mode == "fail-closed" {
            problem(ready, 503).await?;
        } else {
            ensure!(ready.json::<Value>().await?["store"] == "away");
        }
        let metric = format!("rate_limiter_store_away_total{{mode=\"{mode}\"}}");
        ensure!(api.metric(&metric).await? == 5);

        proxy.heal();
        // What Redis knew before is what counts now: one was taken, two are left.
        let statuses = [api.hello().await?, api.hello().await?, api.hello().await?]
            .map(|it| it.status().as_u16());
        ensure!(statuses == [200, 200, 429], "{mode}: {statuses:?}");
        eventually("the log tells both", async || {
            let log = api.child.log();
            let told = log.contains("the store is away")
                && log.contains("the store is back")
                && log.contains(mode);
            Ok(told.then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn quotas_that_mean_nothing_are_refused_at_the_start() -> Outcome {
    for arguments in [
        &["--limit", "0"][..],
        &["--limit", "-1"],
        &["--limit", "4294967296"],
        &["--limit", "99999999999999999999999"],
        &["--limit", "1.5"],
        &["--window", "0s"],
        &["--window", "0"],
        &["--window", "-1s"],
        &["--window", "367d"],
        &["--window", "18446744073709551615ms"],
        &["--limit", "4294967295", "--window", "1d"],
        &["--algorithm", "sliding-log", "--limit", "10001"],
        &["--algorithm", "leaky"],
        &["--policy", "burst=0/1s"],
        &["--policy", "burst=1/0s"],
        &["--policy", "api=1/1s"],
        &["--policy", "a\"b=1/1s"],
        &["--policy", "a=1/1s", "--policy", "b=1/1s", "--policy", "c=1/1s", "--policy", "d=1/1s"],
        &["--trusted-proxy", "10.0.0.0/33"],
        &["--trusted-proxy", "somewhere"],
        &["--user", "ada"],
    ] {
        let started = in_memory(arguments).start().await;
        let error = started.err().with_context(|| format!("{arguments:?} was taken"))?.to_string();
        ensure!(error.contains("error: ") && !error.contains("panicked"), "{arguments:?}: {error}");
    }
    Ok(())
}

async fn extreme_quotas_work_in_both_stores() -> Outcome {
    for algorithm in Algorithm::ALL {
        let largest = if algorithm == Algorithm::SlidingLog { "10000" } else { "4294967295" };
        for (limit, window) in [(largest, "15m"), (largest, "1s"), ("1", "366d"), ("1", "1ms")] {
            let arguments = ["--algorithm", algorithm.name(), "--limit", limit, "--window", window];
            for api in Api::both(&arguments).await? {
                let response = api.hello().await?;
                ensure!(response.status() == 200, "{arguments:?}: {}", response.status());
                let left = param(&response, "ratelimit", "api", "r")?;
                ensure!(left == limit.parse::<i64>()? - 1, "{arguments:?}: {left}");
                let dear = api.get("api/report").await?.status().as_u16();
                ensure!(matches!(dear, 200 | 429), "{arguments:?}: {dear}");
            }
        }
    }
    Ok(())
}

async fn a_burst_of_concurrent_requests_gets_exactly_the_limit() -> Outcome {
    for algorithm in Algorithm::ALL {
        let arguments = ["--algorithm", algorithm.name(), "--limit", "50", "--window", "1d"];
        for api in Api::both(&arguments).await? {
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..200 {
                let request = api.request(Method::GET, "api/hello");
                asking.spawn(async move { request.send().await.map(|it| it.status().as_u16()) });
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

async fn a_clean_stop_lets_requests_finish() -> Outcome {
    for mut api in Api::both(&[]).await? {
        let mut stream = TcpStream::connect(api.child.address()).await?;
        let body = r#"{"name":"Ada"}"#;
        let (begun, rest) = body.split_at(5);
        let head = format!(
            "POST /api/hello HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            api.child.address(),
            body.len()
        );
        stream.write_all(format!("{head}{begun}").as_bytes()).await?;
        // The limiter has let it through, so its handler waits for the rest of the body.
        eventually("it is in the handler", async || {
            let allowed = api.metric(r#"rate_limiter_requests_total{decision="allowed"}"#).await?;
            Ok((allowed == 1).then_some(()))
        })
        .await?;
        let finish = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(rest.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let (status, answer) = tokio::join!(api.child.stop(), finish);
        let (status, answer) = (status?, answer?);
        ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"hello\":\"Ada\"}\n"),
            "{answer}"
        );
    }
    Ok(())
}
