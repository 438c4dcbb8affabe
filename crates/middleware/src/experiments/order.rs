//! What breaks when one layer stands inside another one? For each trap a request that shows it, sent to our order and to the
//! swapped one.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use conform::{http::header, target::Target};
use futures_util::{
    StreamExt,
    future::{BoxFuture, try_join_all},
    stream,
};
use lab::{Experiment, Lab, Sabotage, child::Child, harness::eventually, serve::here};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::{Fixture, exchange, ours, written};
use crate::{
    layer::Name,
    request_id::HEADER,
    stack::{GIVES, TELLS, TRAPS},
    whiteboard,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each swap is tried
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "order",
        "Each of 32 swaps of two layers breaks something that a request can show: in 24 of them, a layer that tells of answers \
         stands inside one that gives them. Our order breaks none of it",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limits.rs",
        replace: "request.extensions().get().map_or_else(|| peer(&request), |Client(ip)| *ip)",
        with: "request.extensions().get().map_or_else(|| peer(&request), |Client(_)| peer(&request))",
        check: "things that our order breaks",
    })
}

/// What one server showed: whether it is as it should be, and words.
type Seen = anyhow::Result<(bool, String)>;

struct Server {
    child: Child,
    target: Target,
}

impl Server {
    fn get(&self, path: &str) -> RequestBuilder {
        self.target.request(Method::GET, path)
    }

    /// A status line and the headers, as they come for a request whose client waits to be told that it may send the body.
    async fn before_the_body(&self, path: &str, length: usize) -> anyhow::Result<u16> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             x-signature: none\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        );
        let seen = exchange(self.child.address(), head.as_bytes(), "\r\n\r\n").await?;
        let status = seen.split(' ').nth(1).and_then(|it| it.parse().ok());
        status.with_context(|| format!("no status in {seen:?}"))
    }

    /// The log line of a request with this path and something else in it, when later ones are there. Nothing if it has none.
    async fn line(&self, path: &str, words: &str) -> anyhow::Result<Option<String>> {
        let later = format!("/later-than{path}/{}", words.replace('=', "-"));
        self.target.send(self.get(&later).header("x-forwarded-for", "192.0.2.3")).await?;
        let lines = eventually("a line in the log", async || {
            let log = self.child.log();
            Ok(log.contains(&later).then_some(log))
        });
        // What logs in another way, or not at all, has no such line.
        let Ok(lines) = tokio::time::timeout(Duration::from_secs(5), lines).await else {
            return Ok(None);
        };
        let mut lines = lines?.lines().map(str::to_owned).collect::<Vec<_>>();
        let has = |line: &str, part: &str| line.contains(part);
        lines.retain(|it| {
            has(it, &format!("path=\"{path}\"")) && has(it, "answered") && has(it, words)
        });
        Ok(lines.pop())
    }
}

fn slow(server: &Server) -> RequestBuilder {
    server.get("/slow?ms=30000").header("origin", "http://example.org")
}

async fn id_in_the_log(server: &Server) -> Seen {
    let request = server.get("/with-an-id").header("x-request-id", "mine");
    server.target.send(request).await?;
    let line = server.line("/with-an-id", "status=404").await?.unwrap_or_default();
    Ok((line.contains("id=\"mine\""), format!("the id is in the log: {}", line.contains("mine"))))
}

async fn a_limit_for_each_client(server: &Server) -> Seen {
    let ask = async |client: &str| {
        let request = server.get("/slow?ms=0").header("x-forwarded-for", client);
        anyhow::Ok(server.target.send(request).await?.status().as_u16())
    };
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(ask("192.0.2.1").await?);
    }
    let second = ask("192.0.2.2").await?;
    let fine = first.contains(&429) && second == 200;
    Ok((fine, format!("a greedy client: {first:?}, another one: {second}")))
}

fn preflight(target: &Target) -> RequestBuilder {
    let request = target.request(Method::OPTIONS, "/notes").header("origin", "http://example.org");
    request.header("access-control-request-method", "POST")
}

