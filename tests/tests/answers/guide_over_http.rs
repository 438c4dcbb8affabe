//! Does the guide serve its readers, and nobody else?

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use guide::{book::Book, runs::Runs, server};
use lab::serve;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Outcome, eventually, tests};

tests![
    every_question_is_on_the_first_page,
    a_chapter_shows_its_code_and_its_experiments,
    nothing_is_loaded_from_elsewhere,
    an_experiment_is_told_as_it_runs,
    only_one_experiment_runs_at_a_time,
    whoever_goes_away_stops_the_experiment,
    a_post_from_another_page_is_refused,
    another_host_name_is_refused,
    what_does_not_exist_is_not_found,
    a_parameter_that_is_not_understood_is_refused,
    the_state_of_the_servers_is_shown,
    a_static_site_shows_the_results_and_runs_nothing,
];

/// A guide on a free port.
pub struct Guide {
    pub url: String,
    serving: AbortHandle,
}

impl Guide {
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, url) = serve::bind("127.0.0.1", 0).await?;
        let book = Arc::new(Book::build(guide::answers())?);
        let runs = Runs::new(guide::answers(), CancellationToken::new());
        let router = server::router(book, runs, url.port().context("a port")?);
        let serving = tokio::spawn(serve::serve(listener, router, std::future::pending()));
        let url = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, serving: serving.abort_handle() })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(reqwest::get(format!("{}/{path}", self.url)).await?)
    }

    /// A run as the guide's own page asks for it.
    fn run(&self, experiment: &str, params: &Value) -> RequestBuilder {
        self.post(experiment, params).header("origin", &self.url)
    }

    fn post(&self, experiment: &str, params: &Value) -> RequestBuilder {
        let url = format!("{}/api/experiments/url-shortener/{experiment}", self.url);
        Client::new().post(url).json(params)
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn quick() -> Value {
    json!({ "clients": "5", "rounds": 1 })
}

async fn every_question_is_on_the_first_page() -> Outcome {
    let page = Guide::start().await?.get("").await?.text().await?;
    ensure!(guide::questions::QUESTIONS.len() == 18);
    for question in guide::questions::QUESTIONS {
        ensure!(page.contains(question.title), "{} is missing", question.title);
    }
    ensure!(page.matches("not written yet").count() == 18 - guide::answers().len());
    ensure!(page.contains("href=\"url-shortener.html\""));
    Ok(())
}

async fn a_chapter_shows_its_code_and_its_experiments() -> Outcome {
    let page = Guide::start().await?.get("url-shortener.html").await?.text().await?;
    ensure!(page.contains("pub fn crc32_code"), "the code is missing");
    ensure!(!page.contains("ANCHOR"), "a mark is shown");
    let answers = guide::answers();
    let shortener = answers.iter().find(|answer| answer.name == "url-shortener");
    for experiment in &shortener.context("no shortener")?.experiments {
        ensure!(
            page.contains(&format!("<h3 id=\"url-shortener-{}\">", experiment.name)),
            "{}",
            experiment.name
        );
        for param in experiment.params() {
            ensure!(page.contains(&format!("name=\"{}\"", param.name)), "{}", param.name);
        }
    }
    Ok(())
}

async fn nothing_is_loaded_from_elsewhere() -> Outcome {
    let response = Guide::start().await?.get("url-shortener.html").await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let policy = header("content-security-policy").context("no policy")?.to_owned();
    ensure!(policy.contains("default-src 'self'"), "{policy}");
    let scripts = policy.split(';').find(|part| part.contains("script-src")).context("scripts")?;
    ensure!(!scripts.contains("unsafe"), "{scripts}");
    ensure!(header("x-content-type-options") == Some("nosniff"));
    ensure!(header("x-frame-options") == Some("SAMEORIGIN"));
    Ok(())
}

async fn an_experiment_is_told_as_it_runs() -> Outcome {
    let guide = Guide::start().await?;
    let response = guide.run("race", &quick()).send().await?;
    ensure!(response.status() == 200);
    ensure!(response.headers()["content-type"] == "text/event-stream");
    let text = response.text().await?;
    let events: Vec<_> = text.split("\n\n").filter(|event| event.contains("data:")).collect();
    let last = events.last().context("no event")?;
    ensure!(events.iter().any(|event| event.contains("event: progress")), "{text}");
    ensure!(events.iter().filter(|event| event.contains("\"slot\":\"checks\"")).count() == 4);
    ensure!(last.contains("event: report") && last.contains("\"held\":true"), "{last}");
    Ok(())
}

async fn only_one_experiment_runs_at_a_time() -> Outcome {
    let guide = Guide::start().await?;
    let first = guide.run("expiry", &json!({ "links": 1, "seconds": 30 })).send().await?;
    ensure!(first.status() == 200);
    let second = guide.run("race", &quick()).send().await?;
    ensure!(second.status() == 409, "{}", second.status());
    let problem: Value = second.json().await?;
    ensure!(problem["detail"].as_str().is_some_and(|words| words.contains("running")));
    Ok(())
}

async fn whoever_goes_away_stops_the_experiment() -> Outcome {
    let guide = Guide::start().await?;
    let mut first =
        guide.run("expiry", &json!({ "links": 1, "seconds": 30 })).send().await?.bytes_stream();
    first.next().await.context("it told nothing")??;
    drop(first);
    // Long before the thirty seconds are over, the next one has its turn.
    let response = tokio::time::timeout(
        Duration::from_secs(15),
        eventually("the run has ended with its page", async || {
            let response = guide.run("race", &quick()).send().await?;
            Ok((response.status() == 200).then_some(response))
        }),
    )
    .await??;
    ensure!(response.text().await?.contains("\"held\":true"));
    Ok(())
}

async fn a_post_from_another_page_is_refused() -> Outcome {
    let guide = Guide::start().await?;
    let port = guide.url.rsplit(':').next().unwrap_or_default();
    let refused = [
        guide.post("race", &quick()),
        guide.post("race", &quick()).header("origin", "https://evil.example"),
        guide.post("race", &quick()).header("origin", "null"),
        guide.post("race", &quick()).header("origin", format!("http://127.0.0.1:{port}0")),
        guide.post("race", &quick()).header("origin", format!("https://127.0.0.1:{port}")),
        // One of our names, and not the one that was asked.
        guide.post("race", &quick()).header("origin", format!("http://localhost:{port}")),
    ];
    for request in refused {
        let status = request.send().await?.status();
        ensure!(status == StatusCode::FORBIDDEN, "{status}");
    }
    Ok(())
}

async fn another_host_name_is_refused() -> Outcome {
    let guide = Guide::start().await?;
    for host in ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:8000"] {
        for path in ["", "url-shortener.html", "api/stack"] {
            let request = Client::new().get(format!("{}/{path}", guide.url)).header("host", host);
            let status = request.send().await?.status();
            ensure!(status == StatusCode::FORBIDDEN, "{host} {path}: {status}");
        }
        let request = guide.run("race", &quick()).header("host", host);
        let request = request.header("origin", format!("http://{host}"));
        ensure!(request.send().await?.status() == StatusCode::FORBIDDEN);
    }
    Ok(())
}

