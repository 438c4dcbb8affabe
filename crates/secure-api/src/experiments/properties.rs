//! API3: a client writes fields that are not its own, and looks for fields in every answer that nobody meant to send.

use lab::{Experiment, Lab, Sabotage};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Fixture, NOBODY};
use crate::cases::client::{ADA, Client, GIL, new_word};
use crate::error::Error;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rounds, each with an invoice of its own
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "properties",
        "A client writes only the fields that are its own and sees only those that were meant for it; and the database would \
         refuse to write the others even if the program asked for it",
        &["--rounds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/invoice.rs",
        replace: "#[serde(deny_unknown_fields, expecting = \"an object with `title` or `note`\")]",
        with: "#[serde(expecting = \"an object with `title` or `note`\")]",
        check: "requests with a field that may not be written, that were accepted",
    })
    .sabotage(Sabotage {
        file: "src/invoice.rs",
        replace: "    /// Whether we have the money. Nobody says so over this API.",
        with: "    /// As in the row.\n    #[sqlx(default)]\n    pub margin_cents: i64,\n    /// Whether we have the money.",
        check: "fields in answers that no client should see",
    })
}

/// What an invoice shows. Everything else in an answer about one is a leak.
const SHOWN: [&str; 7] = ["id", "title", "note", "amount_cents", "corrects", "paid", "created_at"];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let ada = Client::login(&target, ADA).await?;
    let (acme, globex) = (fixture.caller(ADA).await?, fixture.caller(GIL).await?);
    let forbidden = [
        ("paid", json!(true)),
        ("customer_id", json!(globex.customer)),
        ("margin_cents", json!(-1)),
        ("id", json!(Uuid::nil())),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("role", json!("admin")),
        ("is_admin", json!(true)),
    ];
    let (mut accepted, mut sent, mut leaked) = (0, 0, Vec::new());
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "fields that are not the client's");
        let word = new_word();
        let path = format!("invoices/{}", ada.invoice(&word).await?);
        for (field, value) in &forbidden {
            let create = json!({ "title": "x", "amount_cents": 1, *field: value });
            let change = json!({ "title": word, *field: value });
            for answer in [ada.post("invoices", &create).await?, ada.patch(&path, &change).await?] {
                accepted += u32::from(answer.status().is_success());
                sent += 1;
            }
        }
        for answer in [
            ada.post("invoices", &json!({ "title": word, "amount_cents": 1 })).await?,
            ada.patch(&path, &json!({ "note": "x" })).await?,
            ada.get(&path).await?,
            ada.get(&format!("invoices?search={word}")).await?,
            ada.ask(Method::GET, &format!("exports?search={word}")).await?,
        ] {
            leaks(&answer.text().await?, &mut leaked);
        }
    }
    let changed =
        "select count(*) from invoices where paid or margin_cents <> 0 or customer_id <> $1";
    let changed: i64 =
        sqlx::query_scalar(changed).bind(acme.customer).fetch_one(&fixture.pool).await?;
    lab.text(format!("{sent} requests with one of {} fields.", forbidden.len()));
    lab.check_eq("requests with a field that may not be written, that were accepted", 0, accepted);
    lab.check_eq("rows with a value that no client may write", 0, changed);
    leaked.sort();
    leaked.dedup();
    lab.check_eq("fields in answers that no client should see", String::new(), leaked.join(" "));
    let store = fixture.store()?;
    let mut refused = Vec::new();
    const STATEMENTS: [&str; 4] = [
        "update invoices set paid = true",
        "update invoices set margin_cents = 0",
        "select sum(margin_cents) from invoices",
        "update audit set actor = actor",
    ];
    for statement in STATEMENTS {
        let done = store
            .tenant(acme, async |tx| Ok(sqlx::query(statement).execute(tx).await.map(drop)?))
            .await;
        refused.push(vec![statement.to_owned(), words(&done)]);
    }
    let count = refused.iter().filter(|row| row[1] == "permission denied").count();
    lab.table("As the role that works for customers", &["statement", "PostgreSQL says"], refused);
    lab.check_eq("statements of four that PostgreSQL refuses to that role", 4, count);
    Ok(())
}

/// Names of fields anywhere in an answer that are none of those that are shown.
fn leaks(body: &str, leaked: &mut Vec<String>) {
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        // A file of lines: its head names the fields.
        let head = body.lines().next().unwrap_or_default();
        let names = head.split(',').filter(|name| !SHOWN.contains(name));
        leaked.extend(names.map(str::to_owned));
        return;
    };
    let items = body["items"].as_array().cloned().unwrap_or_else(|| vec![body]);
    for item in &items {
        let names = item.as_object().into_iter().flatten().map(|(name, _)| name);
        leaked.extend(names.filter(|name| !SHOWN.contains(&name.as_str())).cloned());
    }
}

/// What became of a statement.
fn words(done: &crate::error::Result<()>) -> String {
    match done {
        Ok(()) => "done".to_owned(),
        Err(Error::Internal(cause)) if cause.to_string().contains("permission denied") => {
            "permission denied".to_owned()
        }
        Err(error) => error.to_string(),
    }
}