async fn a_preflight_is_answered(server: &Server) -> Seen {
    let status = server.target.send(preflight(&server.target)).await?.status().as_u16();
    Ok((status == 200, status.to_string()))
}

async fn a_digest_of_what_is_sent(server: &Server) -> Seen {
    let request = server.get("/stream").header("accept-encoding", "gzip");
    let answer = server.target.send(request).await?;
    let zipped = header(&answer, "content-encoding") == "gzip";
    let claimed = header(&answer, "content-digest").to_owned();
    let digest = STANDARD.encode(Sha256::digest(answer.bytes().await?));
    let same = claimed == format!("sha-256=:{digest}:");
    Ok((same && zipped, format!("gzip: {zipped}, the digest is that of the bytes: {same}")))
}

/// Six at once, of which one may work at a time, until it is cut.
async fn waiting_is_limited(server: &Server) -> Seen {
    let ask = |n| slow(server).header("x-request-id", format!("waits-{n}"));
    try_join_all((0..6).map(|n| server.target.send(ask(n)))).await?;
    let mut longest = 0;
    for n in 0..6 {
        let trail = server.target.get(&format!("stack/waits-{n}")).await?;
        let trail: Value = serde_json::from_slice(&trail.bytes().await?).unwrap_or_default();
        let spent = |name| {
            let events = trail["events"].as_array()?;
            let at = |event| events.iter().find(|it| it["layer"] == name && it["event"] == event);
            at("out")?["at"].as_u64()?.checked_sub(at("in")?["at"].as_u64()?)
        };
        // Whatever somebody waits for outside of the time limit is not limited.
        let (all, limited) = (spent("request-id"), spent("timeout"));
        longest = longest.max(all.unwrap_or(u64::MAX).saturating_sub(limited.unwrap_or(0)));
    }
    // Two of their turns; without a limit the last one waits for five.
    let fine = longest < 500_000;
    Ok((fine, format!("waits outside of the limit of 250 ms for {} ms", longest / 1_000)))
}

async fn guessing_is_limited(server: &Server) -> Seen {
    let mut seen = BTreeMap::<u16, u32>::new();
    for n in 0..10 {
        let guess = server.get("/notes").header("authorization", format!("Bearer guess-{n}"));
        *seen.entry(server.target.send(guess).await?.status().as_u16()).or_default() += 1;
    }
    Ok((seen.contains_key(&429), format!("{seen:?}")))
}

async fn a_long_body_is_refused_unread(server: &Server) -> Seen {
    let status = server.before_the_body("/echo", 10_000_000).await?;
    Ok((status == 413, unread(status)))
}

async fn a_strangers_body_is_refused_unread(server: &Server) -> Seen {
    let status = server.before_the_body("/notes", 900_000).await?;
    Ok((status == 401, unread(status)))
}

fn unread(status: u16) -> String {
    let words = if status == 100 { "send it" } else { "without reading a byte" };
    format!("{status}: {words}")
}

/// The request that shows a trap, and the options of a server that make it plain.
type Shows = (&'static [&'static str], fn(&Server) -> BoxFuture<'_, Seen>);

const ONE_AT_A_TIME: &[&str] = &["--concurrency", "1"];
const TWO_A_MINUTE: &[&str] = &["--rate", "2", "--trusted-proxy", "127.0.0.1"];

/// In the order of [`TRAPS`].
const SHOWN: [Shows; 8] = [
    (&[], |server| Box::pin(id_in_the_log(server))),
    (TWO_A_MINUTE, |server| Box::pin(a_limit_for_each_client(server))),
    (&[], |server| Box::pin(a_preflight_is_answered(server))),
    (&[], |server| Box::pin(a_digest_of_what_is_sent(server))),
    (ONE_AT_A_TIME, |server| Box::pin(waiting_is_limited(server))),
    (TWO_A_MINUTE, |server| Box::pin(guessing_is_limited(server))),
    (&[], |server| Box::pin(a_long_body_is_refused_unread(server))),
    (&[], |server| Box::pin(a_strangers_body_is_refused_unread(server))),
];

