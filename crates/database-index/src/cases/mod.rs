//! The table of calls of the index workbench.

mod bad_input;
pub mod client;
mod crowd;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, json_of, list, same_fields, status, status_in, text},
    http::{header, invalid, lives_and_is_ready, media_type_is, problem},
    target::{Target, eventually},
};
use serde_json::{Value, json};

use client::{Client, long_text};

cases! {
    Plain queries_have_names_statements_and_examples: "GET /queries and GET /queries/{name}", "Nobody sends SQL here, so what can be asked has to be shown.";
    Plain a_query_tells_rows_pages_time_and_plan: "POST /queries/by_email/run: rows, buffers, milliseconds, plan", "Pages are the same on each machine; milliseconds are not.";
    Plain a_plan_can_be_asked_for_alone: "?explain=only: a plan, and no rows", "A query that takes an hour should not be run to see why.";
    Plain a_plan_can_be_drawn: "GET /queries/{name}/plan.svg: SVG, with the examples or with parameters", "A picture shows at once where the time goes.";
    Plain an_index_is_built_and_used_and_dropped: "PUT: 202; then ready, in the plan, and few pages; DELETE: 204, then 404", "That is what all this is for.";
    Plain the_same_index_may_be_asked_for_again: "PUT of the same: 200 or 202; of another definition: 409", "A client that did not hear the answer asks again.";
    Plain an_index_on_an_expression_serves_its_query: "PUT with expression lower(email): in the plan of by_email_in_any_case", "An index on email does not.";
    Plain an_index_carries_a_column_and_has_a_condition: "PUT with include and where: both in the definition", "Half of the size, or no look into the table.";
    Plain an_index_that_nobody_uses_is_found: "GET /indexes: never used", "It costs each write, and brings nothing.";
    Plain an_index_that_another_one_covers_is_found: "GET /indexes: covered by another", "(city) is a part of (city, born).";
    Plain a_unique_index_refuses_a_second_one: "POST of values that a unique index has: 409", "The index keeps the rule, and no program can forget it.";
    Plain a_unique_index_over_equal_rows_fails_in_words: "PUT of a unique index on a column with equal values: failed, with error; nothing is left", "The rule is broken already; someone has to decide which row goes.";
    Plain what_fits_into_no_index_is_told: "With an index on notes: POST of 10 KB that do not compress: 422 that names notes", "A B-tree takes 2,704 bytes; a long text needs another kind, or a hash.";
    Plain advice_names_the_index_that_is_missing: "GET /advice after by_tag was run: the index on tags, and the query that it helps", "Guessing is what everybody does.";
    Plain a_user_is_created_and_found: "POST, GET by id and by address", "The table has to be in use.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and /readyz: 200", "A load balancer asks.";
}

/// Every case, and the table.
pub fn suite() -> Suite {
    let cases = [cases(), bad_input::cases(), crowd::cases()].concat();
    Suite { calls: include_str!("calls.md"), cases }
}

async fn queries_have_names_statements_and_examples(target: &Target) -> Outcome {
    let all = json_of(target.get("queries").await?, 200).await?;
    let all = list(&all, "items")?;
    for name in ["by_email", "by_email_in_any_case", "by_city", "by_city_born_since"] {
        let known = all.iter().any(|query| query["name"] == name);
        expect(known, format!("the query {name} in the list"), "none")?;
        let one = json_of(target.get(&format!("queries/{name}")).await?, 200).await?;
        text(&one, "sql")?;
        text(&one, "purpose")?;
        for param in list(&one, "params")? {
            text(param, "name")?;
            text(param, "example")?;
        }
    }
    problem(target.get("queries/nothing").await?, 404).await.map(drop)
}

