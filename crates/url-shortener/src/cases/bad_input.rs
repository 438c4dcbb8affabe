//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use reqwest::Method;
use serde_json::json;

use super::client::{Client, redirects};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, json_of, status, status_in, text},
    http::{invalid, not_allowed, refused},
    target::Target,
};

cases! {
    Plain a_url_that_must_not_be_shortened_is_refused: "A url that is not a valid http or https URL with a host, or has blanks, control characters or a user name: 422 that names url", "A short link hides where it leads: no scripts, no user names, no line ends that become headers.";
    Plain a_link_to_the_shortener_itself_is_refused: "A url that leads to the shortener itself: 422 that names url", "It would be a chain of redirects, or a loop.";
    Plain a_bad_alias_is_refused: "An alias that is not 3 to 32 letters, digits, _ and -, or is a path of the service: 422 that names alias", "Slashes and dots in an alias are paths to somewhere else.";
    Plain a_bad_expiry_is_refused: "An expiry that is not a whole number from 1 to 315360000: 422 that names expires_in_seconds, or 400 for what is no whole number", "Numbers overflow, and nobody may get a link that ended in 1901.";
    Plain a_body_that_is_no_link_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_string_that_cannot_be_a_code_is_not_found: "A string that cannot be a code: 404, or 400; a percent-encoded letter is the letter", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
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
        invalid(response, "url").await.with_context(|| format!("for the url {url:.60?}"))?;
    }
    Ok(())
}

async fn a_link_to_the_shortener_itself_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link =
        json_of(client.create(&json!({ "url": client.page("altsiir") })).await?, 201).await?;
    // The address that the program gives itself. We may use another one.
    let itself = text(&link, "short_url")?;
    invalid(client.create(&json!({ "url": itself })).await?, "url").await?;
    let other = json!({ "url": format!("http://127.0.0.1:9/{}", target.tag()) });
    status(&client.create(&other).await?, 201).context("another service on the same machine")
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
        invalid(response, "alias").await.with_context(|| format!("for the alias {alias:?}"))?;
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
            .with_context(|| format!("for {seconds} seconds"))?;
    }
    for seconds in ["1.5", "1e400", "99999999999999999999999", "\"60\"", "true"] {
        let body = format!(r#"{{"url":"{page}","expires_in_seconds":{seconds}}}"#);
        let request = target.request(Method::POST, "links");
        let request = request.header("content-type", "application/json").body(body);
        refused(target.send(request).await?, &[400, 422]).await?;
    }
    let ten_years = json!({ "url": page, "expires_in_seconds": 315_360_000 });
    status(&client.create(&ten_years).await?, 201).context("ten years are allowed")
}

async fn a_body_that_is_no_link_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let good = json!({ "url": client.page("abtinlir") });
    let request = || target.request(Method::POST, "links");
    refuses_bad_bodies(target, request, &good).await?;
    invalid(client.create(&json!({ "url": 7 })).await?, "url").await?;
    let unknown_field = format!(r#"{{"url": {}, "ulr": 1}}"#, good["url"]);
    for body in [
        r#"{"url": null}"#,
        r#"{"url": 7}"#,
        &unknown_field,
        r#"{"url": "https://a.example/", "url": "https://b.example/"}"#,
    ] {
        let request = request().header("content-type", "application/json").body(body.to_owned());
        refused(target.send(request).await?, &[400, 422]).await?;
    }
    Ok(())
}

async fn a_string_that_cannot_be_a_code_is_not_found(target: &Target) -> Outcome {
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
            // Some servers refuse such a path before the program is asked, and know no problem documents.
            status_in(&target.get(&path).await?, &[404, 400])?;
        }
    }
    equal("the code of a link with an alias", code, &*alias)?;
    // RFC 3986, section 2.3.
    let encoded = client.follow(&alias.replacen('p', "%70", 1)).await?;
    redirects(&encoded).context("%70 is the letter p")
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::GET, "links"),
            (Method::PUT, "links"),
            (Method::POST, "abc"),
            (Method::DELETE, "abc"),
            (Method::POST, "links/abc"),
            (Method::POST, "links/abc/stats"),
            (Method::POST, "healthz"),
        ],
    )
    .await
}