/// What makes a layer of [`GIVES`] answer: the status, method and path, further headers, and the body.
const ASKS: [(u16, &str, &str, &str); 6] = [
    (500, "POST /panic", "content-length: 0\r\n", ""),
    (503, "GET /slow?ms=30000", "", ""),
    (429, "GET /slow?ms=0", "", ""),
    (413, "POST /echo", "content-length: 10000000\r\nexpect: 100-continue\r\n", ""),
    (401, "GET /notes", "", ""),
    (401, "POST /echo", "content-length: 1\r\n", "x"),
];

/// Makes one of the layers that give answers give its own, and returns which of [`TELLS`] told of it. `None` if another answer
/// came.
async fn told(server: &Server, give: usize) -> anyhow::Result<Option<[bool; 4]>> {
    let (status, call, headers, body) = ASKS[give];
    let path = call.split([' ', '?']).nth(1).unwrap_or_default();
    let counted = async || {
        let client = format!("192.0.2.2{give}");
        let request = server.get("/metrics").header("x-forwarded-for", client);
        let text = server.target.send(request).await?.text().await?;
        let line = format!("http_requests_total{{status=\"{status}\"}} ");
        let count = text.lines().find_map(|it| it.strip_prefix(&line)?.parse::<u64>().ok());
        anyhow::Ok(count.unwrap_or(0))
    };
    // A client for each, so that the limit of two a minute hits only the one that is to be hit.
    let bytes = format!(
        "{call} HTTP/1.1\r\nhost: a\r\nconnection: close\r\norigin: http://a.example\r\n\
         x-forwarded-for: 192.0.2.1{give}\r\n{headers}\r\n{body}"
    );
    let ask = async || exchange(server.child.address(), bytes.as_bytes(), "\r\n\r\n").await;
    if GIVES[give].0 == Name::RateLimit {
        ask().await?;
        ask().await?;
    }
    let before = counted().await?;
    let seen = ask().await?.to_lowercase();
    // A panic that meets no guard would end the connection, and all stacks here have one.
    if !seen.starts_with(&format!("http/1.1 {status} ")) {
        return Ok(None);
    }
    let line = server.line(path, &format!("status={status}")).await?;
    let has = |name: &str| seen.contains(&format!("\r\n{name}: "));
    let is_readable = has("access-control-allow-origin");
    Ok(Some([has(HEADER.as_str()), line.is_some(), counted().await? > before, is_readable]))
}

/// A stack in which the layer `outer` stands just inside the layer `inner`.
fn moved_in(outer: Name, inner: Name) -> Vec<Name> {
    let mut stack = ours();
    stack.retain(|name| *name != outer);
    let at = stack.iter().position(|name| *name == inner).unwrap_or_default();
    stack.insert(at + 1, outer);
    stack
}

/// The same two swapped in the other way: `inner` stands just outside `outer`.
fn moved_out(outer: Name, inner: Name) -> Vec<Name> {
    let mut stack = ours();
    stack.retain(|name| *name != inner);
    let at = stack.iter().position(|name| *name == outer).unwrap_or_default();
    stack.insert(at, inner);
    stack
}

async fn start(fixture: &Fixture, stack: &[Name], more: &[&str]) -> anyhow::Result<Server> {
    let stack = written(stack);
    let words = [&["--stack", &stack, "--timeout", "250"][..], more].concat();
    let child = fixture.serve().args(&words).keep_lines(1_000).start().await?;
    let target = Target::new(child.url(), None)?;
    Ok(Server { child, target })
}

/// Whether a server warns of what its order breaks.
async fn warns(server: &Server, breaks: &str) -> bool {
    let warned =
        eventually("a warning", async || Ok(server.child.log().contains(breaks).then_some(())));
    let warned = tokio::time::timeout(Duration::from_secs(2), warned).await;
    warned.is_ok_and(|warned| warned.is_ok())
}

