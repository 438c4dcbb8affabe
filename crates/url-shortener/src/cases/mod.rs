//! The URL shortener's table of calls.

mod bad_input;
pub mod client;

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use reqwest::{
    Method, StatusCode,
    header::{HeaderValue, REFERER},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::Client;
use conform::{
    case::{Outcome, Suite},
    cases,
    http::{header, lives_and_is_ready, problem},
    killing::Killing,
    target::{Target, eventually},
};

cases! {
    Plain a_link_redirects: "201 with Location and the link; then 302 to its URL, not to be cached", "The redirect is the product. A browser that caches it is never counted again, and never sees a delete.";
    Plain a_link_can_be_looked_at: "GET /links/{code}: 200 and the link as it was created, times in RFC 3339 UTC", "A client has to be able to show what it has made.";
    Plain the_same_plain_url_gets_the_same_link: "The same plain URL again: 200 and the same link", "Retries are safe: a client that did not hear the answer asks again and gets no second link.";
    Load the_same_url_wanted_by_fifty_at_once_becomes_one_link: "Of fifty who ask at once, one gets 201, the others 200, all the same link", "Look first and insert after, and two of them both find nothing.";
    Plain a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own: "With an alias or an expiry: a link of its own", "Whoever asked for an end must not get a link that has none, nor end somebody else's.";
    Plain a_taken_alias_is_a_conflict: "A taken alias: 409; letters differ by case", "The first owner keeps it.";
    Plain an_expired_link_is_gone: "410 within a second of its end, for GET, HEAD and the link itself", "410 says that it was there: crawlers forget it, people ask for a new one.";
    Plain an_expired_alias_can_be_taken_again: "An expired alias is free, and its clicks are not inherited", "A good name must not be lost for ever; the new owner's numbers must be his own.";
    Plain a_deleted_link_is_not_found: "DELETE: 204; then 404 everywhere", "A deleted link that still redirects is the complaint that reaches the lawyers.";
    Plain an_unknown_code_is_not_found: "404 for what nobody has", "An unknown code is an everyday event and no error of the server.";
    Plain head_redirects_and_counts_no_click: "HEAD: as GET, and no click", "Previews ask with HEAD. They are no readers.";
    Plain clicks_are_counted_by_day_and_by_referrer: "GET /links/{code}/stats: clicks, by day, by referring host", "Counted within a second or two, and a referrer that is garbage harms nobody.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "The balancer asks.";
    Load an_alias_that_fifty_want_has_one_owner: "Of fifty who want one alias at once, one gets 201 and the others 409", "Look first and insert after, and two of them both find it free.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "SIGKILL under load: every link that was answered with 201 resolves afterwards", "201 is a promise. A cache in front of the disk does not keep it.";
}

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The server needs no options. Links are made with URLs and aliases of their own.";

/// All of them, in the order of the table.
pub fn suite() -> Suite {
    Suite { needs: NEEDS, cases: [cases(), bad_input::cases()].concat() }
}

async fn a_link_redirects(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = client.page("a?b=c#d");
    let created = client.create(&json!({ "url": long })).await?;
    ensure!(created.status() == 201);
    let location = header(&created, "location").to_owned();
    let body: Value = created.json().await?;
    let code = body["code"].as_str().context("no code")?;
    ensure!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{code}");
    ensure!(location == format!("/links/{code}"), "{location}");
    ensure!(body["short_url"] == format!("{}/{code}", target.url()), "{body}");
    ensure!(body["url"] == long && body["expires_at"].is_null(), "{body}");
    // Twice: from the database, and from the cache.
    for _ in 0..2 {
        let redirect = client.follow(code).await?;
        ensure!(redirect.status() == StatusCode::FOUND);
        ensure!(header(&redirect, "location") == long);
        ensure!(header(&redirect, "cache-control") == "private, max-age=0");
    }
    Ok(())
}

async fn a_link_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("alcbla"), "expires_in_seconds": 60 });
    let created: Value = client.create(&link).await?.json().await?;
    let code = created["code"].as_str().context("no code")?;
    let shown: Value = client.look_at(code).await?.json().await?;
    ensure!(shown == created, "{shown} is not {created}");
    let format = &Rfc3339;
    let instant =
        |name: &str| OffsetDateTime::parse(shown[name].as_str().unwrap_or_default(), format);
    let life = instant("expires_at")? - instant("created_at")?;
    ensure!((life.as_seconds_f64() - 60.0).abs() < 0.001, "{shown}");
    ensure!(instant("created_at")?.offset().is_utc());
    Ok(())
}

