//! The table of calls of notes behind layers.

mod bad_input;
pub mod client;
mod crowd;

use std::{io::Read, time::Instant};

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, json_of, list, same_fields, status, status_in, text},
    http::{header, header_is, lives_and_is_ready, media_type_is, problem},
    target::Target,
};
use flate2::read::GzDecoder;
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, id};

cases! {
    Plain a_note_is_kept_and_can_be_read: "POST /notes: 201, Location and the note; GET: the same", "Whoever creates something has to find it again.";
    Plain notes_come_with_the_newest_first: "GET /notes: items, the newest first", "That is what a reader looks for.";
    Plain a_note_is_deleted_and_may_be_deleted_again: "DELETE: 204, and 204 again; then 404 for GET", "A client that did not hear the answer asks again, and it is gone, as wanted.";
    Plain every_answer_names_its_request: "X-Request-Id in every answer, also in 401, 404, 405, 413, 415, 500 and 503", "An error that nobody finds in the log is an error that nobody mends.";
    Plain a_client_may_choose_the_id: "X-Request-Id: one of 1 to 64 letters, digits, `-`, `_`, `.` comes back", "It follows a request through many services.";
    Plain a_preflight_needs_no_key: "OPTIONS /notes: 200 or 204 with Access-Control-Allow-Origin and -Methods", "A browser sends no key with it, and asks nothing more if it is refused.";
    Plain a_page_of_another_origin_reads_errors_too: "Access-Control-Allow-Origin also with 401, 404, 500 and 503", "Otherwise the page only learns that something failed.";
    Plain a_panic_is_an_answer_and_the_connection_goes_on: "POST /panic: 500; the next requests are answered", "One broken handler must not cost the others anything.";
    Plain what_takes_too_long_is_given_up: "GET /slow?ms=30000: 503 with Retry-After, after about two seconds", "A client that waits for ever holds what others need.";
    Plain a_body_comes_back_as_it_was: "POST /echo: the same bytes, whole or in pieces, also none", "A layer that only looks must not change anything.";
    Plain a_stream_comes_whole_also_compressed: "GET /stream: ten lines; with Accept-Encoding: gzip perhaps compressed", "A layer that waits for the end of a stream may wait for ever.";
    Plain the_stack_says_its_order: "GET /stack: layers from the outside in, and no warnings", "Who operates it need not read its source.";
    Plain the_way_of_a_request_can_be_seen: "GET /stack/{request-id}: the layers in the order of entering; the last one that was entered answers first", "It is an onion: what goes in first comes out last.";
    Plain the_way_of_a_request_is_drawn: "GET /stack.svg and /stack/{request-id}.svg: a picture", "A picture of the onion is easier to read than its numbers.";
    Plain answers_are_counted: "GET /metrics: http_requests_total by status, also those of layers", "An outage begins with a number that rises.";
    Plain head_is_get_without_a_body: "HEAD: the status and headers of GET", "To look whether something is there without reading it.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), bad_input::cases(), crowd::cases()].concat(),
    }
}

async fn a_note_is_kept_and_can_be_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    for words in ["buy tea", "Łukasz & Søn", "'; drop table notes; --", &"ü".repeat(1_000)] {
        let created = client.create(words).await?;
        let location = header(&created, "location").to_owned();
        let note = json_of(created, 201).await?;
        same_fields(&note, &json!({ "text": words, "owner": "ada" }), &["text", "owner"])?;
        let path = format!("/notes/{}", text(&note, "id")?);
        ends_with("the header `Location`", &location, &path)?;
        let at = text(&note, "created_at")?;
        let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
        expect(utc, "a time in RFC 3339 UTC in `created_at`", at)?;
        equal("the note", json_of(client.get(&path).await?, 200).await?, note)?;
    }
    Ok(())
}

async fn notes_come_with_the_newest_first(target: &Target) -> Outcome {
    let client = Client::of(target);
    let mut made = Vec::new();
    for n in 0..3 {
        made.insert(0, client.note(&format!("note {n} of {}", target.tag())).await?.0);
    }
    let body = json_of(client.get("notes").await?, 200).await?;
    let items = list(&body, "items")?;
    expect(items.len() <= 100, "a hundred notes at most", items.len())?;
    let ours: Vec<_> = items.iter().filter(|note| made.contains(note)).cloned().collect();
    equal("our notes in the list", ours, made)
}

async fn a_note_is_deleted_and_may_be_deleted_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (_, path) = client.note("to be deleted").await?;
    for _ in 0..2 {
        status(&client.delete(&path).await?, 204)?;
        problem(client.get(&path).await?, 404).await?;
    }
    Ok(())
}