/// What our order and a swapped one show, in words too; and whether the swapped one's server warns of it.
struct Tried {
    swap: String,
    breaks: String,
    right: (bool, String),
    wrong: (bool, String),
    warned: bool,
}

/// One of [`TRAPS`].
async fn one(fixture: &Fixture, trap: usize) -> anyhow::Result<Tried> {
    let ((outer, inner, breaks), (more, shows)) = (TRAPS[trap], SHOWN[trap]);
    let right = start(fixture, &ours(), more).await?;
    let wrong = start(fixture, &moved_out(outer, inner), more).await?;
    Ok(Tried {
        swap: format!("{inner} outside {outer}"),
        breaks: breaks.to_owned(),
        right: shows(&right).await?,
        wrong: shows(&wrong).await?,
        warned: warns(&wrong, breaks).await,
    })
}

/// One layer that tells, inside one that gives; `right` is what our order told of this answer.
async fn pair(
    fixture: &Fixture,
    tell: usize,
    give: usize,
    right: Option<[bool; 4]>,
) -> anyhow::Result<Tried> {
    let ((outer, lacks), (inner, answer)) = (TELLS[tell], GIVES[give]);
    let breaks = format!("{answer} {lacks}");
    let server = start(fixture, &moved_in(outer, inner), TWO_A_MINUTE).await?;
    let words = |told: Option<[bool; 4]>| match told {
        // An answer that did not come as it should is no proof of anything: our order fails, and this one breaks nothing.
        None => "another answer".to_owned(),
        Some(told) => format!("{outer} told of it: {}", told[tell]),
    };
    let wrong = told(&server, give).await?;
    Ok(Tried {
        swap: format!("{inner} outside {outer}"),
        right: (right.is_some_and(|told| told[tell]), words(right)),
        wrong: (wrong.is_none_or(|told| told[tell]), words(wrong)),
        warned: warns(&server, &breaks).await,
        breaks,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (mut rows, mut broken, mut unbroken, mut untold) = (Vec::new(), 0, 0, 0);
    let all = TRAPS.len() + GIVES.len() * TELLS.len();
    for round in 0..params.rounds {
        let ours = start(&fixture, &ours(), TWO_A_MINUTE).await?;
        let mut right = Vec::new();
        for give in 0..GIVES.len() {
            right.push(told(&ours, give).await?);
        }
        let mut tries = stream::iter(0..all)
            .map(async |n| match n.checked_sub(TRAPS.len()) {
                None => one(&fixture, n).await,
                Some(n) => {
                    let give = n / TELLS.len();
                    pair(&fixture, n % TELLS.len(), give, right[give]).await
                }
            })
            .buffered(4);
        let mut done = round as usize * all;
        while let Some(tried) = tries.next().await {
            let Tried { swap, breaks, right, wrong, warned } = tried?;
            done += 1;
            let all = u64::from(params.rounds) * all as u64;
            lab.progress(done as u64, all, "swaps of two layers");
            broken += u32::from(!right.0);
            unbroken += u32::from(wrong.0);
            untold += u32::from(!warned);
            if round == 0 {
                rows.push(vec![swap, breaks, right.1, wrong.1]);
            }
        }
    }
    lab.table("Each swap", &["swapped", "what breaks", "our order", "this one"], rows);
    lab.check_eq("things that our order breaks", 0, broken);
    lab.check_eq("swaps that break nothing", 0, unbroken);
    lab.check_eq("swaps that the server does not warn of", 0, untold);
    // It lists CORS before the key, as they shall run, and axum puts what is listed last outside.
    let whiteboard = here(whiteboard::router(fixture.database.url()).await?).await?;
    let target = Target::new(&format!("http://{}", whiteboard.host), None)?;
    let seen = target.send(preflight(&target)).await?.status().as_u16();
    lab.check_eq("the whiteboard's answer to a preflight", 401, seen);
    Ok(())
}
