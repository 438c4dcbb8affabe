//! What needs the answer's own options, a fault or a look inside. It also runs the experiments, with quick parameters, and
//! the cases.

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use conform::http::lives_and_is_ready;
use conform::target::Target;
use futures_util::stream::{repeat_with, unfold};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run},
    serve::here,
};
use microservices::{
    call::{Call, Spans},
    cases::client::{Client, new_key, new_number},
    experiments::compare::contract::{broken, interactions},
    experiments::compare::grpc,
    experiments::compare::otlp::Collector,
    experiments::fixture::{Customer, Fixture, Setup},
    module::Module,
    peer::VERSION,
    pricing::{Question, quote},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

fn main() -> ExitCode {
    run(microservices::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    let shop = fixture.monolith().start().await?;
    Ok(Served::new(shop, fixture))
}

lab::tests![
    six_processes_give_the_same_answers_as_one,
    every_service_keeps_what_others_rely_on,
    a_trace_goes_through_all_services,
    the_services_recover_when_one_was_away,
    a_service_that_resets_every_connection_is_missing_and_no_more,
    a_service_that_sends_for_ever_is_given_up,
    a_service_whose_clock_is_wrong_is_found_by_its_durations,
    a_silent_service_that_may_take_all_the_time_is_given_up_too,
    recommendations_that_cannot_be_shown_leave_the_page_as_it_is,
    a_service_refuses_what_is_not_in_its_contract,
    a_service_whose_place_was_not_said_does_not_start,
    pricing_says_the_same_over_grpc,
    spans_wait_for_a_collector_that_is_away,
    the_manifests_have_probes_limits_and_disruption_budgets,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// All plain cases that need no events, against the gateway.
async fn six_processes_give_the_same_answers_as_one() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let services = fixture.services(&Setup::default()).await?;
    let target = Target::new(&services.url(Module::Gateway), None)?;
    // Between services these need a broker, which not every machine has.
    let by_events = ["a_copy_catches_up", "what_was_bought_together_is_recommended"];
    for case in microservices::answer().suite.cases {
        if case.kind == conform::case::Kind::Plain && !by_events.contains(&case.name) {
            (case.run)(&target).await.map_err(|error| error.context(case.name))?;
        }
    }
    Ok(())
}

async fn every_service_keeps_what_others_rely_on() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let services = fixture.services(&Setup::default()).await?;
    for provider in Module::SERVICES {
        let relied_on = interactions().into_iter().filter(|it| it.provider == provider).count();
        ensure!(relied_on >= 1, "nobody says what it needs of {provider:?}");
        let found = broken(provider, &services.url(provider)).await?;
        ensure!(found.is_empty(), "{provider:?}: {found:#?}");
    }
    Ok(())
}

async fn a_trace_goes_through_all_services() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    let client = Client::at(&services.url(Module::Gateway))?;
    let trace = format!("{:032x}", new_number());
    let order = client.order(1, 1, 1, &new_key());
    let order = order.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = client.target.send(order).await?;
    ensure!(answer.status() == 201, "{answer:?}");
    let seen = customer.must_get(&format!("/trace/{trace}")).await?;
    for service in ["gateway", "orders", "catalogue", "pricing", "payments"] {
        let spans = seen["spans"].as_array().into_iter().flatten();
        ensure!(spans.filter(|it| it["service"] == service).count() >= 1, "{service}: {seen}");
    }
    Ok(())
}

async fn the_services_recover_when_one_was_away() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    services.child(Module::Pricing)?.kill().await?;
    // Enough to open the breaker.
    for _ in 0..8 {
        let answer = customer.get("/products/1").await?;
        ensure!(answer.status() == 503, "{answer:?}");
        ensure!(answer.headers().contains_key("retry-after"), "{answer:?}");
    }
    services.child(Module::Pricing)?.restart().await?;
    eventually("pages are shown again", async || {
        Ok((customer.get("/products/1").await?.status() == 200).then_some(()))
    })
    .await
}