async fn a_query_tells_rows_pages_time_and_plan(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (_, ada) = client.sign_up("asked").await?;
    let run = client.run("by_email", json!({ "email": ada["email"] })).await?;
    equal("the number of rows", run.rows, 1.0)?;
    expect(run.pages > 0.0, "pages in `buffers`", &run.body["buffers"])?;
    let time = run.body["milliseconds"].as_f64().unwrap_or(-1.0);
    expect(time > 0.0, "a time in `milliseconds`", time)?;
    expect(run.plan().contains("Node Type"), "the plan of PostgreSQL", run.plan())?;
    let none = client.run("by_email", json!({ "email": "nobody@example.org" })).await?;
    equal("the number of rows", none.rows, 0.0)
}

async fn a_plan_can_be_asked_for_alone(target: &Target) -> Outcome {
    let body = json!({ "params": { "email": "user777@example.org" } });
    let only = target.post("queries/by_email/run?explain=only", &body).await?;
    let only = json_of(only, 200).await?;
    expect(only["rows"].is_null(), "no rows", &only["rows"])?;
    let plan = only["plan"].to_string();
    expect(plan.contains("Node Type") && !plan.contains("Actual"), "a plan that was not run", plan)
}

async fn a_plan_can_be_drawn(target: &Target) -> Outcome {
    for path in
        ["by_email/plan.svg", "by_city_and_born/plan.svg?city=City%203", "blocked_lately/plan.svg"]
    {
        let svg = target.get(&format!("queries/{path}")).await?;
        status(&svg, 200)?;
        media_type_is(&svg, "image/svg+xml")?;
        let svg = svg.text().await?;
        let drawn = svg.starts_with("<svg") && svg.contains("rows");
        expect(drawn, "a drawing that tells rows", svg)?;
    }
    Ok(())
}

async fn an_index_is_built_and_used_and_dropped(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("email");
    let index = json!({ "kind": "btree", "columns": ["email", "name"] });
    let asked = client.put(&name, &index).await?;
    status(&asked, 202)?;
    let location = header(&asked, "location").to_owned();
    expect(location.ends_with(&format!("/indexes/{name}")), "its URL in `Location`", location)?;
    let ended = client.ended(&name).await?;
    equal("the state", ended["state"].clone(), "ready")?;
    expect(ended["bytes"].as_i64() > Some(0), "its size in `bytes`", &ended)?;
    let run = client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    // Another index on the address may serve it as well.
    expect(run.plan().contains("Index Name"), "an index in the plan", run.plan())?;
    expect(run.pages <= 10.0, "at most 10 pages", run.pages)?;
    client.dropped(&name).await?;
    problem(client.drop(&name).await?, 404).await?;
    problem(target.get(&format!("indexes/{name}")).await?, 404).await.map(drop)
}

async fn the_same_index_may_be_asked_for_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("again");
    let index = json!({ "columns": ["city", "name"] });
    client.build(&name, &index).await?;
    status_in(&client.put(&name, &index).await?, &[200, 202])?;
    for other in [json!({ "columns": ["name", "city"] }), json!({ "columns": ["city"] })] {
        problem(client.put(&name, &other).await?, 409).await?;
    }
    client.dropped(&name).await
}

async fn an_index_on_an_expression_serves_its_query(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("lower");
    client.build(&name, &json!({ "expression": "lower(email)" })).await?;
    let run = client.run("by_email_in_any_case", json!({ "email": "USER777@example.org" })).await?;
    expect(run.plan().contains("Index Name"), "an index in the plan", run.plan())?;
    equal("the number of rows", run.rows, 1.0)?;
    client.dropped(&name).await
}

async fn an_index_carries_a_column_and_has_a_condition(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("part");
    let index = json!({ "columns": ["born"], "include": ["name"], "where": "status = 'blocked'" });
    let ended = client.build(&name, &index).await?;
    let definition = text(&ended, "definition")?.to_lowercase();
    for part in ["include", "name", "where", "'blocked'"] {
        expect(definition.contains(part), format!("{part} in the definition"), &definition)?;
    }
    client.dropped(&name).await
}

