//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status},
    http::header,
    killing::Killing,
    target::Target,
};
use futures_util::future::{join_all, try_join_all};
use reqwest::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::client::Client;

cases! {
    Load a_hundred_at_once_each_get_their_own_answer: "A hundred requests at the same moment, each with its own id and text: each gets its own id and note", "What a layer knows of one request is nobody else's.";
    Load panics_beside_others_harm_none_of_them: "Twenty panics among eighty other requests: 500 for those, 200 for these", "One bad request must not take its neighbours along.";
    Load a_thousand_slow_connections_keep_nobody_out: "A thousand connections that never finish their request: others are answered", "Anybody can open connections.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every note that was answered with 201 is there", "An answer is a promise.";
}

async fn a_hundred_at_once_each_get_their_own_answer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ask = async |n: usize| {
        let note = json!({ "text": format!("note {n}") });
        let request = || client.request(Method::POST, "notes").json(&note);
        let id = format!("crowd-{n}");
        let sent = target.send_patiently(|| request().header("x-request-id", &id)).await?;
        let id = header(&sent.0, "x-request-id").to_owned();
        anyhow::Ok((id, json_of(sent.0, 201).await?))
    };
    for (n, (id, note)) in try_join_all((0..100).map(ask)).await?.into_iter().enumerate() {
        equal("the id", id, format!("crowd-{n}"))?;
        equal("the text", note["text"].clone(), format!("note {n}"))?;
    }
    Ok(())
}

async fn panics_beside_others_harm_none_of_them(target: &Target) -> Outcome {
    let ask = async |n: usize| {
        let panics = n.is_multiple_of(5);
        let (method, path) =
            if panics { (Method::POST, "panic") } else { (Method::GET, "slow?ms=50") };
        status(&target.ask(method, path).await?, if panics { 500 } else { 200 })
    };
    try_join_all((0..100).map(ask)).await.map(drop)
}

async fn a_thousand_slow_connections_keep_nobody_out(target: &Target) -> Outcome {
    let host = target.url().trim_start_matches("http://").split('/').next().unwrap_or_default();
    let open = async |_| {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await?;
        std::io::Result::Ok(stream)
    };
    let held: Vec<_> = join_all((0..1_000).map(open)).await.into_iter().flatten().collect();
    expect(held.len() >= 500, "hundreds of connections to be accepted", held.len())?;
    status(&Client::of(target).create("beside them").await?, 201)?;
    drop(held);
    status(&target.get("healthz").await?, 200)
}

/// Eight clients write notes until the program is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|_| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            while !killing.is_over() {
                let Ok((note, path)) = client.note("to be there afterwards").await else { break };
                killing.promised();
                promised.push((note, path));
            }
            promised
        }
    });
    for (note, path) in killing.after(100, target, clients).await?.concat() {
        equal("a promised note", json_of(client.get(&path).await?, 200).await?, note)?;
    }
    Ok(())
}