async fn a_service_that_resets_every_connection_is_missing_and_no_more() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let setup = Setup { proxied: &[Module::Recommendations], ..Setup::default() };
    let services = fixture.services(&setup).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    services.network(Module::Recommendations)?.set(Fault::Cut);
    let page = customer.must_get("/products/1").await?;
    ensure!(page["cents"] == 1_001 && page["recommendations"].is_null(), "{page}");
    let topology = customer.must_get("/topology").await?;
    let healthy = topology["modules"].as_array().context("no modules")?.iter();
    let healthy: Vec<_> = healthy.filter(|it| it["healthy"] == true).collect();
    ensure!(healthy.len() == 4, "{topology}");
    services.network(Module::Recommendations)?.heal();
    eventually("all of the page is there again", async || {
        let page = customer.must_get("/products/1").await?;
        Ok(page["recommendations"].is_array().then_some(()))
    })
    .await
}

/// Slowly, so that only the time ends it, on the call itself; and fast when it is asked about itself.
async fn a_service_that_sends_for_ever_is_given_up() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let setup = Setup { time_outs: ["20000", "2000", "2000"], ..Setup::default() };
    let services = fixture.services(&setup).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    let json = [("content-type", "application/json"), ("x-contract", VERSION)];
    let dripping = move || async move {
        let drop = |()| async {
            sleep(Duration::from_millis(50)).await;
            Some((std::io::Result::Ok(" "), ()))
        };
        (json, Body::from_stream(unfold((), drop)))
    };
    let endless = move || async move {
        (json, Body::from_stream(repeat_with(|| std::io::Result::Ok(vec![b' '; 1 << 16]))))
    };
    let router = Router::new()
        .route("/internal/pricing", post(dripping))
        .route("/internal/about", get(endless))
        .route("/internal/spans/{id}", get(endless));
    let wrong = here(router).await?;
    let url = format!("http://{}", wrong.host);
    customer.put("/admin/services/pricing", &json!([url])).await?;
    let answer = customer.get("/products/1").await?;
    ensure!(answer.status() == 503, "{answer:?}");
    let words = answer.text().await?;
    ensure!(words.contains("pricing does not answer in time"), "{words}");
    let topology = customer.must_get("/topology").await?;
    let mut modules = topology["modules"].as_array().into_iter().flatten();
    ensure!(modules.any(|it| it["module"] == "pricing" && it["healthy"] == false), "{topology}");
    let seen = customer.traced("/products/1", new_trace()).await?;
    ensure!(seen["spans"].as_array().is_some_and(|it| !it.is_empty()), "{seen}");
    Ok(())
}

/// Pricing took a second, and says that it began years ago.
async fn a_service_whose_clock_is_wrong_is_found_by_its_durations() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    let price = || async { ([("x-contract", VERSION)], Json(json!({ "cents": 1_001 }))) };
    let spans = || async {
        Json(json!([{
            "id": "00000000000000aa", "parent": "00000000000000bb", "service": "pricing",
            "name": "slow", "at": "1999-12-31T23:59:59Z", "micros": 3_600_000_000_u64,
            "failed": false,
        }]))
    };
    let router = Router::new()
        .route("/internal/pricing", post(price))
        .route("/internal/spans/{id}", get(spans));
    let wrong = here(router).await?;
    customer.put("/admin/services/pricing", &json!([format!("http://{}", wrong.host)])).await?;
    let seen = customer.traced("/products/1", new_trace()).await?;
    ensure!(seen["slowest"]["name"] == "slow", "{seen}");
    let spans = seen["spans"].as_array().context("no spans")?;
    ensure!(spans.iter().any(|it| it["service"] == "gateway"), "{seen}");
    Ok(())
}

