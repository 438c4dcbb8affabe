//! What needs the answer's own options, a fault or a look inside. It also runs the experiments, with quick parameters, and
//! the cases.

use std::{fs, process::ExitCode};

use anyhow::{Context, bail, ensure};
use conform::http::lives_and_is_ready;
use conform::target::Target;
use lab::{
    fault::Fault,
    harness::{Outcome, Served, eventually, run},
};
use microservices::{
    cases::client::{Client, new_key, new_number},
    experiments::compare::contract::{broken, interactions},
    experiments::fixture::{Fixture, Setup},
    module::Module,
};
use serde_json::{Value, json};

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
    a_service_whose_place_was_not_said_does_not_start,
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
        let found = broken(provider, &services.url(provider)).await?;
        ensure!(found.is_empty(), "{provider:?}: {found:#?}");
    }
    ensure!(interactions().len() >= 5);
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
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            ensure!(container[probe]["httpGet"]["path"] == path, "{file}: {probe}");
        }
        ensure!(container["resources"]["limits"]["memory"].is_string(), "{file}: no limit");
        ensure!(service["kind"] == "Service" && service["metadata"]["name"] == name, "{file}");
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
