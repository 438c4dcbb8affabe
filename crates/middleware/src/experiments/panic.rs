//! A handler panics. Who notices?

use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{Experiment, Lab, Sabotage};
use tokio::net::TcpStream;

use super::fixture::{Fixture, exchange};
use crate::request_id::HEADER;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Panics over each protocol, with the guard and without it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    panics: u32,
    /// Requests beside each panic
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=90))]
    beside: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "panic",
        "Without a guard, a panic in a handler ends the connection on HTTP/1.1, and on HTTP/2 only its own stream. With a \
         guard it is a 500 with the request's id, and everything else goes on",
        &["--panics", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/stack.rs",
        replace: "CatchPanic => around(&CatchPanicLayer::custom(panicked), inner),",
        with: "CatchPanic => inner,",
        check: "with the guard, HTTP/1.1: panics answered with 500 and an id",
    })
}

/// What became of the panics, and of the requests beside and after them.
#[derive(Default)]
struct Counts {
    answered: u32,
    with_id: u32,
    beside: u32,
    went_on: u32,
}

/// Two requests on one connection: the second is answered if the connection has outlived the first.
async fn http1(address: &str, params: Params) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for _ in 0..params.panics {
        let both = "POST /panic HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n\
                    GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let slow = "GET /slow?ms=50 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let beside = (0..params.beside).map(|_| exchange(address, slow.as_bytes(), "no end"));
        let (seen, beside) =
            tokio::join!(exchange(address, both.as_bytes(), "no end"), join_all(beside));
        let seen = seen?;
        let is_500 = seen.contains("HTTP/1.1 500");
        counts.answered += u32::from(!seen.is_empty());
        counts.with_id += u32::from(is_500 && seen.contains(HEADER.as_str()));
        counts.went_on += u32::from(seen.contains("HTTP/1.1 200"));
        for answer in beside {
            counts.beside += u32::from(answer?.contains("HTTP/1.1 200"));
        }
    }
    Ok(counts)
}

/// Streams of one connection.
async fn http2(address: &str, params: Params) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for _ in 0..params.panics {
        let stream = TokioIo::new(TcpStream::connect(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let connection = tokio::spawn(connection);
        let ask = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(format!("http://a{path}"));
            let mut sender = sender.clone();
            sender.ready().await?;
            let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
            let (parts, body) = answer.into_parts();
            body.collect().await?;
            anyhow::Ok(parts)
        };
        let beside = (0..params.beside).map(|_| ask(Method::GET, "/slow?ms=50"));
        let work = async { tokio::join!(ask(Method::POST, "/panic"), join_all(beside)) };
        let done = tokio::time::timeout(Duration::from_secs(20), work).await;
        let (panicked, beside) = done.context("HTTP/2 hangs")?;
        counts.answered += u32::from(panicked.is_ok());
        let right = panicked
            .is_ok_and(|answer| answer.status == 500 && answer.headers.contains_key(HEADER));
        counts.with_id += u32::from(right);
        let fine = |answer: &anyhow::Result<hyper::http::response::Parts>| {
            answer.as_ref().is_ok_and(|answer| answer.status == 200)
        };
        counts.beside += u32::try_from(beside.iter().filter(|it| fine(it)).count())?;
        counts.went_on += u32::from(fine(&ask(Method::GET, "/healthz").await));
        connection.abort();
    }
    Ok(counts)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (all, beside) = (params.panics, params.panics * params.beside);
    let (guarded, _) = fixture.start(&[]).await?;
    let (bare, _) = fixture.start(&["--stack", "request-id,trace,timeout,auth"]).await?;
    let mut rows = Vec::new();
    let mut row = |stack: &str, protocol: &str, counts: &Counts| {
        let Counts { answered, with_id, beside, went_on } = counts;
        let cells = [answered, with_id, beside, went_on].map(ToString::to_string);
        rows.push([vec![stack.to_owned(), protocol.to_owned()], cells.to_vec()].concat());
    };
    let without = [http1(bare.address(), params).await?, http2(bare.address(), params).await?];
    let with = [http1(guarded.address(), params).await?, http2(guarded.address(), params).await?];
    for (n, protocol) in ["HTTP/1.1", "HTTP/2"].into_iter().enumerate() {
        let (without, with) = (&without[n], &with[n]);
        row("no guard", protocol, without);
        row("catch-panic", protocol, with);
        let name = |words: &str| format!("without a guard, {protocol}: {words}");
        lab.check_eq(name("panics that got an answer"), 0, without.answered);
        let on = if n == 0 { 0 } else { all };
        lab.check_eq(name("connections that outlived the panic"), on, without.went_on);
        lab.check_eq(name("requests beside it that were answered"), beside, without.beside);
        let name = |words: &str| format!("with the guard, {protocol}: {words}");
        lab.check_eq(name("panics answered with 500 and an id"), all, with.with_id);
        lab.check_eq(name("connections that outlived the panic"), all, with.went_on);
        lab.check_eq(name("requests beside it that were answered"), beside, with.beside);
    }
    let columns =
        ["stack", "protocol", "answered", "500 with an id", "answered beside it", "connections on"];
    lab.table("Each kind", &columns, rows);
    Ok(())
}