/// The orders may take as long as the whole request, and a little of that is spent when they are asked.
async fn a_silent_service_that_may_take_all_the_time_is_given_up_too() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let setup =
        Setup { time_outs: ["400", "400", "400"], proxied: &[Module::Orders], ..Setup::default() };
    let services = fixture.services(&setup).await?;
    let customer = services.customer()?;
    services.network(Module::Orders)?.set(Fault::BlackHole);
    eventually("the orders are not asked any more", async || {
        let answer = customer.get("/orders/00000000-0000-4000-8000-000000000000").await?;
        ensure!(answer.status() == 503, "{answer:?}");
        Ok(answer.text().await?.contains("is not asked for a moment").then_some(()))
    })
    .await
}

/// Products that nobody sells, and thousands of one.
async fn recommendations_that_cannot_be_shown_leave_the_page_as_it_is() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    for (recommended, shown) in [(json!([7, 8]), None), (json!(vec![1; 5_000]), Some(10))] {
        let told = move || async move { ([("x-contract", VERSION)], Json(recommended)) };
        let wrong = here(Router::new().route("/internal/recommendations", post(told))).await?;
        let url = format!("http://{}", wrong.host);
        customer.put("/admin/services/recommendations", &json!([url])).await?;
        let page = customer.must_get("/products/1").await?;
        let seen = page["recommendations"].as_array().map(Vec::len);
        ensure!(page["cents"] == 1_001 && seen == shown, "{page}");
    }
    Ok(())
}

/// 422 is for a key that came with another body, and for nothing else.
async fn a_service_refuses_what_is_not_in_its_contract() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let payments = fixture.service(Module::Payments, false).start().await?;
    let target = Target::new(payments.url(), None)?;
    let charge =
        |cents: i64| json!({ "charge": { "key": new_key(), "customer": 1, "cents": cents } });
    let mut of_another = charge(100);
    let mine = of_another.clone();
    of_another["charge"]["customer"] = json!(2);
    for (question, status) in [
        (mine.clone(), 200_u16),
        (mine, 200),
        (of_another, 422),
        (charge(-1), 409),
        (charge(10_000_001), 409),
        (json!({ "charge": { "cents": 1 } }), 400),
        (json!({ "refund": 1 }), 400),
    ] {
        let post = target.request(Method::POST, "internal/payments").json(&question);
        let answer = target.send(post).await?;
        ensure!(answer.status() == status, "{question}: {answer:?}");
    }
    Ok(())
}

fn new_trace() -> u128 {
    u128::from(new_number().unsigned_abs())
}

async fn pricing_says_the_same_over_grpc() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let pricing = fixture.service(Module::Pricing, false).start().await?;
    let mut client = grpc::Client::to(pricing.url())?;
    let (spans, mut headers) = (Spans::new("test"), HeaderMap::new());
    headers.insert("traceparent", format!("00-{:032x}-00f067aa0ba902b7-01", new_trace()).parse()?);
    let call = Call::receive(&headers, Duration::from_secs(20), &spans)?;
    for (cents, quantity) in [(1_000, 1), (1_000, 3), (33, 3), (1_000, 10), (0, 5), (i64::MAX, 2)] {
        let question = Question { cents, quantity };
        let seen = client.quote(&call, question).await?;
        ensure!(seen == quote(question), "{question:?}: {seen:?}");
    }
    let http = Customer::of(pricing.url())?;
    let spans = http.must_get(&format!("/internal/spans/{:032x}", call.trace.id)).await?;
    ensure!(spans.as_array().is_some_and(|it| it.len() == 6), "{spans}");
    // A call whose time is over: an error, and no answer.
    let late = Call::receive(&HeaderMap::new(), Duration::from_nanos(1), &Spans::new("test"))?;
    ensure!(client.quote(&late, Question { cents: 1, quantity: 1 }).await.is_err());
    Ok(())
}