async fn every_answer_names_its_request(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = client.request(Method::POST, "echo").body("x".repeat(1_100_000));
    let requests = [
        (target.request(Method::GET, "healthz"), 200),
        (client.request(Method::GET, "notes"), 200),
        (target.request(Method::GET, "notes"), 401),
        (target.request(Method::GET, "nothing"), 404),
        (target.request(Method::DELETE, "slow"), 405),
        (long.header("expect", "100-continue").header("connection", "close"), 413),
        (client.request(Method::POST, "notes").body("{}"), 415),
        (target.request(Method::POST, "panic"), 500),
        (target.request(Method::GET, "slow?ms=30000"), 503),
    ];
    let mut seen = Vec::new();
    for (request, expected) in requests {
        // One that is answered before its body was read is closed perhaps, and then there is nothing to look at.
        let Ok(response) = target.send(request).await else {
            expect(expected == 413, format!("an answer of {expected}"), "none")?;
            continue;
        };
        status(&response, expected)?;
        let id = id(&response);
        expect(!id.is_empty(), format!("a header `X-Request-Id` with the {expected}"), "none")?;
        expect(!seen.contains(&id), "another id for each request", &id)?;
        seen.push(id);
    }
    Ok(())
}

async fn a_client_may_choose_the_id(target: &Target) -> Outcome {
    let tag = target.tag();
    for chosen in [format!("a-{tag}"), format!("0190_b7.{tag}"), format!("{tag:x<64}")] {
        let request = target.request(Method::GET, "healthz").header("x-request-id", &chosen);
        header_is(&target.send(request).await?, "x-request-id", &chosen)?;
        let refused = target.request(Method::GET, "notes").header("x-request-id", &chosen);
        header_is(&target.send(refused).await?, "x-request-id", &chosen)?;
    }
    Ok(())
}

async fn a_preflight_needs_no_key(target: &Target) -> Outcome {
    for (path, method) in [("notes", "POST"), ("notes/1", "DELETE"), ("notes", "GET")] {
        let request = target.request(Method::OPTIONS, path).header("origin", "http://a.example");
        let request = request.header("access-control-request-method", method);
        let request =
            request.header("access-control-request-headers", "authorization,content-type");
        let response = target.send(request).await?;
        status_in(&response, &[200, 204])?;
        header_is(&response, "access-control-allow-origin", "*")?;
        let methods = header(&response, "access-control-allow-methods");
        let named = methods.to_ascii_uppercase().contains(method) || methods == "*";
        expect(named, format!("{method} in `Access-Control-Allow-Methods`"), methods)?;
    }
    Ok(())
}

async fn a_page_of_another_origin_reads_errors_too(target: &Target) -> Outcome {
    for (method, path, expected) in [
        (Method::GET, "healthz", 200),
        (Method::GET, "notes", 401),
        (Method::GET, "nothing", 404),
        (Method::POST, "panic", 500),
        (Method::GET, "slow?ms=30000", 503),
    ] {
        let request = target.request(method, path).header("origin", "http://a.example");
        let response = target.send(request).await?;
        status(&response, expected)?;
        header_is(&response, "access-control-allow-origin", "*")?;
    }
    Ok(())
}

async fn a_panic_is_an_answer_and_the_connection_goes_on(target: &Target) -> Outcome {
    let client = Client::of(target);
    for _ in 0..5 {
        problem(target.ask(Method::POST, "panic").await?, 500).await?;
        status(&client.get("notes").await?, 200)?;
    }
    Ok(())
}

async fn what_takes_too_long_is_given_up(target: &Target) -> Outcome {
    let quick = json_of(target.get("slow?ms=50").await?, 200).await?;
    equal("the time", quick["slept_ms"].clone(), 50)?;
    let begun = Instant::now();
    let response = target.get("slow?ms=30000").await?;
    let again = header(&response, "retry-after").parse::<u32>();
    expect(again.is_ok(), "whole seconds in `Retry-After`", header(&response, "retry-after"))?;
    problem(response, 503).await?;
    let took = begun.elapsed().as_secs_f64();
    // Far from both ends, for a machine that is busy.
    expect((1.0..15.0).contains(&took), "about two seconds", format!("{took:.1} s"))
}

async fn a_body_comes_back_as_it_was(target: &Target) -> Outcome {
    let all: Vec<u8> = (0..=255).collect();
    for body in [Vec::new(), b"text".to_vec(), all.repeat(2_000)] {
        let request = target.request(Method::POST, "echo").body(body.clone());
        let response = target.send(request).await?;
        status(&response, 200)?;
        let same = response.bytes().await? == body;
        expect(same, format!("the same {} bytes", body.len()), "others")?;
        let chunks: Vec<_> = body.chunks(10_000).map(<[u8]>::to_vec).collect();
        let chunks = futures_util::stream::iter(chunks.into_iter().map(anyhow::Ok));
        let request = target.request(Method::POST, "echo").body(reqwest::Body::wrap_stream(chunks));
        let response = target.send(request).await?;
        status(&response, 200)?;
        let same = response.bytes().await? == body;
        expect(same, format!("the same {} bytes, sent in pieces", body.len()), "others")?;
    }
    Ok(())
}

