//! Which change of an answer breaks which readers? And how do old and new clients live together?

use anyhow::Context;
use conform::{expect::json_of, http::header};
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients of each kind that read at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    clients: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "evolution",
        "Adding a field breaks no tolerant reader, and every strict one; renaming a field breaks all. Two versions, by media \
         type and by path, serve both kinds of clients at once",
        &["--clients", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/user.rs",
        replace: "    full_name: String,",
        with: "    #[serde(rename = \"name\")]\n    full_name: String,",
        check: "old clients that could read the answer, by media type",
    })
}

/// What was written when there was only version 1; it takes what it needs and ignores the rest.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only read")]
struct Tolerant {
    id: String,
    full_name: String,
    email: String,
}

/// The same, in a language or with a setting that refuses what it does not know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
struct Strict {
    id: String,
    full_name: String,
    email: String,
}

/// Written for version 2.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only read")]
struct New {
    id: String,
    name: String,
    tags: Vec<String>,
}

fn reads<T: DeserializeOwned>(body: &Value) -> bool {
    T::deserialize(body).is_ok()
}

const V1: &str = "application/vnd.worked-answers.v1+json";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = fixture.start().await?;
    let ada = client.sign_up("Ada").await?;
    let v1 = json_of(client.get(&ada.path, &[("accept", V1)]).await?, 200).await?;
    // The smallest step beyond version 1: what it had, and one field more.
    let mut added = v1.clone();
    added.as_object_mut().context("no object")?.insert("tags".to_owned(), json!([]));
    // And one field under another name, as in version 2.
    let mut renamed = v1.clone();
    let fields = renamed.as_object_mut().context("no object")?;
    let name = fields.remove("full_name").unwrap_or_default();
    fields.insert("name".to_owned(), name);
    let mut rows = Vec::new();
    for (what, body, tolerant, strict) in [
        ("version 1", &v1, true, true),
        ("with a field more", &added, true, false),
        ("with a field renamed", &renamed, false, false),
        ("version 2", &ada.body, false, false),
    ] {
        let seen = (reads::<Tolerant>(body), reads::<Strict>(body));
        let word = |reads: bool| if reads { "reads it" } else { "breaks" }.to_owned();
        rows.push(vec![what.to_owned(), word(seen.0), word(seen.1)]);
        lab.check_eq(format!("{what}: a tolerant reader"), word(tolerant), word(seen.0));
        lab.check_eq(format!("{what}: a strict reader"), word(strict), word(seen.1));
    }
    lab.table(
        "Readers that were written for version 1",
        &["the answer", "tolerant", "strict"],
        rows,
    );
    let id = ada.path.trim_start_matches("/users/");
    let old_path = format!("/v1/customers/{id}");
    let readers = (0..params.clients).map(async |_| {
        let (by_type, by_path, new) = tokio::try_join!(
            read(&client, &ada.path, V1),
            read(&client, &old_path, "*/*"),
            read(&client, &ada.path, "*/*"),
        )?;
        anyhow::Ok([reads::<Strict>(&by_type), reads::<Strict>(&by_path), reads::<New>(&new)])
    });
    let read = try_join_all(readers).await?;
    let count = |at: usize| read.iter().filter(|read| read[at]).count();
    let all = params.clients as usize;
    lab.check_eq("old clients that could read the answer, by media type", all, count(0));
    lab.check_eq("old clients that could read the answer, by path", all, count(1));
    lab.check_eq("new clients that could read the answer", all, count(2));
    let old = client.get(&old_path, &[]).await?;
    let told = ["deprecation", "sunset"].iter().all(|name| !header(&old, name).is_empty());
    lab.check_eq("and the old path says that it will go", true, told);
    Ok(())
}

async fn read(client: &Client, path: &str, accept: &str) -> anyhow::Result<Value> {
    let response = client.get(path, &[("accept", accept)]).await?;
    Ok(serde_json::from_str(&response.text().await?).unwrap_or_default())
}
