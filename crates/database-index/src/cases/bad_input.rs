//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, list},
    http::{invalid, not_allowed, not_found, problem},
    target::Target,
};
use reqwest::Method;
use serde_json::json;

use super::client::Client;

cases! {
    Plain a_body_that_is_no_index_is_refused: "A bad body of PUT /indexes/{name}: 400, 413, 415 or 422; and the next good one is taken", "Every call that takes a body is attacked.";
    Plain a_body_that_is_no_user_is_refused: "The same for POST /users", "One bad client must not cost the others anything.";
    Plain a_body_that_is_no_run_is_refused: "The same for POST /queries/{name}/run", "The same.";
    Plain an_injected_column_is_refused: "SQL in columns, include, expression, where or kind: 422, and the table is there", "Names cannot be parameters of a statement, so they have to be chosen, not pasted.";
    Plain an_injected_name_is_refused: "SQL in the name of an index: 422 for PUT, 404 for GET and DELETE", "The name is the one text of a client that gets into a statement.";
    Plain an_index_that_no_query_could_use_is_refused: "A column that is unknown or there twice, 33 columns, a kind that does not fit, no key: 422 that names the field", "PostgreSQL says it after the fact, or not at all.";
    Plain a_parameter_that_is_none_is_refused: "A parameter that is missing, unknown or of a wrong type: 422 that names it", "A text where a date has to be is no error of the server.";
    Plain a_field_that_cannot_be_is_named: "A bad email, name, city, born or notes: 422 that names the field", "A form shows the mistake beside the field.";
    Plain a_string_that_cannot_be_an_id_is_not_found: "An id that is no number as we write it: 404", "Paths are input too.";
    Plain the_primary_key_stays: "DELETE of the primary key's index: 409", "Each row is found by it.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
}

async fn a_body_that_is_no_index_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("bodies");
    let request = || target.request(Method::PUT, &format!("indexes/{name}"));
    let good = json!({ "kind": "btree", "columns": ["born", "city", "name"] });
    refuses_bad_bodies(target, request, &good).await?;
    client.ended(&name).await?;
    client.dropped(&name).await
}

async fn a_body_that_is_no_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    refuses_bad_bodies(target, || target.request(Method::POST, "users"), &client.user("body")).await
}

async fn a_body_that_is_no_run_is_refused(target: &Target) -> Outcome {
    let good = json!({ "params": { "email": "user777@example.org" } });
    let request = || target.request(Method::POST, "queries/by_email/run");
    refuses_bad_bodies(target, request, &good).await?;
    problem(target.post("queries/nothing/run", &good).await?, 404).await.map(drop)
}

/// The table is there, and answers.
async fn is_whole(target: &Target) -> Outcome {
    let client = Client::of(target);
    let run = client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    equal("the number of rows", run.rows, 1.0)
}

const INJECTED: [&str; 5] = [
    "email); drop table users; --",
    "email\"; drop table users; --",
    "1) where (select true",
    "lower(email)",
    "users.email",
];

async fn an_injected_column_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    for (n, text) in INJECTED.into_iter().enumerate() {
        let name = client.name(&format!("injected{n}"));
        for (index, field) in [
            (json!({ "columns": [text] }), "columns[0]"),
            (json!({ "columns": ["city"], "include": [text] }), "include[0]"),
            (json!({ "columns": ["city"], "kind": text }), "kind"),
            (json!({ "columns": ["city"], "where": text }), "where"),
            (json!({ "expression": format!("{text} ") }), "expression"),
        ] {
            let answer = client.put(&name, &index).await?;
            invalid(answer, field).await.with_context(|| index.to_string())?;
        }
        not_found(target, &[&format!("indexes/{name}")]).await?;
    }
    is_whole(target).await
}

async fn an_injected_name_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "a".repeat(64);
    for name in ["x%22;drop%20table%20users;--", "x%20y", "X", "1", "%C3%A4", "x%00", "a.b", &long]
    {
        let path = format!("indexes/{name}");
        invalid(client.put(name, &json!({ "columns": ["email"] })).await?, "name").await?;
        not_found(target, &[&path]).await?;
        problem(client.drop(name).await?, 404).await?;
    }
    is_whole(target).await
}