async fn a_stream_comes_whole_also_compressed(target: &Target) -> Outcome {
    let response = target.get("stream").await?;
    status(&response, 200)?;
    let whole: String = (1..=10).map(|n| format!("line {n} of 10\n")).collect();
    equal("the stream", response.text().await?, whole.clone())?;
    let request = target.request(Method::GET, "stream").header("accept-encoding", "gzip");
    let response = target.send(request).await?;
    let zipped = header(&response, "content-encoding") == "gzip";
    let mut bytes = response.bytes().await?.to_vec();
    if zipped {
        let mut text = Vec::new();
        let unzipped = GzDecoder::new(&*bytes).read_to_end(&mut text);
        expect(unzipped.is_ok(), "gzip", format!("{unzipped:?}"))?;
        bytes = text;
    }
    equal("the stream, unzipped", String::from_utf8_lossy(&bytes).into_owned(), whole)
}

async fn the_stack_says_its_order(target: &Target) -> Outcome {
    let stack = json_of(target.get("stack").await?, 200).await?;
    expect(list(&stack, "layers")?.len() > 1, "the names of layers", &stack["layers"])?;
    equal("the warnings", stack["warnings"].clone(), json!([]))
}

/// The layers that a request has entered, in this order, and those that it has left; and when.
async fn passed(target: &Target, id: &str) -> anyhow::Result<[Vec<(Value, u64)>; 2]> {
    let way = json_of(target.get(&format!("stack/{id}")).await?, 200).await?;
    let events = list(&way, "events")?;
    Ok(["in", "out"].map(|wanted| {
        let events = events.iter().filter(|it| it["event"] == wanted);
        events.map(|it| (it["layer"].clone(), it["at"].as_u64().unwrap_or(0))).collect()
    }))
}

async fn the_way_of_a_request_can_be_seen(target: &Target) -> Outcome {
    let stack = json_of(target.get("stack").await?, 200).await?;
    let layers = list(&stack, "layers")?;
    let response = target.get("slow?ms=5").await?;
    let [came, mut went] = passed(target, &id(&response)).await?;
    let names = |way: &[(Value, u64)]| way.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    equal("the layers that the request entered", names(&came), layers.clone())?;
    went.reverse();
    equal("the layers that it left, backwards", names(&went), layers.clone())?;
    for ((name, came), (_, went)) in came.iter().zip(&went) {
        let took = went.saturating_sub(*came);
        expect(took >= 4_000, format!("4 ms at least in {name}"), format!("{took} µs"))?;
    }
    let refused = target.get("notes").await?;
    status(&refused, 401)?;
    let [came, _] = passed(target, &id(&refused)).await?;
    let last = names(&came).pop().unwrap_or_default();
    equal("the layer that answered 401", last, "auth")
}

async fn the_way_of_a_request_is_drawn(target: &Target) -> Outcome {
    let id = id(&target.get("healthz").await?);
    for path in ["stack.svg".to_owned(), format!("stack/{id}.svg")] {
        let response = target.get(&path).await?;
        status(&response, 200)?;
        media_type_is(&response, "image/svg+xml")?;
        let svg = response.text().await?;
        expect(svg.contains("<svg") && svg.contains("auth"), "a picture of the layers", svg)?;
    }
    problem(target.get("stack/nobody-knows-this").await?, 404).await?;
    problem(target.get("stack/nobody-knows-this.svg").await?, 404).await.map(drop)
}

/// The number behind this name in the metrics.
async fn counted(target: &Target, status: u16) -> anyhow::Result<u64> {
    let text = target.get("metrics").await?.text().await?;
    let line = format!("http_requests_total{{status=\"{status}\"}} ");
    let count = text.lines().find_map(|it| it.strip_prefix(&line));
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

async fn answers_are_counted(target: &Target) -> Outcome {
    for (path, expected) in [("notes", 401), ("slow?ms=30000", 503), ("nothing", 404)] {
        let before = counted(target, expected).await?;
        target.get(path).await?;
        let more = counted(target, expected).await?;
        let words = format!("more than {before} answers of {expected} in the metrics");
        expect(more > before, words, more)?;
    }
    Ok(())
}

async fn head_is_get_without_a_body(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (_, path) = client.note("a note").await?;
    let head = target.send(client.request(Method::HEAD, &path)).await?;
    status(&head, 200)?;
    expect(!id(&head).is_empty(), "a header `X-Request-Id`", "none")?;
    equal("the length of the body", head.bytes().await?.len(), 0)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