async fn the_same_plain_url_gets_the_same_link(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("tspugtsl/twice") });
    let first: Value = client.create(&link).await?.json().await?;
    let second = client.create(&link).await?;
    ensure!(second.status() == 200, "{}", second.status());
    ensure!(second.json::<Value>().await? == first);
    Ok(())
}

async fn the_same_url_wanted_by_fifty_at_once_becomes_one_link(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("crowd") });
    let answers = try_join_all((0..50).map(|_| async {
        let (response, unsure) = target.post_patiently("links", &link).await?;
        anyhow::Ok((response.status().as_u16(), unsure, response.json::<Value>().await?))
    }))
    .await?;
    let count = |wanted: u16| answers.iter().filter(|(status, ..)| *status == wanted).count();
    let (created, found) = (count(201), count(200));
    let unsure = answers.iter().any(|(_, unsure, _)| *unsure);
    ensure!(created + found == 50, "{created} created, {found} found");
    ensure!(created == 1 || created == 0 && unsure, "{created} created");
    ensure!(answers.iter().all(|(.., body)| body["code"] == answers[0].2["code"]));
    Ok(())
}

async fn a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own(target: &Target) -> Outcome {
    let client = Client::of(target);
    let url = client.page("auwaeoaagaloio/many");
    let alias = client.alias("many");
    let plain = client.code_for(&json!({ "url": url })).await?;
    let short_lived = client.code_for(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let another = client.code_for(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let named = client.code_for(&json!({ "url": url, "alias": alias })).await?;
    ensure!(plain != short_lived && short_lived != another && named == alias);
    for code in [plain, short_lived, another, named] {
        ensure!(client.destination(&code).await? == url);
    }
    Ok(())
}

async fn a_taken_alias_is_a_conflict(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("Sale_2026-x");
    client.code_for(&json!({ "url": client.page("ataiac/1"), "alias": alias })).await?;
    let again = json!({ "url": client.page("ataiac/2"), "alias": alias });
    problem(client.create(&again).await?, 409).await?;
    // Letters differ by case.
    client
        .code_for(&json!({ "url": client.page("ataiac/2"), "alias": alias.to_lowercase() }))
        .await?;
    ensure!(client.destination(&alias).await?.ends_with('1'));
    Ok(())
}

async fn an_expired_link_is_gone(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("aelig"), "expires_in_seconds": 1 });
    let code = client.code_for(&link).await?;
    ensure!(client.follow(&code).await?.status() == 302, "it has a second to live");
    eventually("the link expires", async || {
        Ok((client.follow(&code).await?.status() != 302).then_some(()))
    })
    .await?;
    problem(client.follow(&code).await?, 410).await?;
    problem(client.look_at(&code).await?, 410).await?;
    ensure!(client.preview(&code).await?.status() == 410);
    Ok(())
}

async fn an_expired_alias_can_be_taken_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("again");
    let link =
        json!({ "url": client.page("aeacbta/old"), "alias": alias, "expires_in_seconds": 1 });
    client.code_for(&link).await?;
    client.follow(&alias).await?;
    let link = json!({ "url": client.page("aeacbta/new"), "alias": alias });
    eventually("the alias is free again", async || {
        let response = client.create(&link).await?;
        ensure!(response.status() == 201 || response.status() == 409);
        Ok((response.status() == 201).then_some(()))
    })
    .await?;
    ensure!(client.destination(&alias).await?.ends_with("new"));
    // The new owner does not inherit the old one's clicks, only the one just made.
    let clicks = client.stats_with(&alias, 1).await?;
    ensure!(clicks["clicks"] == 1, "{clicks}");
    Ok(())
}

