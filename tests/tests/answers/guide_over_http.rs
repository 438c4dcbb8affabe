//! Does the guide serve its readers, and nobody else?

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use guide::{
    book::Book, editor::Editor, mode::Mode, program::Programs, reader::Reader, runs::Runs, server,
    shelf::Shelf,
};
use lab::{Answer, serve};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::OnceCell, task::AbortHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{Outcome, eventually, tests};

tests![
    every_question_is_on_the_first_page,
    a_chapter_shows_its_code_and_its_experiments,
    nothing_is_loaded_from_elsewhere,
    an_experiment_is_told_as_it_runs,
    only_one_experiment_runs_at_a_time,
    whoever_goes_away_stops_the_experiment,
    whoever_has_stopped_one_may_run_another_at_once,
    a_guide_on_port_80_is_asked_without_a_port,
    what_was_recorded_is_shown_before_anything_has_run,
    a_result_of_ours_and_one_of_the_readers_stand_side_by_side,
    a_post_from_another_page_is_refused,
    another_host_name_is_refused,
    what_does_not_exist_is_not_found,
    a_parameter_that_is_not_understood_is_refused,
    the_state_of_the_servers_is_shown,
    an_interview_is_begun_on_a_page_and_by_no_other_page,
    a_progress_that_is_broken_is_named_on_the_pages,
    a_progress_goes_to_another_machine,
    a_listing_opens_in_the_readers_editor_and_no_other_file_does,
    a_static_site_shows_the_results_and_runs_nothing,
];

/// A guide on a free port.
pub struct Guide {
    pub url: String,
    serving: AbortHandle,
    /// Where the reader's progress is.
    pub folder: TempDir,
}

impl Guide {
    pub async fn start() -> anyhow::Result<Self> {
        // Tests do not build answers again: this executable contains all of them.
        Self::serve(shelf().await?, guide::answers(), Programs::This, None, None).await
    }

    pub async fn with(answers: Vec<Answer>, programs: Programs) -> anyhow::Result<Self> {
        Self::serve(Arc::new(Shelf::new(answers.clone())?), answers, programs, None, None).await
    }

    /// `port` replaces the port on which the guide believes to listen.
    async fn serve(
        shelf: Arc<Shelf>,
        answers: Vec<Answer>,
        programs: Programs,
        port: Option<u16>,
        editor: Option<Editor>,
    ) -> anyhow::Result<Self> {
        let (listener, url) = serve::bind("127.0.0.1", 0).await?;
        // A reader of its own, so that a test touches nobody's progress.
        let folder = tempfile::tempdir()?;
        let reader = Reader::of(folder.path());
        let reader = editor.into_iter().fold(reader, Reader::with_editor);
        let runs = Runs::new(answers, programs, reader.clone(), CancellationToken::new());
        let router = server::router(shelf, runs, reader, port.or(url.port()).context("a port")?);
        let serving = tokio::spawn(serve::serve(listener, router, std::future::pending()));
        let url = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, serving: serving.abort_handle(), folder })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(reqwest::get(format!("{}/{path}", self.url)).await?)
    }

    /// A run as the guide's own page asks for it.
    pub fn run(&self, experiment: &str, params: &Value) -> RequestBuilder {
        self.post(experiment, params).header("origin", &self.url)
    }

    fn post(&self, experiment: &str, params: &Value) -> RequestBuilder {
        let url = format!("{}/api/experiments/url-shortener/{experiment}", self.url);
        Client::new().post(url).json(params)
    }
}

/// The book of all answers, made once for all tests.
async fn shelf() -> anyhow::Result<Arc<Shelf>> {
    static SHELF: OnceCell<Arc<Shelf>> = OnceCell::const_new();
    let made = SHELF.get_or_try_init(async || anyhow::Ok(Arc::new(Shelf::new(guide::answers())?)));
    Ok(Arc::clone(made.await?))
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
    let answers = guide::answers();
    let others = guide::questions::others(&answers).len();
    ensure!(page.matches("not written yet").count() == 18 - (answers.len() - others));
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
    let words = problem["detail"].as_str().context("no detail")?;
    ensure!(words.contains("url-shortener expiry is running"), "{words}");
    let expiry = json!({ "answer": "url-shortener", "experiment": "expiry" });
    ensure!(problem["running"] == expiry, "{problem}");
    let running: Value = guide.get("api/running").await?.json().await?;
    ensure!(running == expiry, "{running}");
    drop(first);
    eventually("nothing runs any more", async || {
        let running: Value = guide.get("api/running").await?.json().await?;
        Ok(running.is_null().then_some(()))
    })
    .await
}

