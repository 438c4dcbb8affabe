//! The answer is lost, and the client sends the request again: what has happened then?

use anyhow::ensure;
use lab::{Experiment, Lab, Sabotage};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{fixture::Fixture, wire::Wire};
use crate::cases::client::{Client, JSON_PATCH, Known, MERGE_PATCH, new_name};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each kind of request is sent, its answer lost, and sent again
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "twice",
        "A request whose answer was lost is sent again: GET, PUT and DELETE leave the state of one request; POST makes a \
         second order, and no second user with an Idempotency-Key; PATCH depends on its kind, and with an ETag the repeat \
         is a 412",
        &["--rounds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "match found.fetch_optional(&mut *tx).await? {",
        with: "match found.fetch_optional(&mut *tx).await?.filter(|_| false) {",
        check: "POST of a user with Idempotency-Key: repeats that were answered with 201",
    })
}

/// What is sent, what the repeat should be answered with, and whether it should leave another state.
struct Kind {
    name: &'static str,
    request: fn(&Client, &Known, u32) -> RequestBuilder,
    repeat: u16,
    changes_again: bool,
}

const KINDS: [Kind; 11] = [
    Kind {
        name: "GET",
        request: |client, user, _| client.request(Method::GET, &user.path),
        repeat: 200,
        changes_again: false,
    },
    Kind {
        name: "PUT with If-Match: *",
        request: |client, user, n| {
            let new = json!({ "name": format!("Ada {n}"), "email": user.body["email"] });
            client.request(Method::PUT, &user.path).json(&new).header("if-match", "*")
        },
        repeat: 200,
        changes_again: false,
    },
    Kind {
        name: "PUT with the ETag",
        request: |client, user, n| {
            let new = json!({ "name": format!("Ada {n}"), "email": user.body["email"] });
            client.request(Method::PUT, &user.path).json(&new).header("if-match", &user.tag)
        },
        repeat: 412,
        changes_again: false,
    },
    Kind {
        name: "DELETE",
        request: |client, user, _| client.request(Method::DELETE, &user.path),
        repeat: 204,
        changes_again: false,
    },
    Kind {
        name: "POST of an order",
        request: |client, user, _| {
            let order = json!({ "item": "tea", "quantity": 1 });
            client.request(Method::POST, &format!("{}/orders", user.path)).json(&order)
        },
        repeat: 201,
        changes_again: true,
    },
    Kind {
        name: "POST of a user",
        request: |client, user, n| {
            let new = json!({ "name": "Bob", "email": format!("{n}-{}", address(user)) });
            client.request(Method::POST, "users").json(&new)
        },
        repeat: 409,
        changes_again: false,
    },
    Kind {
        name: "POST of a user with Idempotency-Key",
        request: |client, user, n| {
            let new = json!({ "name": "Bob", "email": format!("{n}-{}", address(user)) });
            let key = format!("{n}-{}", address(user));
            client.request(Method::POST, "users").json(&new).header("idempotency-key", key)
        },
        repeat: 201,
        changes_again: false,
    },
    Kind {
        name: "PATCH, merge, with If-Match: *",
        request: |client, user, n| patch(client, user, MERGE, "*", n),
        repeat: 200,
        changes_again: false,
    },
    Kind {
        name: "PATCH, JSON Patch that adds, with If-Match: *",
        request: |client, user, n| patch(client, user, ADD, "*", n),
        repeat: 200,
        changes_again: true,
    },
    Kind {
        name: "PATCH, merge, with the ETag",
        request: |client, user, n| patch(client, user, MERGE, &user.tag, n),
        repeat: 412,
        changes_again: false,
    },
    Kind {
        name: "PATCH, JSON Patch that adds, with the ETag",
        request: |client, user, n| patch(client, user, ADD, &user.tag, n),
        repeat: 412,
        changes_again: false,
    },
];

const MERGE: (&str, &str) = (MERGE_PATCH, r#"{"tags":["vip"]}"#);
const ADD: (&str, &str) = (JSON_PATCH, r#"[{"op":"add","path":"/tags/-","value":"vip"}]"#);

fn patch(
    client: &Client,
    user: &Known,
    (media_type, patch): (&str, &'static str),
    if_match: &str,
    _: u32,
) -> RequestBuilder {
    let request = client.request(Method::PATCH, &user.path).header("content-type", media_type);
    request.header("if-match", if_match).body(patch)
}

fn address(user: &Known) -> &str {
    user.body["email"].as_str().unwrap_or_default()
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (child, client) = fixture.start().await?;
    let wire = Wire::to(vec![child.address().to_owned()]).await?;
    let lossy = Client::at(&wire.url)?;
    let mut rows = Vec::new();
    let total = KINDS.len() as u64;
    for (n, kind) in (0..).zip(&KINDS) {
        lab.progress(n, total, kind.name);
        let (mut as_expected, mut changed_again) = (0, 0);
        let mut status = 0;
        for round in 0..params.rounds {
            let ada = client.user(&new_name());
            let mut user =
                crate::cases::client::known(client.create(&ada, None).await?, 201).await?;
            // What the client knows is what it has read.
            user.tag = client.read(&user.path).await?.tag;
            let request = || (kind.request)(&lossy, &user, round).header("connection", "close");
            wire.lose_the_next_answer();
            let first = lossy.target.send(request()).await;
            ensure!(first.is_err() && wire.has_lost_it(), "{}: {first:?}", kind.name);
            let after_one = fixture.digest().await?;
            status = lossy.target.send(request()).await?.status().as_u16();
            as_expected += u32::from(status == kind.repeat);
            changed_again += u32::from(fixture.digest().await? != after_one);
        }
        rows.push(vec![
            kind.name.to_owned(),
            status.to_string(),
            format!("{changed_again} of {}", params.rounds),
        ]);
        let check = format!("{}: repeats that were answered with {}", kind.name, kind.repeat);
        lab.check_eq(check, params.rounds, as_expected);
        let check = format!("{}: repeats that changed something again", kind.name);
        let expected = if kind.changes_again { params.rounds } else { 0 };
        lab.check_eq(check, expected, changed_again);
    }
    let columns = [
        "sent, its answer lost, and sent again",
        "status of the repeat",
        "it changed something again",
    ];
    lab.table("The second time", &columns, rows);
    Ok(())
}
