//! Who loses an update? Fifty clients read one user, think, and write it back.

use std::sync::Arc;

use anyhow::{Context, bail};
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use super::fixture::Fixture;
use crate::cases::client::{Client, Known, MERGE_PATCH, known};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients that change one user at once; half of them change its name, the others its tags
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(4..=200))]
    clients: u32,
    /// Changes that each of them makes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    changes: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "lost-update",
        "Of clients that change one user at once, changes vanish unnoticed with If-Match: *, and none does with the ETag \
         in If-Match; PUT also loses changes of other fields, and PATCH does not",
        &["--clients", "8", "--changes", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/condition.rs",
        replace: "Some(false) => Err(Error::CHANGED),",
        with: "Some(false) => Ok(()),",
        check: "PUT with the ETag: changes that vanished",
    })
}

/// How a change is written, and under which condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Put,
    Patch,
}

/// Both fields count up: the name holds how often it was changed, and so does the one tag. Each client changes only one of
/// the two. What is missing in the end has vanished.
async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = fixture.start().await?;
    let mut rows = Vec::new();
    let two = Params { clients: 2, changes: 30 };
    for (n, (way, with_tag, alone)) in (0..).zip([
        (Way::Put, false, false),
        (Way::Patch, false, false),
        (Way::Put, true, false),
        (Way::Patch, true, false),
        (Way::Put, false, true),
        (Way::Patch, false, true),
    ]) {
        lab.progress(n, 6, "clients change one user");
        let params = if alone { two } else { params };
        let seen = crowd(&client, params, way, with_tag).await?;
        let name = format!(
            "{} with {}{}",
            if way == Way::Put { "PUT" } else { "PATCH" },
            if with_tag { "the ETag" } else { "*" },
            if alone { ", each client has a field of its own" } else { "" },
        );
        let all = params.clients * params.changes;
        let cells = [all.into(), seen.refused.into(), seen.vanished].map(|it: i64| it.to_string());
        rows.push([vec![name.clone()], cells.to_vec()].concat());
        lab.figure(format!("{name}: changes that vanished"), seen.vanished as f64, "");
        lab.figure(format!("{name}: refused with 412 and made again"), seen.refused.into(), "");
        let check = format!("{name}: changes that vanished");
        // A PUT writes back what it has read of the other field too; a PATCH does not name it.
        if with_tag || (alone && way == Way::Patch) {
            lab.check_eq(check, 0, seen.vanished);
        } else {
            lab.check(check, "1 or more", seen.vanished, seen.vanished > 0);
        }
    }
    let columns = ["written with", "answered with 200", "412, and made again", "vanished"];
    lab.table("Changes of one user", &columns, rows);
    Ok(())
}

struct Seen {
    refused: u32,
    vanished: i64,
}

async fn crowd(client: &Client, params: Params, way: Way, with_tag: bool) -> anyhow::Result<Seen> {
    let mut user = client.user("0");
    user["tags"] = json!(["0"]);
    let path = known(client.create(&user, None).await?, 201).await?.path;
    let all_have_read = Arc::new(Barrier::new(params.clients as usize));
    let mut clients = JoinSet::new();
    for number in 0..params.clients {
        let (client, path) = (client.clone(), path.clone());
        let all_have_read = Arc::clone(&all_have_read);
        clients.spawn(async move {
            let mut refused = 0;
            for _ in 0..params.changes {
                let change = Change { name: number % 2 == 0, way, with_tag };
                refused += change.make(&client, &path, &all_have_read).await?;
            }
            anyhow::Ok(refused)
        });
    }
    let mut refused = 0;
    while let Some(client) = clients.join_next().await {
        refused += client.context("a client panicked")??;
    }
    let (name, tag) = counters(&client.read(&path).await?)?;
    let answered = params.clients * params.changes;
    Ok(Seen { refused, vanished: i64::from(answered) - name - tag })
}

/// One change by one client: of the name, or of the tag.
struct Change {
    name: bool,
    way: Way,
    with_tag: bool,
}

impl Change {
    /// Reads, adds one, and writes, until the write is taken; how often it was refused. Nobody writes for the first time
    /// before all have read: so it is not chance that two of them write over each other.
    async fn make(&self, client: &Client, path: &str, all: &Barrier) -> anyhow::Result<u32> {
        for refused in 0..10_000 {
            let known = client.read(path).await?;
            if refused == 0 {
                all.wait().await;
            }
            let (names, tags) = counters(&known)?;
            let if_match = if self.with_tag { known.tag.as_str() } else { "*" };
            let new = if self.name {
                json!({ "name": (names + 1).to_string() })
            } else {
                json!({ "tags": [(tags + 1).to_string()] })
            };
            let response = match self.way {
                Way::Patch => {
                    client.patch(path, (MERGE_PATCH, new.to_string()), Some(if_match)).await?
                }
                Way::Put => {
                    client.put(path, &whole(&known, &new), &[("if-match", if_match)]).await?
                }
            };
            match response.status().as_u16() {
                200 => return Ok(refused),
                412 => {}
                status => bail!("{status}: {}", response.text().await?),
            }
        }
        bail!("a change was refused ten thousand times")
    }
}

/// The user as it was read, with the new field in it.
fn whole(known: &Known, new: &Value) -> Value {
    let field = |name: &str| new.get(name).unwrap_or(&known.body[name]).clone();
    json!({ "name": field("name"), "email": known.body["email"], "tags": field("tags") })
}

fn counters(known: &Known) -> anyhow::Result<(i64, i64)> {
    let parse = |text: &Value| text.as_str().and_then(|text| text.parse().ok());
    let (name, tag) = (parse(&known.body["name"]), parse(&known.body["tags"][0]));
    Ok((name.context("no counter in the name")?, tag.context("no counter in the tags")?))
}