async fn a_deleted_link_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let code = client.code_for(&json!({ "url": client.page("adlinf") })).await?;
    ensure!(client.follow(&code).await?.status() == 302);
    ensure!(client.delete(&code).await?.status() == 204);
    problem(client.follow(&code).await?, 404).await?;
    problem(client.look_at(&code).await?, 404).await?;
    problem(client.stats(&code).await?, 404).await?;
    problem(client.delete(&code).await?, 404).await?;
    Ok(())
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
        problem(target.get(&path).await?, 404).await.context(path)?;
    }
    Ok(())
}

async fn head_redirects_and_counts_no_click(target: &Target) -> Outcome {
    let client = Client::of(target);
    let code = client.code_for(&json!({ "url": client.page("hracnc/head") })).await?;
    for _ in 0..5 {
        let head = client.preview(&code).await?;
        ensure!(head.status() == 302 && header(&head, "location").ends_with("head"));
    }
    client.follow(&code).await?;
    let stats = client.stats_with(&code, 1).await?;
    ensure!(stats["clicks"] == 1, "{stats}");
    Ok(())
}

async fn clicks_are_counted_by_day_and_by_referrer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let code = client.code_for(&json!({ "url": client.page("cacbdabr") })).await?;
    let none: Value = client.stats(&code).await?.json().await?;
    ensure!(none == json!({ "code": code, "clicks": 0, "by_day": [], "referrers": [] }), "{none}");
    for (referrer, times) in [
        (&b"https://news.example/item?id=1"[..], 3),
        (b"http://blog.example", 2),
        // One that is no web page, and one that is no text, are no referrers.
        (b"javascript:alert(1)", 1),
        (b"\xff\xfe", 1),
    ] {
        for _ in 0..times {
            let follow = target.request(Method::GET, &code);
            target.send(follow.header(REFERER, HeaderValue::from_bytes(referrer)?)).await?;
        }
    }
    client.follow(&code).await?;
    let stats = client.stats_with(&code, 8).await?;
    ensure!(stats["by_day"].as_array().context("by_day")?.len() <= 2, "{stats}");
    let day = stats["by_day"][0]["day"].as_str().with_context(|| stats.to_string())?;
    ensure!(day.len() == 10 && day.as_bytes()[4] == b'-', "{day}");
    let hosts = stats["referrers"].as_array().context("referrers")?;
    let clicks =
        |host: &str| hosts.iter().find(|row| row["host"] == host).map(|row| &row["clicks"]);
    ensure!(clicks("news.example") == Some(&json!(3)), "{stats}");
    ensure!(clicks("blog.example") == Some(&json!(2)), "{stats}");
    ensure!(clicks("direct") == Some(&json!(3)), "{stats}");
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await?;
    Ok(())
}

async fn an_alias_that_fifty_want_has_one_owner(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("wanted");
    let answers = try_join_all((0..50).map(|n| {
        let link = json!({ "url": client.page(&format!("wanted/{n}")), "alias": alias });
        async move {
            let (response, unsure) = target.post_patiently("links", &link).await?;
            anyhow::Ok((response.status().as_u16(), unsure))
        }
    }))
    .await?;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    let (won, lost) = (count(201), count(409));
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    ensure!(won + lost == 50, "{answers:?}");
    ensure!(won == 1 || won == 0 && unsure, "{won} own it");
    ensure!(client.follow(&alias).await?.status() == StatusCode::FOUND, "nobody owns it");
    Ok(())
}

/// Eight clients create until the server is gone or has been started again; it is killed when they have made a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|worker| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            for n in 0.. {
                let url = client.page(&format!("killed/{worker}/{n}"));
                if killing.is_over() {
                    break;
                }
                let Ok(response) = client.create(&json!({ "url": url })).await else { break };
                if response.status() == 201 {
                    let body: Value = response.json().await?;
                    promised.push((body["code"].as_str().context("no code")?.to_owned(), url));
                    killing.promised();
                } else {
                    // Too many at once: then a little later.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            anyhow::Ok(promised)
        }
    });
    let promised = killing.after(100, target, clients).await?;
    let promised: Vec<_> = promised.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    for (code, url) in promised {
        let leads_to = client.destination(&code).await?;
        ensure!(leads_to == url, "{code} was promised {url}, and leads to {leads_to:?}");
    }
    Ok(())
}
