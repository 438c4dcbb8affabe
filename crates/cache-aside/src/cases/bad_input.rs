//! What a client may send by mistake or on purpose, and what it gets.

use std::collections::BTreeSet;

use anyhow::Context;
use reqwest::{Method, Response};
use serde_json::json;

use super::client::{Client, name};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, list},
    http::{invalid, not_allowed, not_found, problem},
    target::Target,
};

cases! {
    Plain a_list_of_ids_that_is_none_is_refused: "GET /users?ids=…: 422 that names ids, unless they are 1 to 100 ids with commas between them", "A list without a bound is a request for the whole table.";
    Plain a_string_that_cannot_be_an_id_is_not_found: "A string that cannot be an id: 404 (or 400 for bytes that cannot stand in a path)", "Another spelling of an id would be another key in the cache, and no change would delete it.";
    Plain a_body_that_is_no_user_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_name_or_an_email_address_that_cannot_be_is_refused: "A bad name or email: 422 that names each field that is wrong", "A form wants to show all mistakes at once.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that does not exist: 404", "This happens every day, and is no error of the server.";
}

async fn a_list_of_ids_that_is_none_is_refused(target: &Target) -> Outcome {
    let long = format!("users?ids={}", ["1"; 101].join(","));
    for path in ["users", "users?ids=", "users?ids=1,,2", "users?ids=x", "users?ids=1&ids=2", &long]
    {
        invalid(target.get(path).await?, "ids").await.with_context(|| format!("for {path:.40}"))?;
    }
    Ok(())
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Ids").await?;
    for path in [
        "-1",
        "0",
        "00",
        "01",
        "+1",
        "1.0",
        "1e3",
        "x",
        "%20",
        "1%20",
        "%00",
        "%ff%fe",
        "1'--",
        "9223372036854775808",
        "99999999999999999999999999",
        "..%2fhealthz",
        "1%2f2",
        "%D9%A1",
        &format!("0{id}"),
        &format!("+{id}"),
        &format!("{id}.0"),
    ] {
        let path = format!("users/{path}");
        for method in [Method::GET, Method::DELETE] {
            status_of_no_id(target.ask(method, &path).await?, &path).await?;
        }
        let put = target.request(Method::PUT, &path).header("if-match", "*");
        let put = put.json(&client.user("Eve"));
        status_of_no_id(target.send(put).await?, &path).await?;
    }
    // The largest possible id is looked up.
    problem(client.read(i64::MAX).await?, 404).await?;
    equal("the name of the user", name(client.read(id).await?).await?, "Ids")
}

/// Some servers refuse bytes that cannot stand in a path before the program is asked, and know no problem documents.
async fn status_of_no_id(response: Response, path: &str) -> Outcome {
    if path.contains('%') && response.status() == 400 {
        return Ok(());
    }
    problem(response, 404).await.map(drop)
}

async fn a_body_that_is_no_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Bodies").await?;
    refuses_bad_bodies(target, || target.request(Method::POST, "users"), &client.user("Good"))
        .await?;
    let one = format!("users/{id}");
    let put = || target.request(Method::PUT, &one).header("if-match", "*");
    refuses_bad_bodies(target, put, &client.user("Better")).await?;
    let seen = name(client.read(id).await?).await?;
    equal("the name that the good body has put", seen, "Better")?;
    for body in [
        r#"{"name":"Eve"}"#,
        r#"{"email":"eve@example.org"}"#,
        r#"{"name":7,"email":"eve@example.org"}"#,
        r#"{"name":null,"email":"eve@example.org"}"#,
        r#"{"name":"Eve","email":"eve@example.org","id":1}"#,
    ] {
        let post = target.request(Method::POST, "users");
        let post = post.header("content-type", "application/json").body(body);
        problem(target.send(post).await?, 422)
            .await
            .context("the body lacks a field, or has one that is unknown or of another type")?;
    }
    Ok(())
}

async fn a_name_or_an_email_address_that_cannot_be_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Fields").await?;
    let long = format!("{}@example.org", "a".repeat(300 - 12));
    for email in [
        "",
        "eve",
        "@example.org",
        "eve@",
        "eve@example",
        "e ve@example.org",
        "eve@exa mple.org",
        "eve@@example.org",
        "eve@example..org",
        "eve@example.org\n",
        "eve\u{0}@example.org",
        &long,
    ] {
        let body = json!({ "name": "Eve", "email": email });
        invalid(client.create(&body).await?, "email")
            .await
            .with_context(|| format!("for the address {email:.40?}"))?;
        invalid(client.change(id, &body).await?, "email")
            .await
            .with_context(|| format!("for the address {email:.40?}"))?;
    }
    for name in ["", " ", "\u{0}", "a\nb", &"x".repeat(201)] {
        let body = json!({ "name": name, "email": "eve@example.org" });
        invalid(client.create(&body).await?, "name")
            .await
            .with_context(|| format!("for the name {name:.20?}"))?;
    }
    let both = client.create(&json!({ "name": "", "email": "" })).await?;
    let both = problem(both, 422).await?;
    let fields: BTreeSet<_> =
        list(&both, "errors")?.iter().filter_map(|error| error["field"].as_str()).collect();
    let fields = Vec::from_iter(fields);
    equal("the fields that are named", fields, vec!["email", "name"])?;
    equal("the name of the user", name(client.read(id).await?).await?, "Fields")
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::PUT, "users"),
            (Method::DELETE, "users"),
            (Method::POST, "users/1"),
            (Method::PATCH, "users/1"),
            (Method::POST, "healthz"),
            (Method::POST, "readyz"),
        ],
    )
    .await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["", "user", "users/1/email", "metrics"]).await
}
