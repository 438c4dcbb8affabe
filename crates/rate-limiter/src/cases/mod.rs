//! The rate limiter's table of calls.

pub mod client;
mod greeting;
pub mod told;

use std::time::Instant;

use anyhow::Context;
use futures_util::future::try_join_all;
use reqwest::{Method, Response};
use serde_json::json;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, list, status, status_in},
    http::{header, problem},
    target::Target,
};

use client::Client;
use told::Told;

cases! {
    Plain a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused: "GET /api/hello: 200 as long as there is quota, then 429 with Retry-After and the problem quota-exceeded, which names the policy", "Less than was promised is an outage; more is no limit.";
    Plain every_answer_below_api_costs_and_says_where_the_client_stands: "RateLimit-Policy and RateLimit in every answer below /api, 404 and 405 included", "A client that is told slows down by itself; a scanner that walks through paths pays for each.";
    Plain a_dear_request_costs_more: "GET /api/report costs ten units", "One request can be as much work as a hundred.";
    Plain each_client_has_its_own_quota_and_one_ipv6_network_is_one_client: "Another address: another quota; another address of the same /64: the same", "A client that has one IPv6 address has 2⁶⁴ of them.";
    Plain a_forged_header_buys_nothing: "X-Forwarded-For: only the last address, which the trusted proxy appends, counts; other headers count for nothing", "A client writes the rest of the header itself, and would have a new quota with each request.";
    Plain health_is_never_limited: "GET /healthz and GET /readyz: 200 without RateLimit, also for a client without quota", "A limiter that takes its own service out of the balancer is the outage.";
    Load a_burst_of_concurrent_requests_gets_exactly_the_limit: "Of more requests at once than the limit, exactly the limit pass", "If reading, comparing and writing are three steps, two requests take the same unit.";
    Restart quota_that_was_used_is_used_after_a_kill: "SIGKILL: afterwards the client has no more than before", "A client that makes the server fall over must not get a fresh quota for it.";
}

/// The table, and the greetings.
pub fn suite() -> Suite {
    Suite { calls: include_str!("calls.md"), cases: [cases(), greeting::cases()].concat() }
}

/// The first half of an IPv6 address that no other case and no other run has.
fn network() -> String {
    format!("2001:db8:{:x}:{:x}", rand::random::<u16>(), rand::random::<u16>())
}

/// A client that no other case and no other run has been, behind a proxy.
fn newcomer(target: &Target) -> Client {
    Client::of(target).forwarded_for(format!("{}::1", network()))
}

/// Sends the client's first request, which must pass, and returns what the answer tells.
async fn first(client: &Client) -> anyhow::Result<Told> {
    let response = client.hello().await?;
    status(&response, 200).context("the first request of a new client")?;
    let told = Told::by(&response)?;
    let (limit, window) = (told.limit, told.window);
    expect((50..=1_000).contains(&limit), "a limit (q) of 50 to 1,000 units", limit)?;
    expect(window >= 300, "a window (w) of 300 seconds at least", window)?;
    equal("the units that a new client has left (r)", told.remaining, limit - 1)
        .context("does the program trust X-Forwarded-For?")?;
    Ok(told)
}

/// Asks until there is nothing left. Returns the refusal, and how many requests passed.
async fn exhaust(client: &Client, told: &Told) -> anyhow::Result<(Response, u64)> {
    let mut passed = 0;
    loop {
        let response = client.hello().await?;
        if response.status() == 429 {
            return Ok((response, passed));
        }
        status(&response, 200)?;
        passed += 1;
        let most = told.limit + told.back();
        expect(passed <= most, format!("429 after {most} requests at most"), "200 each time")?;
    }
}

async fn a_fresh_clients_first_limit_requests_pass_and_the_next_is_refused(
    target: &Target,
) -> Outcome {
    let client = newcomer(target);
    let told = first(&client).await?;
    let (refused, passed) = exhaust(&client, &told).await?;
    let what = format!("all {} requests of a new client to pass", told.limit);
    expect(passed + 1 >= told.limit, what, format!("{} that passed", passed + 1))?;
    told.left(&refused, 0)?;
    let after = header(&refused, "retry-after").to_owned();
    let fits = after.parse().is_ok_and(|after: u64| (1..=2 * told.window).contains(&after));
    expect(fits, "seconds in Retry-After, from 1 to two windows", format!("{after:?}"))?;
    let problem = problem(refused, 429).await?;
    let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
    equal("the field `type`", problem["type"].clone(), kind)?;
    let violated = list(&problem, "violated-policies")?;
    let named = violated.contains(&json!(told.name));
    expect(named, format!("the policy {:?} in violated-policies", told.name), &problem)
}

