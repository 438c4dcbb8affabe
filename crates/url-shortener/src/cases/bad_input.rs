//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use conform::{
    case::Outcome,
    cases,
    http::{invalid, not_allowed, problem, refuses_bad_bodies},
    target::Target,
};

cases! {
    Plain a_url_that_must_not_be_shortened_is_refused: "422 that names the URL", "A short link hides where it leads: no scripts, no user names, no line ends that become headers.";
    Plain a_link_to_ourselves_is_refused: "422 for a link to the service itself", "It would be a chain, or a loop.";
    Plain a_bad_alias_is_refused: "422 that names the alias", "Slashes and dots in an alias are paths to somewhere else.";
    Plain a_bad_expiry_is_refused: "422 that names the expiry; ten years are allowed", "Numbers overflow; nobody may get a link that ended in 1901.";
    Plain a_body_that_is_no_link_is_refused: "400, 413, 415 or 422, and the next good one is served", "One bad client must not cost the others anything.";
    Plain a_code_that_can_be_none_is_not_found: "404 (or 400) for every code that can be none; percent-encoded letters are the letters", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "405 with Allow", "It tells a client's author what the path is for.";
}

async fn a_url_that_must_not_be_shortened_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = format!("https://example.com/{}", "a".repeat(2_048));
    for url in [
        "",
        "example.com",
        "/path",
        "javascript:alert(1)",
        "data:text/html,<script>",
        "ftp://example.com/",
        "http://",
        "http:///",
        "https://?x",
        "http://user@example.com/",
        "https://example.com:password@evil.example/",
        "http://example.com:99999/",
        "http://example.com/a b",
        " https://example.com/",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\u{0}",
        "http://[::1",
        &long,
    ] {
        let response = client.create(&json!({ "url": url })).await?;
        invalid(response, "url").await.with_context(|| format!("{url:?}"))?;
    }
    Ok(())
}

async fn a_link_to_ourselves_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ourselves = format!("{}/abc", target.url());
    invalid(client.create(&json!({ "url": ourselves })).await?, "url").await?;
    // Another service on this machine is not us.
    client.code_for(&json!({ "url": "http://127.0.0.1:9/" })).await?;
    Ok(())
}

async fn a_bad_alias_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "a".repeat(33);
    for alias in [
        "", "ab", &long, "a/b", "../etc", "a.b", "a b", "a%2fb", "äöü", "abc\n", "links",
        "healthz", "readyz",
    ] {
        let response =
            client.create(&json!({ "url": client.page("abair"), "alias": alias })).await?;
        invalid(response, "alias").await.with_context(|| format!("{alias:?}"))?;
    }
    Ok(())
}

async fn a_bad_expiry_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let page = client.page("abeir");
    for seconds in [json!(0), json!(-1), json!(315_360_001), json!(i64::MAX), json!(i64::MIN)] {
        let link = json!({ "url": page, "expires_in_seconds": seconds });
        invalid(client.create(&link).await?, "expires_in_seconds")
            .await
            .context(seconds.to_string())?;
    }
    for seconds in ["1.5", "1e400", "99999999999999999999999", "\"60\"", "true"] {
        let body = format!(r#"{{"url":"{page}","expires_in_seconds":{seconds}}}"#);
        let request = target.request(Method::POST, "links");
        let request = request.header("content-type", "application/json").body(body);
        let response = target.send(request).await?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 422), "{seconds}: {status}");
        problem(response, status).await?;
    }
    // Ten years are allowed.
    client.code_for(&json!({ "url": page, "expires_in_seconds": 315_360_000 })).await?;
    Ok(())
}

async fn a_body_that_is_no_link_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let good = json!({ "url": client.page("abtinlir") });
    let request = || target.request(Method::POST, "links");
    refuses_bad_bodies(request, &good).await?;
    invalid(client.create(&json!({ "url": 7 })).await?, "url").await?;
    let unknown_field = format!(r#"{{"url": {}, "ulr": 1}}"#, good["url"]);
    for body in [
        r#"{"url": null}"#,
        r#"{"url": 7}"#,
        &unknown_field,
        r#"{"url": "https://a.example/", "url": "https://b.example/"}"#,
    ] {
        let request = request().header("content-type", "application/json").body(body.to_owned());
        let response = target.send(request).await?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 422), "{body}: {status}");
        problem(response, status).await?;
    }
    Ok(())
}

async fn a_code_that_can_be_none_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("plain");
    let code = client.code_for(&json!({ "url": client.page("actcbninf"), "alias": alias })).await?;
    let long = "a".repeat(1_000);
    for path in [
        long.as_str(),
        "%00",
        "a%2fb",
        "%2e%2e%2fetc%2fpasswd",
        "a%20b",
        "a'%20or%201=1--",
        &format!("{alias}%0d%0a"),
        "pl%C3%A4in",
        "%ff%fe",
    ] {
        for path in [path.to_owned(), format!("links/{path}")] {
            let response = target.get(&path).await?;
            let status = response.status().as_u16();
            ensure!(matches!(status, 400 | 404), "{path:.60}: {status}");
            problem(response, status).await.context(path)?;
        }
    }
    // Percent-encoded letters are the letters: RFC 3986, section 2.3.
    ensure!(code == alias && client.follow(&alias.replacen('p', "%70", 1)).await?.status() == 302);
    Ok(())
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::GET, "links"),
            (Method::PUT, "links"),
            (Method::POST, "abc"),
            (Method::DELETE, "abc"),
            (Method::PATCH, "links/abc"),
            (Method::POST, "links/abc/stats"),
            (Method::POST, "healthz"),
        ],
    )
    .await?;
    Ok(())
}
