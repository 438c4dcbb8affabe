//! What may a page of another origin read? A real browser asks, and says what it was not allowed to see.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header::SET_COOKIE},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use conform::target::{Target, within};
use lab::{Experiment, Lab, Sabotage, serve::here, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    compare::cookies::{self, SESSION},
    fixture::{Fixture, NOBODY},
};
use crate::cases::client::{ADA, Client, new_word};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds that the browser may take
    #[arg(long, default_value_t = 60.0, value_parser = lab::experiment::seconds)]
    patience: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cors",
        "In a real browser, a page of the listed origin reads answers and no other page does, while the server does what other \
         pages ask all the same, and a program that is no browser reads everything; a service that reflects the origin lets \
         every page read with the user's cookie",
        &["--patience", "60"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: ".allow_origin(origins)",
        with: ".allow_origin(tower_http::cors::AllowOrigin::predicate(move |_, _| !origins.is_empty()))",
        check: "answers that a page of another origin read",
    })
}

/// Whose page it is: of the origin that is listed, of another, or of none, since its frame is a sandbox.
const PAGES: [&str; 3] = ["listed", "other", "null"];

/// The ways to configure it; whether the listed page and another one read with the cookie of their user; and which of the
/// three read from a service that asks for none. Whether a page of no origin has the cookie is the browser's decision.
const READ: [(&str, [bool; 2], [bool; 3]); 5] = [
    ("says nothing", [false, false], [false, false, false]),
    ("has a list", [true, false], [true, false, false]),
    ("reflects the origin", [true, true], [true, true, true]),
    ("allows null", [false, false], [false, false, true]),
    ("allows *", [false, false], [true, true, true]),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let Some(browser) = browser() else {
        return Err(skip("no Chromium is installed: `apt-get install chromium` brings it"));
    };
    let fixture = Fixture::of(&lab).await?;
    let reports = Reports::default();
    let (own, other) = (here(pages(&reports)).await?, here(pages(&reports)).await?);
    let origin = format!("http://{}", own.host);
    let child = fixture.serve().args(&["--allow-origin", &origin, "--webhook-allow", NOBODY]);
    let child = child.env("RUST_LOG", "info").start().await?;
    let target = Target::new(child.url(), None)?;
    let ada = Client::login(&target, ADA).await?;
    let word = new_word();
    ada.invoice(&word).await?;
    let mut tries = vec![
        json!({ "name": "invoices", "url": format!("{}/invoices", child.url()), "init": {
            "headers": { "authorization": format!("Bearer {}", ada.token.as_deref().unwrap_or_default()) },
        } }),
        // No browser asks before it sends this: it could have come from a form.
        json!({ "name": "form", "url": format!("{}/login", child.url()), "init": {
            "method": "POST", "headers": { "content-type": "text/plain" }, "body": "{}",
        } }),
    ];
    let mut services = Vec::new();
    for (name, cors) in cookies::ways(&HeaderValue::from_str(&origin)?) {
        let service = here(cookies::calls(&word, cors)).await?;
        for (path, credentials) in [("private", "include"), ("inside", "omit")] {
            let url = format!("http://{}/{path}", service.host);
            let (name, init) = (format!("{name}, {path}"), json!({ "credentials": credentials }));
            tries.push(json!({ "name": name, "url": url, "init": init }));
        }
        services.push(service);
    }
    reports.prepare(tries, &own.host, &other.host);
    lab.progress(0, 1, "a browser opens three pages");
    let folder = tempfile::tempdir()?;
    let url = format!("http://{}/", other.host);
    let mut browser = open(browser, folder.path(), &url)?;
    // Without a report, the checks say so.
    let _ = within(Duration::from_secs_f64(params.patience), "three reports", async || {
        Ok((reports.seen().len() == PAGES.len()).then_some(()))
    })
    .await;
    close(&mut browser).await?;
    let seen = reports.seen();
    if seen.is_empty() {
        return Err(skip("the Chromium that is installed opened no page"));
    }
    let words = |page: &str, name: &str| {
        seen.get(page).and_then(|seen| seen[name].as_str()).unwrap_or("no report").to_owned()
    };
    lab.check_eq("pages that reported what they read", PAGES.len(), seen.len());
    let read = |page: &str, name: &str| words(page, name).contains(&word);
    lab.check_eq(
        "the page of the listed origin reads the invoices",
        true,
        read("listed", "invoices"),
    );
    let others = PAGES[1..].iter().filter(|page| read(page, "invoices")).count();
    lab.check_eq("answers that a page of another origin read", 0, others);
    // The server has the request, and the browser keeps the answer from the page.
    let blocked = PAGES[1..].iter().filter(|page| words(page, "form") == "blocked").count();
    let came = || {
        let log = child.log();
        log.lines().filter(|line| line.contains("/login") && line.contains("415")).count()
    };
    // Another task reads the lines of the log.
    let _ = within(Duration::from_secs(5), "three lines in the log", async || {
        Ok((came() == PAGES.len()).then_some(()))
    })
    .await;
    let came = came();
    let check =
        "requests of pages that came to the server, though two of three could not read the answer";
    lab.check_eq(check, "3, 2".to_owned(), format!("{came}, {blocked}"));
    let answer = ada.get("invoices").await?.text().await?;
    lab.check_eq("a program that is no browser reads the invoices", true, answer.contains(&word));
    ways(&lab, &words, &word);
    Ok(())
}

