//! What breaks when two layers are swapped? For each trap a request that shows it, sent to our order and to the swapped one.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use conform::{http::header, target::Target};
use futures_util::{
    StreamExt,
    future::{BoxFuture, try_join_all},
    stream,
};
use lab::{Experiment, Lab, Sabotage, child::Child, harness::eventually};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::{Fixture, exchange, ours, written};
use crate::{layer::Name, stack::TRAPS};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each swap is tried
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "order",
        "Each of twelve swaps of two layers breaks something that a request can show. Our order breaks none of it",
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

    /// The log line of a request with this path, when later ones are there. Nothing if it has none.
    async fn line(&self, path: &str) -> anyhow::Result<Option<String>> {
        let later = format!("/later-than{path}");
        self.target.send(self.get(&later)).await?;
        let lines = eventually("a line in the log", async || {
            let log = self.child.log();
            Ok(log.contains(&later).then_some(log))
        });
        // What logs in another way, or not at all, has no such line.
        let Ok(lines) = tokio::time::timeout(Duration::from_secs(5), lines).await else {
            return Ok(None);
        };
        let mut lines = lines?.lines().map(str::to_owned).collect::<Vec<_>>();
        lines.retain(|it| it.contains(&format!("path=\"{path}\"")) && it.contains("answered"));
        Ok(lines.pop())
    }
}

fn slow(server: &Server) -> RequestBuilder {
    server.get("/slow?ms=30000").header("origin", "http://example.org")
}

async fn id_in_the_log(server: &Server) -> Seen {
    let request = server.get("/with-an-id").header("x-request-id", "mine");
    server.target.send(request).await?;
    let line = server.line("/with-an-id").await?.unwrap_or_default();
    Ok((line.contains("id=\"mine\""), format!("the id is in the log: {}", line.contains("mine"))))
}

async fn id_in_the_503(server: &Server) -> Seen {
    let answer = server.target.send(slow(server)).await?;
    let has = answer.status() == 503 && !header(&answer, "x-request-id").is_empty();
    Ok((has, format!("{}, with an id: {has}", answer.status().as_u16())))
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

async fn a_panic_in_the_log(server: &Server) -> Seen {
    // A connection of its own, since it may be closed.
    let bytes =
        b"POST /panic HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    exchange(server.child.address(), bytes, "nothing stops it").await?;
    let line = server.line("/panic").await?;
    let has = line.is_some_and(|line| line.contains("status=500"));
    Ok((has, format!("a line with 500: {has}")))
}

async fn a_503_is_counted(server: &Server) -> Seen {
    server.target.send(slow(server)).await?;
    let metrics = server.target.get("metrics").await?.text().await?;
    let counted = metrics.contains("status=\"503\"");
    Ok((counted, format!("in the metrics: {counted}")))
}

async fn a_page_reads_the_503(server: &Server) -> Seen {
    let answer = server.target.send(slow(server)).await?;
    let may = !header(&answer, "access-control-allow-origin").is_empty();
    let fine = may && answer.status() == 503;
    Ok((fine, format!("{}, for the page to read: {may}", answer.status().as_u16())))
}

async fn a_preflight_is_answered(server: &Server) -> Seen {
    let request = server.target.request(Method::OPTIONS, "/notes");
    let request = request.header("origin", "http://example.org");
    let request = request.header("access-control-request-method", "POST");
    let status = server.target.send(request).await?.status().as_u16();
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
const THREE_A_MINUTE: &[&str] = &["--rate", "2", "--trusted-proxy", "127.0.0.1"];

/// In the order of [`TRAPS`].
const SHOWN: [Shows; 12] = [
    (&[], |server| Box::pin(id_in_the_log(server))),
    (&[], |server| Box::pin(id_in_the_503(server))),
    (THREE_A_MINUTE, |server| Box::pin(a_limit_for_each_client(server))),
    (&[], |server| Box::pin(a_panic_in_the_log(server))),
    (&[], |server| Box::pin(a_503_is_counted(server))),
    (&[], |server| Box::pin(a_page_reads_the_503(server))),
    (&[], |server| Box::pin(a_preflight_is_answered(server))),
    (&[], |server| Box::pin(a_digest_of_what_is_sent(server))),
    (ONE_AT_A_TIME, |server| Box::pin(waiting_is_limited(server))),
    (THREE_A_MINUTE, |server| Box::pin(guessing_is_limited(server))),
    (&[], |server| Box::pin(a_long_body_is_refused_unread(server))),
    (&[], |server| Box::pin(a_strangers_body_is_refused_unread(server))),
];

/// Our order, with the inner layer moved to just outside the outer one.
fn swapped(outer: Name, inner: Name) -> Vec<Name> {
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

/// What our order and the swapped one show, and whether the swapped one's server warns of it.
async fn one(fixture: &Fixture, trap: usize) -> anyhow::Result<([(bool, String); 2], bool)> {
    let ((outer, inner, breaks), (more, shows)) = (TRAPS[trap], SHOWN[trap]);
    let right = start(fixture, &ours(), more).await?;
    let wrong = start(fixture, &swapped(outer, inner), more).await?;
    let seen = [shows(&right).await?, shows(&wrong).await?];
    let warned =
        eventually("a warning", async || Ok(wrong.child.log().contains(breaks).then_some(())));
    let warned = tokio::time::timeout(Duration::from_secs(5), warned).await;
    Ok((seen, warned.is_ok_and(|warned| warned.is_ok())))
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (mut rows, mut broken, mut unbroken, mut untold) = (Vec::new(), 0, 0, 0);
    for round in 0..params.rounds {
        let mut tries = stream::iter(0..TRAPS.len())
            .map(async |trap| anyhow::Ok((trap, one(&fixture, trap).await?)))
            .buffered(4);
        while let Some(tried) = tries.next().await {
            let (trap, ([right, wrong], warned)) = tried?;
            lab.progress(
                u64::from(round) * TRAPS.len() as u64 + trap as u64,
                u64::from(params.rounds) * TRAPS.len() as u64,
                "swaps of two layers",
            );
            broken += u32::from(!right.0);
            unbroken += u32::from(wrong.0);
            untold += u32::from(!warned);
            if round == 0 {
                let (outer, inner, breaks) = TRAPS[trap];
                rows.push(vec![
                    format!("{inner} outside {outer}"),
                    breaks.into(),
                    right.1,
                    wrong.1,
                ]);
            }
        }
    }
    lab.table("Each swap", &["swapped", "what breaks", "our order", "this one"], rows);
    lab.check_eq("things that our order breaks", 0, broken);
    lab.check_eq("swaps that break nothing", 0, unbroken);
    lab.check_eq("swaps that the server does not warn of", 0, untold);
    Ok(())
}
