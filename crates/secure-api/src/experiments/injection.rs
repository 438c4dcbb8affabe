//! A thousand texts that would be SQL, in every place that takes a text: does any of them become a part of a statement?

use lab::{Experiment, Lab, Sabotage};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::fixture::{Fixture, NOBODY};
use crate::cases::client::{ADA, Client, GIL, PNG, new_word, with_query};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Texts that are sent to every place
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    payloads: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "injection",
        "No text that is SQL changes what a statement does: what is taken comes back as it was sent, a search finds nothing \
         more, the order of a list is one of ours, and nothing else is changed",
        &["--payloads", "24"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "select.push(SEARCH).push_bind(search).push(\")\");",
        with: "select.push(format!(\"{SEARCH}'{search}')\"));",
        check: "answers of 500",
    })
}

/// What is written around one text, to make another.
const AROUND: [(&str, &str); 12] = [
    ("", ""),
    ("x", ""),
    ("x'", ""),
    ("x\"", ""),
    ("x')", ""),
    ("x\\'", ""),
    ("x'/*", "*/"),
    ("%", "%"),
    ("x' || '", ""),
    ("1) ", " --"),
    ("x' and ", " and 'a'='a"),
    ("ʼ", ""),
];

const SQL: [&str; 24] = [
    "'",
    "''",
    "\"",
    "\\",
    " or 1=1",
    " or 1=1 --",
    " or '1'='1",
    "; drop table invoices; --",
    "; update invoices set paid = true; --",
    "; insert into users select * from users; --",
    " union select null, null, null, null, null, null, null --",
    " union select id, email, password_hash, 1, null, true, now() from users --",
    ", (select password_hash from users limit 1)",
    "(select 1/0)",
    "1/(select 0)",
    "case when true then id else title end",
    "::int",
    "$1",
    "$$; select 1; $$",
    "%' or title like '%",
    "&|!<->:*",
    "\"(((\"",
    "{\"$ne\":null}",
    "margin_cents",
];

/// So many texts: each of SQL, with each around it, and a number if that is not enough.
fn payload(n: usize) -> String {
    let (before, after) = AROUND[n / SQL.len() % AROUND.len()];
    let number = n / (SQL.len() * AROUND.len());
    let number = if number == 0 { String::new() } else { number.to_string() };
    format!("{before}{}{after}{number}", SQL[n % SQL.len()])
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let (ada, gil) = (Client::login(&target, ADA).await?, Client::login(&target, GIL).await?);
    let globex = fixture.caller(GIL).await?.customer;
    let word = new_word();
    gil.invoice(&format!("{word} of the other customer")).await?;
    let id = ada.invoice(&word).await?;
    let before = (fixture.digest(globex).await?, schema(&fixture).await?);
    let (mut errors, mut requests, mut changed, mut more, mut orders) = (0, 0, 0, 0, 0);
    for n in 0..params.payloads {
        lab.progress(n.into(), params.payloads.into(), "texts that would be SQL");
        let text = payload(n as usize);
        // What is taken is kept as a text.
        let new = json!({ "title": text, "note": text, "amount_cents": 1 });
        let answer = ada.post("invoices", &new).await?;
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await?).unwrap_or_default();
        changed += u32::from(
            status == 201 && (body["title"] != new["title"] || body["note"] != new["note"]),
        );
        errors += u32::from(status == 500);
        // A search sees what has these words, and never what it should not.
        let search = ada.request(Method::GET, &with_query("invoices", "search", &text));
        let answer = ada.send(search).await?;
        errors += u32::from(answer.status() == 500);
        let body = answer.text().await?;
        let never = ["of the other customer", "$argon2", "\"margin_cents\":"];
        more += u32::from(never.iter().any(|it| body.contains(it)));
        // An order is one of ours, or none.
        let sort = ada.request(Method::GET, &with_query("invoices", "sort", &text));
        let status = ada.send(sort).await?.status().as_u16();
        errors += u32::from(status == 500);
        orders += u32::from(status == 200);
        requests += 3;
        for request in others(&ada, &id, &text) {
            errors += u32::from(ada.send(request).await?.status() == 500);
            requests += 1;
        }
    }
    lab.text(format!("{requests} requests with {} texts.", params.payloads));
    lab.check_eq("answers of 500", 0, errors);
    lab.check_eq("texts that came back as another text", 0, changed);
    lab.check_eq("searches that found what they should not", 0, more);
    lab.check_eq("orders that were taken", 0, orders);
    let after = (fixture.digest(globex).await?, schema(&fixture).await?);
    lab.check_eq("digest of the other customer's rows", before.0, after.0);
    lab.check_eq("digest of the tables, the accounts and what is paid", before.1, after.1);
    Ok(())
}

/// The other places that take a text.
fn others(ada: &Client, id: &str, text: &str) -> Vec<RequestBuilder> {
    let login = json!({ "email": format!("{text}@acme.example"), "password": text });
    let path: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let upload = format!("invoices/{id}/attachments");
    let upload = with_query(&upload, "name", &format!("{text}.png"));
    vec![
        ada.request(Method::PATCH, &format!("invoices/{id}")).json(&json!({ "note": text })),
        ada.request(Method::GET, &format!("invoices/{path}")),
        ada.request(Method::GET, &with_query("invoices", "after", text)),
        ada.request(Method::GET, &with_query("exports", "limit", text)),
        ada.request(Method::POST, "webhooks")
            .json(&json!({ "url": format!("https://hooks.example.com/{text}") })),
        ada.request(Method::POST, &upload).body(PNG),
        ada.target.request(Method::POST, "login").json(&login),
    ]
}

/// A digest of what no call may change: the tables and their columns, the accounts, and whether anything is paid.
async fn schema(fixture: &Fixture) -> anyhow::Result<String> {
    let digest = r#"
        select md5(concat(
            (select string_agg(attrelid::regclass || '.' || attname, ',' order by attrelid, attnum)
             from pg_attribute join pg_class on pg_class.oid = attrelid
             where relnamespace = 'public'::regnamespace),
            (select string_agg(users::text, ',' order by id) from users),
            (select count(*) from invoices where paid)))
    "#;
    Ok(sqlx::query_scalar(digest).fetch_one(&fixture.pool).await?)
}