async fn every_answer_below_api_costs_and_says_where_the_client_stands(target: &Target) -> Outcome {
    let client = newcomer(target);
    let told = first(&client).await?;
    for (n, (method, path, expected)) in (2..).zip([
        (Method::GET, "api/nowhere", &[404][..]),
        (Method::DELETE, "api/hello", &[405]),
        (Method::HEAD, "api/hello", &[200]),
        (Method::GET, "api/hello", &[200]),
        // No body has no type, and is not the object that this call takes.
        (Method::POST, "api/hello", &[400, 415, 422]),
    ]) {
        let response = client.ask(method, path).await?;
        status_in(&response, expected)?;
        told.left(&response, told.limit - n)?;
    }
    Ok(())
}

async fn a_dear_request_costs_more(target: &Target) -> Outcome {
    let client = newcomer(target);
    let told = first(&client).await?;
    for spent in [11, 21] {
        let report = client.report().await?;
        status(&report, 200)?;
        told.left(&report, told.limit - spent)?;
    }
    Ok(())
}

async fn each_client_has_its_own_quota_and_one_ipv6_network_is_one_client(
    target: &Target,
) -> Outcome {
    let network = network();
    let (proxy, other) = (Client::of(target), newcomer(target));
    let told = first(&proxy.forwarded_for(format!("{network}::1"))).await?;
    first(&other).await?;
    for (n, host) in (2..).zip(["::2", "::ffff:1:2", ":1:2:3:4"]) {
        let address = format!("{network}{host}");
        let response = proxy.forwarded_for(&address).hello().await?;
        told.left(&response, told.limit - n).with_context(|| format!("as the client {address}"))?;
    }
    Ok(())
}

async fn a_forged_header_buys_nothing(target: &Target) -> Outcome {
    let address = format!("{}::1", network());
    let client = Client::of(target).forwarded_for(&address);
    let told = first(&client).await?;
    for (n, forged) in (2..).zip([
        format!("198.51.100.7, {address}"),
        format!("198.51.100.8,198.51.100.9, {address}"),
        format!("unknown, {address}"),
        format!("\", {address}"),
        format!(",,, {address}"),
    ]) {
        let response = client.forwarded_for(&forged).hello().await?;
        let what = || format!("with X-Forwarded-For: {forged}");
        status(&response, 200).with_context(what)?;
        told.left(&response, told.limit - n).with_context(what)?;
    }
    for (n, name) in (7..).zip(["x-real-ip", "x-api-key", "forwarded"]) {
        let response = client.hello_with(name, "for=198.51.100.7").await?;
        told.left(&response, told.limit - n).with_context(|| format!("with a header {name}"))?;
    }
    Ok(())
}

async fn health_is_never_limited(target: &Target) -> Outcome {
    let client = newcomer(target);
    let told = first(&client).await?;
    exhaust(&client, &told).await?;
    for path in ["healthz", "readyz"] {
        let response = client.get(path).await?;
        status(&response, 200)?;
        let counted = header(&response, "ratelimit");
        expect(counted.is_empty(), format!("no RateLimit at {path}"), counted)?;
    }
    Ok(())
}

async fn a_burst_of_concurrent_requests_gets_exactly_the_limit(target: &Target) -> Outcome {
    let told = first(&newcomer(target)).await?;
    // A client that has taken nothing yet.
    let client = newcomer(target);
    let told = Told { at: Instant::now(), ..told };
    let answers = try_join_all((0..told.limit + 100).map(|_| client.hello())).await?;
    let count = |wanted| answers.iter().filter(|it| it.status() == wanted).count() as u64;
    let (passed, refused) = (count(200_u16), count(429_u16));
    let others = told.limit + 100 - passed - refused;
    expect(others == 0, "200 or 429 for each request", format!("{others} others"))?;
    let most = told.limit + told.back();
    let what = format!("as many requests to pass as there are units, {}", told.limit);
    expect((told.limit..=most).contains(&passed), what, format!("{passed} that passed"))
}

async fn quota_that_was_used_is_used_after_a_kill(target: &Target) -> Outcome {
    let client = newcomer(target);
    let told = first(&client).await?;
    for _ in 0..20 {
        client.hello().await?;
    }
    target.restart().await?;
    told.left(&client.hello().await?, told.limit - 22).context("after the kill")
}