/// What the pages read of a service, by how it is configured.
fn ways(lab: &Lab, words: &impl Fn(&str, &str) -> String, word: &str) {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (name, with_cookie, inside) in READ {
        for (path, expected) in [("private", &with_cookie[..]), ("inside", &inside[..])] {
            let seen = PAGES.map(|page| words(page, &format!("{name}, {path}")));
            for ((page, text), expected) in PAGES.iter().zip(&seen).zip(expected) {
                if text.contains(word) != *expected {
                    wrong.push(format!("{name}, {path}, {page}: {text}"));
                }
            }
            let cells = seen.map(|text| if text.contains(word) { "read".to_owned() } else { text });
            let whom = if path == "private" { "a user with a cookie" } else { "everybody inside" };
            rows.push([vec![name.to_owned(), whom.to_owned()], cells.to_vec()].concat());
        }
    }
    let columns =
        ["a service that", "and answers", "listed page", "other page", "page of no origin"];
    lab.table("What a page reads", &columns, rows);
    lab.check_eq(
        "pages that read otherwise than the standard says",
        String::new(),
        wrong.join("; "),
    );
}

/// The installed browser.
fn browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let folders = std::env::split_paths(&folders).collect::<Vec<_>>();
    let mut paths = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    paths.find(|path| path.is_file())
}

/// Opens this page without a window, with a profile of its own and past every proxy.
fn open(browser: PathBuf, profile: &std::path::Path, url: &str) -> anyhow::Result<Child> {
    Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--no-proxy-server", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("the browser cannot be started")
}

/// Lets it end its own processes, if it does so in time.
async fn close(browser: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = browser.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        kill_process(pid, Signal::TERM)?;
        let _ = timeout(Duration::from_secs(10), browser.wait()).await;
    }
    Ok(browser.kill().await?)
}

/// What the pages try, and what they report.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tries: Vec<Value>,
    own: String,
    other: String,
    seen: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Report {
    page: String,
    seen: Value,
}

impl Reports {
    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn prepare(&self, tries: Vec<Value>, own: &str, other: &str) {
        self.with(|inner| {
            (inner.tries, inner.own, inner.other) = (tries, own.to_owned(), other.to_owned());
        });
    }

    fn seen(&self) -> BTreeMap<String, Value> {
        self.with(|inner| inner.seen.clone())
    }
}

/// The pages of the attacker, and those of the listed origin.
fn pages(reports: &Reports) -> Router {
    Router::new()
        .route("/", get(frames))
        .route("/page/{name}", get(page))
        .route("/report", post(report))
        .with_state(reports.clone())
}

/// A page with three frames. Its user is logged in: all ports of this machine share one cookie.
async fn frames(State(reports): State<Reports>) -> Response {
    let (own, other) = reports.with(|inner| (inner.own.clone(), inner.other.clone()));
    let cookie = format!("{SESSION}; Path=/; HttpOnly; Secure; SameSite=None");
    let page = format!(
        "<!doctype html><iframe src='http://{own}/page/listed'></iframe>\
         <iframe src='http://{other}/page/other'></iframe>\
         <iframe sandbox='allow-scripts' src='http://{other}/page/null'></iframe>"
    );
    ([(SET_COOKIE, cookie)], Html(page)).into_response()
}

/// A page that tries all, and reports what it read.
async fn page(State(reports): State<Reports>, Path(name): Path<String>) -> Html<String> {
    let (tries, other) = reports.with(|inner| (json!(inner.tries), inner.other.clone()));
    let name = json!(name);
    Html(format!(
        "<!doctype html><script>(async () => {{
            const seen = {{}};
            for (const {{ name, url, init }} of {tries}) {{
                try {{
                    const answer = await fetch(url, init);
                    seen[name] = answer.status + ' ' + await answer.text();
                }} catch (error) {{
                    seen[name] = 'blocked';
                }}
            }}
            const body = JSON.stringify({{ page: {name}, seen }});
            await fetch('http://{other}/report', {{ method: 'POST', mode: 'no-cors', body }});
        }})();</script>"
    ))
}

async fn report(State(reports): State<Reports>, body: String) -> StatusCode {
    let Ok(report) = serde_json::from_str::<Report>(&body) else { return StatusCode::BAD_REQUEST };
    reports.with(|inner| inner.seen.insert(report.page, report.seen));
    StatusCode::NO_CONTENT
}