/// The findings of this index, in `GET /indexes`.
async fn findings(target: &Target, name: &str) -> anyhow::Result<Vec<Value>> {
    let all = json_of(target.get("indexes").await?, 200).await?;
    let index = list(&all, "items")?.iter().find(|it| it["name"] == name).cloned();
    Ok(list(&index.unwrap_or_default(), "findings")?.clone())
}

async fn an_index_that_nobody_uses_is_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("unused");
    client.build(&name, &json!({ "columns": ["name", "status"] })).await?;
    let found = findings(target, &name).await?;
    expect(found.contains(&json!("never used")), "never used", json!(found))?;
    client.dropped(&name).await
}

async fn an_index_that_another_one_covers_is_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (short, long) = (client.name("short"), client.name("long"));
    client.build(&short, &json!({ "columns": ["born", "status"] })).await?;
    client.build(&long, &json!({ "columns": ["born", "status", "name"] })).await?;
    let found = findings(target, &short).await?;
    expect(found.contains(&json!("covered by another")), "covered by another", json!(found))?;
    let found = findings(target, &long).await?;
    expect(!found.contains(&json!("covered by another")), "no such finding", json!(found))?;
    client.dropped(&short).await?;
    client.dropped(&long).await
}

async fn a_unique_index_refuses_a_second_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("unique");
    let index = json!({ "columns": ["email", "name"], "unique": true });
    client.build(&name, &index).await?;
    let user = client.user("twice");
    status(&client.create(&user).await?, 201)?;
    problem(client.create(&user).await?, 409).await?;
    equal("users with this address", client.with_email(text(&user, "email")?).await?, 1)?;
    client.dropped(&name).await
}

async fn a_unique_index_over_equal_rows_fails_in_words(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("equal");
    status(&client.put(&name, &json!({ "columns": ["city"], "unique": true })).await?, 202)?;
    let ended = client.ended(&name).await?;
    equal("the state", ended["state"].clone(), "failed")?;
    let error = text(&ended, "error")?.to_lowercase();
    let words = error.contains("same") || error.contains("duplicate") || error.contains("unique");
    expect(words, "an error that says that values are equal", error)?;
    let found = json_of(target.get("indexes").await?, 200).await?;
    let found = list(&found, "items")?;
    let left = found.iter().any(|it| it["name"] == name.as_str() && it["state"] == "invalid");
    expect(!left, "no invalid index", json!(found))
}

async fn what_fits_into_no_index_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("notes");
    client.build(&name, &json!({ "columns": ["notes"] })).await?;
    let mut user = client.user("long");
    user["notes"] = json!(long_text());
    invalid(client.create(&user).await?, "notes").await?;
    user["notes"] = json!("short");
    status(&client.create(&user).await?, 201)?;
    client.dropped(&name).await
}

async fn advice_names_the_index_that_is_missing(target: &Target) -> Outcome {
    let client = Client::of(target);
    client.run("by_tag", json!({ "tag": "tag 7" })).await?;
    let advice = eventually("the table is free for a trial", async || {
        let advice = target.get("advice").await?;
        Ok((advice.status() == 200).then_some(advice))
    });
    let advice = json_of(advice.await?, 200).await?;
    let missing = list(&advice, "missing")?;
    let helps = missing.iter().find(|it| it["helps"].to_string().contains("by_tag"));
    let helps = helps.cloned().unwrap_or_default();
    equal("the kind of the index", helps["index"]["kind"].clone(), "gin")?;
    list(&advice, "not_missed")?;
    list(&advice, "statements").map(drop)
}

async fn a_user_is_created_and_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (path, ada) = client.sign_up("ada").await?;
    same_fields(&ada, &client.user("ada"), &["email", "name", "city"])?;
    equal("the user", json_of(target.get(&path).await?, 200).await?, ada.clone())?;
    equal("users with this address", client.with_email(text(&ada, "email")?).await?, 1)?;
    equal("users with another", client.with_email("nobody@example.org").await?, 0)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