async fn whoever_has_stopped_one_may_run_another_at_once() -> Outcome {
    let guide = Guide::start().await?;
    let mut first =
        guide.run("expiry", &json!({ "links": 1, "seconds": 30 })).send().await?.bytes_stream();
    first.next().await.context("it told nothing")??;
    drop(first);
    eventually("the guide has seen that the page is gone", async || {
        let status = guide.run("race", &quick()).send().await?.status();
        ensure!(status == 200 || status == 409, "{status}");
        Ok((status == 200).then_some(()))
    })
    .await
}

async fn a_guide_on_port_80_is_asked_without_a_port() -> Outcome {
    // Only root may listen on port 80, so the guide only believes that it does.
    let guide =
        Guide::serve(shelf().await?, guide::answers(), Programs::This, Some(80), None).await?;
    let page = |host: &'static str| Client::new().get(&guide.url).header("host", host).send();
    for host in ["127.0.0.1", "localhost", "127.0.0.1:80"] {
        ensure!(page(host).await?.status() == 200, "{host} is refused");
    }
    for host in ["evil.example", "127.0.0.1:8000", "localhost.evil.example"] {
        ensure!(page(host).await?.status() == 403, "{host} is not refused");
    }
    let run = guide.post("race", &quick()).header("host", "localhost");
    let run = run.header("origin", "http://localhost").send().await?;
    ensure!(run.status() == 200, "a run: {}", run.status());
    Ok(())
}

async fn whoever_goes_away_stops_the_experiment() -> Outcome {
    let guide = Guide::start().await?;
    let mut first =
        guide.run("expiry", &json!({ "links": 1, "seconds": 30 })).send().await?.bytes_stream();
    first.next().await.context("it told nothing")??;
    drop(first);
    // The next one gets its turn long before the thirty seconds are over.
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
        // One of our names, but not the one in `Host`.
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

async fn what_was_recorded_is_shown_before_anything_has_run() -> Outcome {
    for answer in guide::answers() {
        // As on a fresh clone: the static site does not contain the reader's results.
        let book = Book::build(vec![answer.clone()])?;
        let page = book.file(&format!("{}.html", answer.name), Mode::Static).context("no page")?;
        let page = String::from_utf8(page)?;
        let ours = page.matches("<div class=\"ours\"><p class=\"verdict held\"").count();
        ensure!(ours == answer.experiments.len(), "{}: {ours}", answer.name);
        ensure!(!page.contains("Not run yet"), "{}", answer.name);
    }
    Ok(())
}

async fn a_result_of_ours_and_one_of_the_readers_stand_side_by_side() -> Outcome {
    let guide = Guide::start().await?;
    let sharding = json!({ "codes": 2000, "links": 20, "shards": 2 });
    let told = guide.run("sharding", &sharding).send().await?.text().await?;
    ensure!(told.contains("Ours") && told.contains("Yours"), "{told}");
    let page = guide.get("url-shortener.html").await?.text().await?;
    let experiment = element(&page, "sharding")?;
    ensure!(experiment.contains("<th>Ours</th><th>Yours</th>"), "{experiment}");
    let verdicts = experiment.split("<tr class=\"verdicts\">").nth(1).context("no verdicts")?;
    let verdicts = verdicts.split("</tr>").next().unwrap_or_default();
    ensure!(verdicts.matches("<td class=\"held\">Held, ").count() == 2, "{verdicts}");
    Ok(())
}

/// An experiment as it is on a page.
pub fn element<'a>(page: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let start = format!("<live-experiment answer=\"url-shortener\" name=\"{name}\">");
    let rest = page.split_once(&start).with_context(|| format!("{name} is not on the page"))?.1;
    Ok(rest.split("</live-experiment>").next().unwrap_or_default())
}

async fn an_interview_is_begun_on_a_page_and_by_no_other_page() -> Outcome {
    let guide = Guide::start().await?;
    let begin = |origin: &str| {
        let form = "action=begin&question=url-shortener";
        Client::new().post(format!("{}/interview", guide.url)).header("origin", origin).body(form)
    };
    for origin in ["null", "https://evil.example"] {
        ensure!(begin(origin).send().await?.status() == StatusCode::FORBIDDEN, "{origin}");
    }
    let page = guide.get("interview.html").await?.text().await?;
    ensure!(page.contains("What shall I ask?") && !page.contains("interview-clock"), "{page}");
    // The answer to the form leads to the page.
    let page = begin(&guide.url).send().await?.text().await?;
    ensure!(page.contains("Design a service like bit.ly"), "{page}");
    ensure!(page.contains("clarify, 5:00 left") || page.contains("clarify, 4:"), "no clock");
    ensure!(!page.contains("<mock-interview></mock-interview>"));
    let home = guide.get("").await?.text().await?;
    ensure!(home.contains("Go on with your interview"), "{home}");
    let export = guide.get("interview/export.md").await?.text().await?;
    ensure!(export.starts_with("# My mock interviews"), "{export}");
    Ok(())
}

