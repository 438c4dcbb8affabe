//! Does the service do what its table of calls (`conform`) cannot try? It also runs the experiments, with quick parameters,
//! and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::{
    run::{Tried, run as try_cases},
    target::Target,
};
use containerized_app::{
    cases,
    experiments::{fixture::until_ready, manifests, python::Python},
    whiteboard,
};
use lab::{
    child::Child,
    harness::{Outcome, Served, eventually, run},
    port, skip,
};
use serde_json::json;

const NAME: &str = "containerized-app";

fn main() -> ExitCode {
    run(containerized_app::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    Ok(Served::new(Child::serve(NAME).start().await?, ()))
}

lab::tests![
    it_answers_what_is_in_flight_and_says_that_it_is_not_ready_meanwhile,
    a_backend_that_is_not_an_address_is_told_at_the_start,
    the_textbooks_dockerfile_is_the_one_on_the_whiteboard,
    the_flask_app_answers_as_the_table_of_calls_says,
    the_manifests_name_the_ports_and_the_paths_that_the_app_has,
];

async fn it_answers_what_is_in_flight_and_says_that_it_is_not_ready_meanwhile() -> Outcome {
    let mut child = Child::serve(NAME).args(&["--linger-ms", "2000"]).start().await?;
    let (url, client) = (child.url().to_owned(), reqwest::Client::builder().no_proxy().build()?);
    let body = json!({ "name": "report", "milliseconds": 1_000 });
    let job = tokio::spawn(client.post(format!("{url}/jobs")).json(&body).send());
    eventually("the job is in flight", async || {
        let page = client.get(format!("{url}/metrics")).send().await?.text().await?;
        Ok(page.contains("\njobs_in_flight 1\n").then_some(()))
    })
    .await?;
    let not_ready = async {
        eventually("it is not ready any more", async || {
            let status = client.get(format!("{url}/readyz")).send().await?.status();
            Ok((status == 503).then_some(()))
        })
        .await?;
        // Alive all the same: a liveness that fails would have it killed while it drains.
        let alive = client.get(format!("{url}/healthz")).send().await?.status();
        ensure!(alive == 200, "{alive}");
        anyhow::Ok(())
    };
    let (status, ()) = tokio::try_join!(child.stop(), not_ready)?;
    ensure!(status.success(), "{status}: {}", child.log());
    let answer = job.await??.status();
    ensure!(answer == 200, "{answer}");
    Ok(())
}

async fn a_backend_that_is_not_an_address_is_told_at_the_start() -> Outcome {
    let started = Child::serve(NAME).args(&["--backend", "redis"]).start().await;
    let error = started.map_or_else(|error| format!("{error:#}"), |_| "it starts".to_owned());
    ensure!(error.contains("write HOST:PORT"), "{error}");
    Ok(())
}

async fn the_textbooks_dockerfile_is_the_one_on_the_whiteboard() -> Outcome {
    let file = include_str!("../Dockerfile.textbook");
    ensure!(file == whiteboard::DOCKERFILE, "{file}");
    Ok(())
}

async fn the_flask_app_answers_as_the_table_of_calls_says() -> Outcome {
    let python = Python::with_packages().await.map_err(|error| skip(format!("{error:#}")))?;
    let port = port::free()?;
    let _server = python.serve(&["-m", "gunicorn", "app:app"], port)?;
    let host = format!("127.0.0.1:{port}");
    until_ready(&host).await?;
    let target = Target::new(&format!("http://{host}"), None)?;
    let all = Tried { load: true, restart: false };
    let results = try_cases(&cases::suite().cases, &target, all, |_| {}).await?;
    let wrong =
        results.iter().filter_map(|it| Some(format!("{}: {}", it.case, it.wrong.as_ref()?)));
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn the_manifests_name_the_ports_and_the_paths_that_the_app_has() -> Outcome {
    let (dockerfile, app) = (include_str!("../Dockerfile"), include_str!("../app/app.py"));
    let text = serde_json::to_string(&manifests::ours()?)?;
    for path in ["/healthz", "/readyz"] {
        ensure!(text.contains(&format!("{path:?}")) && app.contains(path), "{path}");
    }
    ensure!(text.contains(r#""containerPort":5000"#) && dockerfile.contains("EXPOSE 5000"));
    Ok(())
}
