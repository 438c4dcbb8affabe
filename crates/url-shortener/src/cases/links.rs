//! How is a link made, found and shown?

use anyhow::Context;
use reqwest::Response;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::client::{Client, redirects};
use conform::{
    case::Outcome,
    cases,
    expect::{ends_with, equal, expect, json_of, status, text},
    http::{header, header_is, lives_and_is_ready, problem},
    target::Target,
};

cases! {
    Plain a_link_redirects: "POST /links: 201 with Location and the link. GET /{code}: 302 to its URL, and no cache may keep that", "The redirect is the product. A browser that caches it is never counted again, and never sees that the link was deleted.";
    Plain a_link_can_be_looked_at: "GET /links/{code}: 200 and the link as it was created, with times in RFC 3339 UTC", "A client has to be able to show what it has made.";
    Plain the_same_plain_url_gets_the_same_link: "The same URL again, without alias and expiry: 200 and the same code", "A client that did not hear the answer asks again, and gets no second link.";
    Plain a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own: "A URL with an alias or an expiry: a link of its own", "A link that somebody wants to end must not end somebody else's link to the same page.";
    Plain a_taken_alias_is_a_conflict: "An alias that somebody has: 409; letters differ by case", "The first owner keeps it.";
    Plain an_unknown_code_is_not_found: "A code that nobody has, or a path that does not exist: 404", "Somebody asks for an unknown code every day. That is no error of the server.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

async fn a_link_redirects(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = client.page("a?b=c#d");
    let created = client.create(&json!({ "url": long })).await?;
    let location = header(&created, "location").to_owned();
    let link = json_of(created, 201).await?;
    let code = text(&link, "code")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    expect(!code.is_empty() && code.bytes().all(fits), "a code of letters, digits, - and _", code)?;
    ends_with("the header `Location`", &location, &format!("/links/{code}"))?;
    let short = text(&link, "short_url")?;
    ends_with("the field `short_url`", short, &format!("/{code}"))?;
    equal("the field `url`", link["url"].clone(), &*long)?;
    equal("the field `expires_at`", link["expires_at"].clone(), Value::Null)?;
    // Twice: the second answer may come from a cache.
    for _ in 0..2 {
        let redirect = client.follow(code).await?;
        redirects(&redirect)?;
        header_is(&redirect, "location", &long)?;
        may_not_be_used_again(&redirect)?;
    }
    Ok(())
}

/// A redirect with one of these statuses is only cached if a header allows it.
fn may_not_be_used_again(redirect: &Response) -> Outcome {
    let caching = header(redirect, "cache-control");
    let lives = caching.split(',').filter_map(|directive| directive.trim().split_once("max-age="));
    // `s-maxage` is for shared caches. The filter above does not find it, because it is written without that hyphen.
    let for_all = caching.contains("s-maxage=") && !caching.contains("s-maxage=0");
    let none = lives.into_iter().all(|(_, seconds)| seconds == "0") && !for_all;
    expect(none, "no `Cache-Control` that lets anybody use the redirect again", caching)
}

async fn a_link_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("alcbla"), "expires_in_seconds": 60 });
    let created = json_of(client.create(&link).await?, 201).await?;
    let shown = json_of(client.look_at(text(&created, "code")?).await?, 200).await?;
    for field in ["code", "short_url", "url", "created_at", "expires_at"] {
        equal(&format!("the field `{field}`"), shown[field].clone(), created[field].clone())?;
    }
    let instant = |field: &str| {
        let text = text(&shown, field)?;
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|it| it.offset().is_utc());
        instant
            .with_context(|| format!("expected a time in RFC 3339 UTC in `{field}`, got {text:?}"))
    };
    let life = (instant("expires_at")? - instant("created_at")?).as_seconds_f64();
    expect((59.0..=61.0).contains(&life), "60 seconds from created_at to expires_at", life)
}

async fn the_same_plain_url_gets_the_same_link(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("tspugtsl/twice") });
    let first = json_of(client.create(&link).await?, 201).await?;
    let second = json_of(client.create(&link).await?, 200).await?;
    equal("the code for the same URL", second["code"].clone(), first["code"].clone())
}

async fn a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own(target: &Target) -> Outcome {
    let client = Client::of(target);
    let url = client.page("auwaeoaagaloio/many");
    let alias = client.alias("many");
    let plain = client.code_for(&json!({ "url": url })).await?;
    let short_lived = client.code_for(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let another = client.code_for(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let named = client.code_for(&json!({ "url": url, "alias": alias })).await?;
    expect(plain != short_lived, "another code for the link with an expiry", &short_lived)?;
    expect(short_lived != another, "another code for the next link with an expiry", &another)?;
    equal("the code of a link with an alias", &*named, &*alias)?;
    for code in [plain, short_lived, another, named] {
        let leads_to = client.destination(&code).await?;
        equal(&format!("the destination of /{code}"), leads_to, &*url)?;
    }
    Ok(())
}

async fn a_taken_alias_is_a_conflict(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("Sale_2026-x");
    let (first, second) = (client.page("ataiac/1"), client.page("ataiac/2"));
    client.code_for(&json!({ "url": first, "alias": alias })).await?;
    problem(client.create(&json!({ "url": second, "alias": alias })).await?, 409).await?;
    let other = client.create(&json!({ "url": second, "alias": alias.to_lowercase() })).await?;
    status(&other, 201).context("the same alias in small letters is another")?;
    equal("the destination of the alias", client.destination(&alias).await?, first)
}

async fn an_unknown_code_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let nobodys = client.alias("nobody");
    for path in [
        nobodys.clone(),
        format!("links/{nobodys}"),
        format!("links/{nobodys}/stats"),
        "no/such/path".to_owned(),
    ] {
        problem(target.get(&path).await?, 404).await?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