async fn a_progress_that_is_broken_is_named_on_the_pages() -> Outcome {
    let guide = Guide::start().await?;
    let folder = guide.folder.path().join(".progress");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("progress.json"), "{")?;
    for path in ["", "interview.html", "quiz.html", "stories.html"] {
        let page = guide.get(path).await?.text().await?;
        ensure!(page.contains("It is left as it is"), "{path}: {page}");
    }
    let chapter = guide.get("url-shortener.html").await?;
    ensure!(chapter.status() == 200, "a chapter needs no progress");
    ensure!(std::fs::read_to_string(folder.join("progress.json"))? == "{");
    Ok(())
}

async fn a_progress_goes_to_another_machine() -> Outcome {
    let (one, other) = (Guide::start().await?, Guide::start().await?);
    let post = |guide: &Guide, path: &str, body: String| {
        Client::new().post(format!("{}/{path}", guide.url)).header("origin", &guide.url).body(body)
    };
    let read = post(&one, "api/read/url-shortener", String::new()).send().await?;
    ensure!(read.status() == StatusCode::NO_CONTENT, "{}", read.status());
    let text = one.get("progress/export.json").await?.text().await?;
    let bad = post(&other, "progress/import", "{}".to_owned()).send().await?;
    ensure!(bad.status() == StatusCode::UNPROCESSABLE_ENTITY, "{}", bad.status());
    let long = post(&other, "progress/import", " ".repeat(2_000_001)).send().await?;
    ensure!(long.status() == StatusCode::PAYLOAD_TOO_LARGE, "{}", long.status());
    let long: Value = long.json().await?;
    ensure!(long["detail"] == "this is too long: the guide takes 2 MB at once", "{long}");
    let done: Value = post(&other, "progress/import", text.clone()).send().await?.json().await?;
    ensure!(done["detail"] == "0 interviews, 0 of them new.", "{done}");
    ensure!(other.get("progress/export.json").await?.text().await? == text);
    // What a page of `guide build` writes is read too.
    let small = json!({ "version": 1, "read": ["jwt-auth"] }).to_string();
    ensure!(post(&other, "progress/import", small).send().await?.status() == StatusCode::OK);
    let text = other.get("progress/export.json").await?.text().await?;
    ensure!(text.contains("\"jwt-auth\"") && text.contains("\"url-shortener\""), "{text}");
    Ok(())
}

async fn a_listing_opens_in_the_readers_editor_and_no_other_file_does() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (editor, said) = (folder.path().join("zed"), folder.path().join("said"));
    // A shell in an editor's place, which writes down what it is told.
    std::os::unix::fs::symlink("/bin/sh", &editor)?;
    let variable = format!("{} -c echo${{IFS}}$0>{}", editor.display(), said.display());
    let editor = Editor::parse(&variable).context("no editor")?;
    let guide =
        Guide::serve(shelf().await?, guide::answers(), Programs::This, None, Some(editor)).await?;
    let page = guide.get("url-shortener.html").await?.text().await?;
    ensure!(page.contains("Open in zed"), "no button");
    let open = |path: &str| {
        let place = json!({ "path": path, "line": 7 });
        Client::new().post(format!("{}/api/open", guide.url)).json(&place)
    };
    let file = "crates/url-shortener/src/code.rs";
    ensure!(open(file).send().await?.status() == StatusCode::FORBIDDEN, "another page opens it");
    for other in ["Cargo.toml", "../../etc/passwd", "/etc/passwd", "crates/edge/Cargo.toml"] {
        let status = open(other).header("origin", &guide.url).send().await?.status();
        ensure!(status == StatusCode::NOT_FOUND, "{other}: {status}");
    }
    let status = open(file).header("origin", &guide.url).send().await?.status();
    ensure!(status == StatusCode::NO_CONTENT, "{status}");
    let told = eventually("the editor was told", async || {
        let said = std::fs::read_to_string(&said).unwrap_or_default();
        Ok(said.ends_with('\n').then_some(said))
    })
    .await?;
    ensure!(told.trim_end() == format!("{}:7", lab::stack::workspace().join(file).display()));
    // Without an editor that has a window, there is neither button nor answer.
    let guide = Guide::start().await?;
    ensure!(!guide.get("url-shortener.html").await?.text().await?.contains("open-editor"));
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
    ensure!(page.contains("cargo run -- url-shortener experiment race"));
    Ok(())
}
