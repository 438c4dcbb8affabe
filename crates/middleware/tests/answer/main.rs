//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::expect::{json_of, list};
use conform::http::{header, lives_and_is_ready, problem};
use conform::run::Tried;
use conform::target::Target;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
};
use middleware::experiments::fixture::{ADA, Fixture, ours, written};
use reqwest::{Method, RequestBuilder};

fn main() -> ExitCode {
    run(middleware::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    a_database_that_is_away_is_told_and_the_next_request_works,
    a_note_is_nobody_elses,
    the_other_two_forms_pass_the_same_cases,
    any_order_and_any_part_of_it_starts,
    an_options_that_is_no_preflight_meets_the_router,
    an_id_that_ends_like_a_picture_is_found,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let target = Target::new(child.url(), None)?;
    let ask = async |path: &str| {
        target.send(target.request(Method::GET, path).header("authorization", ADA)).await
    };
    ensure!(ask("notes").await?.status() == 200);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in ["notes", "readyz"] {
            let response = ask(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(ask("healthz").await?.status() == 200);
        proxy.heal();
        ensure!(ask("notes").await?.status() == 200, "after {fault:?}");
    }
    Ok(())
}

async fn a_note_is_nobody_elses() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(&["--key", "ada=a", "--key", "bob=b"]).await?;
    let ask = async |method: Method, path: &str, key: &str| {
        let request = target.request(method, path).bearer_auth(key);
        target.send(request.json(&serde_json::json!({ "text": "of Ada" }))).await
    };
    let created = ask(Method::POST, "notes", "a").await?;
    let path = header(&created, "location").to_owned();
    problem(ask(Method::GET, &path, "b").await?, 404).await?;
    ensure!(ask(Method::DELETE, &path, "b").await?.status() == 204);
    ensure!(ask(Method::GET, &path, "a").await?.status() == 200, "Bob has deleted Ada's note");
    let list = ask(Method::GET, "notes", "b").await?.text().await?;
    ensure!(!list.contains("of Ada"), "{list}");
    Ok(())
}

async fn the_other_two_forms_pass_the_same_cases() -> Outcome {
    let suite = middleware::answer().suite;
    let tried = Tried { load: false, restart: false };
    let pass = async |form| {
        let fixture = Fixture::fresh().await?;
        let (_child, target) = fixture.start(&["--form", form, "--timeout", "1000"]).await?;
        for result in conform::run::run(&suite.cases, &target, tried, |_| {}).await? {
            ensure!(result.wrong.is_none(), "{form}: {}: {:?}", result.case, result.wrong);
        }
        Ok(())
    };
    tokio::try_join!(pass("from-fn"), pass("library")).map(drop)
}

async fn any_order_and_any_part_of_it_starts() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut backwards = ours();
    backwards.reverse();
    for (stack, warnings) in
        [(written(&backwards), 32), ("cors".into(), 3), ("auth,catch-panic".into(), 1)]
    {
        let (_child, target) = fixture.start(&["--stack", &stack]).await?;
        ensure!(target.get("healthz").await?.status() == 200, "{stack}");
        let seen = json_of(target.get("stack").await?, 200).await?;
        ensure!(list(&seen, "warnings")?.len() == warnings, "{stack}: {seen}");
    }
    ensure!(
        fixture.start(&["--stack", "auth,cors,auth"]).await.is_err(),
        "auth stands there twice"
    );
    // Nothing at all: the bare handlers.
    let (_child, target) = fixture.start(&["--stack"]).await?;
    let answer = target.get("notes").await?;
    ensure!(answer.status() == 200 && header(&answer, "x-request-id").is_empty(), "{answer:?}");
    Ok(())
}

async fn an_options_that_is_no_preflight_meets_the_router() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(&[]).await?;
    let origin = ("origin", "http://a.example");
    let asks = ("access-control-request-method", "GET");
    for headers in [&[][..], &[origin], &[asks]] {
        for (path, expected) in [("nothing", 404), ("slow", 405), ("notes", 401)] {
            let request = target.request(Method::OPTIONS, path);
            let with = |request: RequestBuilder, (name, value)| request.header(name, value);
            let request = headers.iter().copied().fold(request, with);
            problem(target.send(request).await?, expected).await?;
        }
    }
    let request = target.request(Method::OPTIONS, "nothing").header(origin.0, origin.1);
    let answer = target.send(request.header(asks.0, asks.1)).await?;
    ensure!(answer.status() == 200 && header(&answer, "access-control-max-age") == "3600");
    Ok(())
}

async fn an_id_that_ends_like_a_picture_is_found() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(&[]).await?;
    for id in ["a.svg", "b"] {
        let request = target.request(Method::GET, "healthz").header("x-request-id", id);
        target.send(request).await?;
        let way = json_of(target.get(&format!("stack/{id}")).await?, 200).await?;
        ensure!(way["request_id"] == id, "{way}");
        let drawn = target.get(&format!("stack/{id}.svg")).await?;
        ensure!(header(&drawn, "content-type") == "image/svg+xml", "{drawn:?}");
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
