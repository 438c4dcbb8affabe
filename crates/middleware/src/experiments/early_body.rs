//! A layer wants all of a body. Who pays for the memory?

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use anyhow::Context;
use axum::body::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use lab::{Experiment, Lab, Sabotage, child::Child, harness::eventually};
use reqwest::{Body, Method, header::CONTENT_LENGTH};
use tokio::sync::watch;

use super::{
    compare::bodies::{SECRET, Secret},
    fixture::Fixture,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients that send a body at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=16))]
    clients: u32,
    /// Size of each body, in megabytes
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(8..=200))]
    megabytes: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "early-body",
        "A layer that reads a whole body, to check its signature, keeps it: memory grows with the number of clients. A layer \
         that looks while it passes keeps next to nothing",
        &["--clients", "3", "--megabytes", "12"],
        run,
    )
    .sabotage(Sabotage {
        // The layers that are compared are no part of the answer. One of its own that reads the whole body has the same effect.
        file: "src/context.rs",
        replace: "let extensions = request.extensions();",
        with: "let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let request = Request::from_parts(parts, body.into());
    let extensions = request.extensions();",
        check: "in passing: memory that all bodies together take is less than one of them",
    })
}

const CHUNK: usize = 64 * 1_024;
const MB: f64 = 1e6;

/// What the layer `name` took for so many bodies at once, in bytes at most; and how many came back whole.
async fn upload(
    lab: &Lab,
    fixture: &Fixture,
    name: &str,
    clients: u32,
    params: Params,
) -> anyhow::Result<(f64, usize)> {
    let stack = format!("request-id,trace,catch-panic,auth,{name}");
    let (child, target) = fixture.start(&["--stack", &stack]).await?;
    target.get("healthz").await?;
    let before = child.memory().await?;
    let size = params.megabytes as usize * 1_000_000;
    // A period that no chunk has, so that two that were swapped would be seen.
    let mut body = (0..=250).collect::<Vec<u8>>().repeat(size / 251 + 1);
    body.truncate(size);
    let body = Bytes::from(body);
    let signature = Secret::new(SECRET).sign(&body);
    let (sent, go_on) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
    let send = |_| {
        let (sent, mut gate, rest) = (Arc::clone(&sent), go_on.subscribe(), body.clone());
        let last = body.slice(size - 1..);
        let chunks = (0..size - 1).step_by(CHUNK);
        let chunks = chunks.map(move |at| rest.slice(at..(at + CHUNK).min(size - 1)));
        // The last byte is held back until the memory was looked at.
        let end = async move {
            sent.fetch_add(1, Ordering::SeqCst);
            let _ = gate.wait_for(|open| *open).await;
            last
        };
        let pieces = stream::iter(chunks).chain(stream::once(end)).map(anyhow::Ok);
        let request = target.request(Method::POST, "/echo").header("x-signature", &signature);
        target.send(request.header(CONTENT_LENGTH, size).body(Body::wrap_stream(pieces)))
    };
    let most = AtomicU64::new(0);
    let watching = async {
        let look = async || anyhow::Ok(most.fetch_max(child.memory().await?, Ordering::SeqCst));
        eventually("all have sent all but the last byte", async || {
            look().await?;
            lab.progress(sent.load(Ordering::SeqCst) as u64, clients.into(), name);
            Ok((sent.load(Ordering::SeqCst) == clients as usize).then_some(()))
        })
        .await?;
        settled(&child, &most).await?;
        go_on.send_replace(true);
        anyhow::Ok(())
    };
    let (answers, watched) = tokio::join!(join_all((0..clients).map(send)), watching);
    watched?;
    let mut whole = 0;
    for answer in answers {
        let answer = answer.context("an upload")?;
        whole += usize::from(answer.status() == 200 && answer.bytes().await? == body);
    }
    let grown = most.load(Ordering::SeqCst).saturating_sub(before);
    Ok((grown as f64, whole))
}

/// What is still on its way to the layer arrives: until the memory does not grow any more.
async fn settled(child: &Child, most: &AtomicU64) -> anyhow::Result<()> {
    let still = AtomicUsize::new(0);
    eventually("the memory stays as it is", async || {
        let now = child.memory().await?;
        let grows = now > most.fetch_max(now, Ordering::SeqCst);
        still.store(if grows { 0 } else { still.load(Ordering::SeqCst) + 1 }, Ordering::SeqCst);
        Ok((still.load(Ordering::SeqCst) >= 10).then_some(()))
    })
    .await
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let size = f64::from(params.megabytes) * MB;
    let (mut rows, mut lost) = (Vec::new(), 0);
    let mut grown = Vec::new();
    for (name, how) in [("signature", "kept whole"), ("signature-stream", "in passing")] {
        for clients in [1, params.clients] {
            let (memory, whole) = upload(&lab, &fixture, name, clients, params).await?;
            lost += clients as usize - whole;
            lab.figure(format!("{how}: memory for {clients} at once"), memory / MB, "MB");
            rows.push(
                [how, &clients.to_string(), &format!("{:.1}", memory / MB)]
                    .map(str::to_owned)
                    .to_vec(),
            );
            grown.push(memory);
        }
    }
    let title = format!("Bodies of {} MB, all but their last byte sent", params.megabytes);
    lab.table(title, &["signature checked", "clients", "MB more"], rows);
    let each = (grown[1] - grown[0]) / f64::from(params.clients - 1);
    lab.check(
        "kept whole: memory that each further client takes is that of its body",
        format!("{:.0} MB at least", size * 0.8 / MB),
        format!("{:.1} MB", each / MB),
        each >= size * 0.8,
    );
    lab.check(
        "in passing: memory that all bodies together take is less than one of them",
        format!("less than {} MB", params.megabytes),
        format!("{:.1} MB", grown[3] / MB),
        grown[3] < size,
    );
    lab.check_eq("bodies that did not come back whole", 0, lost);
    Ok(())
}
