//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::json;

use super::client::{Client, name};
use conform::{
    case::Outcome,
    cases,
    http::{invalid, not_allowed, not_found, problem, refuses_bad_bodies},
    target::Target,
};

cases! {
    Plain a_list_of_ids_that_is_none_is_refused: "422 that names ids, unless they are 1 to 100 ids with commas between them", "A list without a bound is a request for the whole table.";
    Plain an_id_that_can_be_none_is_not_found: "404 for every id that can be none; a user has one address", "Each other way to write an id would be another key in the cache, which no change deletes.";
    Plain a_body_that_is_no_user_is_refused: "400, 413, 415 or 422, and the next good one is served", "One bad client must not cost the others anything.";
    Plain a_name_or_an_email_address_that_cannot_be_is_refused: "422 that names each field that is wrong", "A form wants to show all mistakes at once.";
    Plain a_wrong_method_is_not_allowed: "405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "404", "A path with a slash too many is another path.";
}

async fn a_list_of_ids_that_is_none_is_refused(target: &Target) -> Outcome {
    let long = format!("users?ids={}", ["1"; 101].join(","));
    for path in ["users", "users?ids=", "users?ids=1,,2", "users?ids=x", "users?ids=1&ids=2", &long]
    {
        invalid(target.get(path).await?, "ids").await.with_context(|| path.to_owned())?;
    }
    Ok(())
}

async fn an_id_that_can_be_none_is_not_found(target: &Target) -> Outcome {
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
            problem(target.ask(method, &path).await?, 404).await.with_context(|| path.clone())?;
        }
        let put = target.request(Method::PUT, &path).json(&client.user("Eve"));
        problem(target.send(put).await?, 404).await.with_context(|| path.clone())?;
    }
    // The largest that there can be is looked for.
    problem(client.read(i64::MAX).await?, 404).await?;
    ensure!(name(client.read(id).await?).await? == "Ids");
    Ok(())
}

async fn a_body_that_is_no_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Bodies").await?;
    refuses_bad_bodies(|| target.request(Method::POST, "users"), &client.user("Good")).await?;
    let one = format!("users/{id}");
    refuses_bad_bodies(|| target.request(Method::PUT, &one), &client.user("Better")).await?;
    ensure!(name(client.read(id).await?).await? == "Better", "only the good one counted");
    for body in [
        r#"{"name":"Eve"}"#,
        r#"{"email":"eve@example.org"}"#,
        r#"{"name":7,"email":"eve@example.org"}"#,
        r#"{"name":null,"email":"eve@example.org"}"#,
        r#"{"name":"Eve","email":"eve@example.org","id":1}"#,
    ] {
        let post = target.request(Method::POST, "users");
        let post = post.header("content-type", "application/json").body(body);
        problem(target.send(post).await?, 422).await.with_context(|| body.to_owned())?;
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
            .with_context(|| format!("{email:?}"))?;
        invalid(client.change(id, &body).await?, "email")
            .await
            .with_context(|| format!("{email:?}"))?;
    }
    for name in ["", " ", "\u{0}", "a\nb", &"x".repeat(201)] {
        let body = json!({ "name": name, "email": "eve@example.org" });
        invalid(client.create(&body).await?, "name").await.with_context(|| format!("{name:?}"))?;
    }
    let both = client.create(&json!({ "name": "", "email": "" })).await?;
    let both = problem(both, 422).await?;
    ensure!(both["errors"].as_array().map(Vec::len) == Some(2), "{both}");
    ensure!(name(client.read(id).await?).await? == "Fields");
    Ok(())
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
    .await?;
    Ok(())
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["", "user", "users/", "users/1/", "users/1/email", "metrics", "%ff"])
        .await?;
    Ok(())
}