async fn an_index_that_no_query_could_use_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("useless");
    for (index, field) in [
        (json!({ "columns": ["city", "age"] }), "columns[1]"),
        (json!({ "columns": ["city", "city"] }), "columns"),
        (json!({ "columns": vec!["city"; 33] }), "columns"),
        (json!({ "columns": [] }), "columns"),
        (json!({ "columns": ["tags"] }), "columns"),
        (json!({ "columns": ["born"], "kind": "gin" }), "columns"),
        (json!({ "columns": ["born"], "kind": "trigram" }), "columns"),
        (json!({ "columns": ["born"], "kind": "gist" }), "columns"),
        (json!({ "columns": ["city", "born"], "kind": "hash" }), "columns"),
        (json!({ "columns": ["city"], "kind": "hash", "unique": true }), "unique"),
        (json!({ "columns": ["city"], "kind": "brin", "include": ["name"] }), "include"),
        (json!({ "columns": ["city"], "include": ["city"] }), "include"),
        (json!({ "expression": "lower(born)" }), "expression"),
        (json!({ "expression": "random()" }), "expression"),
    ] {
        let answer = client.put(&name, &index).await?;
        invalid(answer, field).await.with_context(|| index.to_string())?;
    }
    not_found(target, &[&format!("indexes/{name}")]).await
}

async fn a_parameter_that_is_none_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    for (query, params, field) in [
        ("by_email", json!({}), "params.email"),
        ("by_email", json!({ "email": 7 }), "params.email"),
        ("by_email", json!({ "email": "a\u{0}" }), "params.email"),
        ("by_email", json!({ "email": "a", "x": 1 }), "params.x"),
        ("by_id_as_number", json!({ "id": "1e200000" }), "params"),
        ("by_city_born_since", json!({ "city": "a", "born": "soon" }), "params"),
        ("by_city_born_since", json!({ "city": "a", "born": "2001-02-30" }), "params"),
        ("by_city_born_since", json!({ "city": "a", "born": "2000-01-01 00:00+99" }), "params"),
        (
            "by_city_born_since",
            json!({ "city": "a", "born": "2000-01-01 00:00 No/Where" }),
            "params",
        ),
    ] {
        let answer = client.ask(query, params.clone()).await?;
        invalid(answer, field).await.with_context(|| params.to_string())?;
    }
    invalid(target.get("queries/by_email/plan.svg?x=1").await?, "params.x").await?;
    invalid(target.get("users").await?, "email").await?;
    invalid(target.get("users?name=Ada").await?, "email").await
}

async fn a_field_that_cannot_be_is_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "x".repeat(201);
    for (field, value) in [
        ("email", "ada"),
        ("email", "ada@example"),
        ("name", &long),
        ("name", " "),
        ("city", "a\nb"),
        ("born", "2001-02-30"),
        ("born", "soon"),
        ("notes", "a\u{0}"),
    ] {
        let mut user = client.user("bad");
        user[field] = json!(value);
        let refused = invalid(client.create(&user).await?, field).await;
        refused.with_context(|| format!("for {field} {value:.20}"))?;
    }
    let mut user = client.user("nobody");
    user["referred_by"] = json!(999_999_999);
    invalid(client.create(&user).await?, "referred_by").await
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let long = "9".repeat(5_000);
    for id in ["0", "-1", "x", "%00", "%20", "1.5", "007", "9223372036854775808", "'--", &long] {
        let path = format!("users/{id}");
        not_found(target, &[&path]).await.with_context(|| format!("for {id:.50}"))?;
    }
    not_found(target, &["users/%ff%fe", "queries/%ff", "indexes/%ff"]).await
}

async fn the_primary_key_stays(target: &Target) -> Outcome {
    let client = Client::of(target);
    let all = json_of(target.get("indexes").await?, 200).await?;
    let unique = |definition: &str| definition.to_lowercase().ends_with("(id)");
    let key = list(&all, "items")?
        .iter()
        .find(|it| unique(it["definition"].as_str().unwrap_or_default()));
    let name =
        key.and_then(|it| it["name"].as_str()).context("expected an index on (id), got none")?;
    problem(client.drop(name).await?, 409).await?;
    let all = json_of(target.get("indexes").await?, 200).await?;
    let there = list(&all, "items")?.iter().any(|it| it["name"] == name);
    expect(there, "the index of the primary key", &all)
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::POST, "queries"),
        (Method::GET, "queries/by_email/run"),
        (Method::POST, "indexes/x"),
        (Method::POST, "advice"),
        (Method::PUT, "users/1"),
        (Method::DELETE, "users"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nothing", "users/", "index", "indexes/x/y", "queries/by_email/plan"]).await
}