async fn spans_wait_for_a_collector_that_is_away() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let collector = Collector::default();
    let served = here(collector.router()).await?;
    let network = Proxy::to(&served.host).await?;
    network.set(Fault::Cut);
    let otlp = format!("http://{}", network.address());
    let shop = fixture.monolith().args(&["--otlp", &otlp]).start().await?;
    let customer = Customer::of(shop.url())?;
    customer.fill(1).await?;
    let id = new_trace();
    let seen = customer.traced("/products/1", id).await?;
    let made = seen["spans"].as_array().context("no spans")?.len();
    ensure!(made >= 3, "{seen}");
    sleep(Duration::from_millis(500)).await;
    ensure!(collector.of(id).is_empty());
    network.heal();
    eventually("the collector has the spans of then", async || {
        Ok((collector.of(id).len() == made).then_some(()))
    })
    .await
}

async fn a_service_whose_place_was_not_said_does_not_start() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let started = fixture.service(Module::Orders, false).start().await;
    let words = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(words.contains("--at catalogue=URL"), "{words}");
    Ok(())
}

/// Of each service: it is the right one, it is asked whether it lives and is ready, and may not take all memory; and one of
/// its instances is always there, while the other may be taken away.
async fn the_manifests_have_probes_limits_and_disruption_budgets() -> Outcome {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let list: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("kustomization.yaml"))?)?;
    let compose = fs::read_to_string(folder.join("compose.yaml"))?;
    for file in list["resources"].as_array().context("no resources")? {
        let file = file.as_str().context("no name of a file")?;
        ensure!(folder.join(file).is_file(), "{file} is in the list, and is not there");
    }
    for module in [&Module::SERVICES[..], &[Module::Gateway]].concat() {
        let (name, file) = (module.name(), format!("{}.yaml", module.name()));
        let listed = list["resources"].as_array().context("no resources")?;
        ensure!(listed.contains(&json!(file)), "{file} is not in the list");
        let text = fs::read_to_string(folder.join(&file))?;
        let parts = text.split("\n---\n").map(serde_saphyr::from_str::<Value>);
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let [deployment, service, budget] = &parts[..] else { bail!("{file}: not three parts") };
        let spec = &deployment["spec"];
        let container = &spec["template"]["spec"]["containers"][0];
        let words = container["args"].as_array().context("no args")?;
        ensure!(
            words.windows(2).any(|it| it == [json!("--only"), json!(name)]),
            "{file}: {words:?}"
        );
        for asked in module.asks() {
            let at = json!(format!("{0}=http://{0}:8080", asked.name()));
            ensure!(words.contains(&at), "{file}: {words:?}");
        }
        let only = format!("\"--only\", \"{name}\"");
        let line = compose.lines().find(|line| line.contains(&only));
        let line = line.with_context(|| format!("compose.yaml has no {name}"))?;
        for asked in module.asks() {
            let at = format!("\"{0}=http://{0}:8080\"", asked.name());
            ensure!(line.contains(&at), "compose.yaml: {line}");
        }
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            ensure!(container[probe]["httpGet"]["path"] == path, "{file}: {probe}");
        }
        ensure!(container["resources"]["limits"]["memory"].is_string(), "{file}: no limit");
        ensure!(service["kind"] == "Service" && service["metadata"]["name"] == name, "{file}");
        let labels = &spec["template"]["metadata"]["labels"];
        for selector in [
            &spec["selector"]["matchLabels"],
            &service["spec"]["selector"],
            &budget["spec"]["selector"]["matchLabels"],
        ] {
            ensure!(labels["app"] == name && selector == labels, "{file}: {selector}");
        }
        let (replicas, least) = (&spec["replicas"], &budget["spec"]["minAvailable"]);
        ensure!(replicas.as_u64() > least.as_u64() && least == 1, "{file}: {replicas} and {least}");
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut shop = fixture.monolith().start().await?;
    lives_and_is_ready(&Target::new(shop.url(), None)?).await?;
    let status = shop.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