async fn what_does_not_exist_is_not_found() -> Outcome {
    let guide = Guide::start().await?;
    for path in ["nothing.html", "../Cargo.toml", "%2e%2e/Cargo.toml", "api/nothing", "."] {
        let response = guide.get(path).await?;
        ensure!(response.status() == 404 || path == ".", "{path}: {}", response.status());
    }
    ensure!(guide.run("nothing", &json!({})).send().await?.status() == 404);
    Ok(())
}

async fn a_parameter_that_is_not_understood_is_refused() -> Outcome {
    let guide = Guide::start().await?;
    for params in [
        json!({ "clients": "many" }),
        json!({ "clients": -1 }),
        json!({ "clients": 0 }),
        json!({ "clients": 1_000_000 }),
        json!({ "clients": [1] }),
        json!({ "nothing": "1" }),
        json!({ "help": true }),
        json!({ "": "" }),
        json!({ "clients=5 --rounds": "1" }),
    ] {
        let response = guide.run("race", &params).send().await?;
        ensure!(response.status() == 422, "{params}: {}", response.status());
        let problem: Value = response.json().await?;
        ensure!(problem["detail"].as_str().is_some_and(|words| !words.is_empty()), "{problem}");
    }
    for seconds in ["-1", "0", "NaN", "inf", "1e9", "soon"] {
        let response = guide.run("redirects", &json!({ "seconds": seconds })).send().await?;
        ensure!(response.status() == 422, "{seconds}: {}", response.status());
    }
    Ok(())
}

async fn the_state_of_the_servers_is_shown() -> Outcome {
    let servers: Value = Guide::start().await?.get("api/stack").await?.json().await?;
    let servers = servers.as_array().context("an array")?;
    ensure!(servers.len() == 3);
    for server in servers {
        ensure!(
            ["running", "stopped", "missing"].contains(&server["state"].as_str().unwrap_or(""))
        );
        let address = server["address"].as_str().context("no address")?;
        // A given URL may have a user and no password.
        let url = url::Url::parse(address).ok();
        let password = url.as_ref().and_then(url::Url::password);
        ensure!(password.is_none_or(|it| it == "%E2%80%A6"), "a password: {address}");
    }
    Ok(())
}

async fn a_static_site_shows_the_results_and_runs_nothing() -> Outcome {
    let folder = std::env::temp_dir().join(format!("guide-site-{}", std::process::id()));
    guide::site::write(&Book::build(guide::answers())?, &folder)?;
    let page = std::fs::read_to_string(folder.join("url-shortener.html"))?;
    let files = std::fs::read_dir(&folder)?.count();
    std::fs::remove_dir_all(&folder)?;
    ensure!(files > 10);
    ensure!(page.contains("<live-experiment") && !page.contains("<form hidden>"), "it has a form");
    ensure!(page.contains("cargo run -p url-shortener -- experiment race"));
    Ok(())
}
