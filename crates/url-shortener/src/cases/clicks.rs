//! What counts as a click?

use reqwest::{
    Method,
    header::{HeaderValue, REFERER},
};
use serde_json::{Value, json};

use super::client::{Client, redirects};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, list, text},
    http::header_is,
    target::Target,
};

cases! {
    Plain head_redirects_and_counts_no_click: "HEAD /{code}: as GET, and no click", "Chat programs ask with HEAD to show a preview. Nobody has read the page then.";
    Plain clicks_are_counted_by_day_and_by_referrer: "GET /links/{code}/stats: all clicks, by day, and by the host of Referer", "A referrer that is garbage must not cost the click.";
}

async fn head_redirects_and_counts_no_click(target: &Target) -> Outcome {
    let client = Client::of(target);
    let url = client.page("hracnc/head");
    let code = client.code_for(&json!({ "url": url })).await?;
    for _ in 0..5 {
        let head = client.preview(&code).await?;
        redirects(&head)?;
        header_is(&head, "location", &url)?;
    }
    client.follow(&code).await?;
    let stats = client.stats_with(&code, 1).await?;
    equal("the clicks after five HEAD and one GET", stats["clicks"].clone(), 1)
}

async fn clicks_are_counted_by_day_and_by_referrer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let code = client.code_for(&json!({ "url": client.page("cacbdabr") })).await?;
    let none = json_of(client.stats(&code).await?, 200).await?;
    equal("the clicks on a new link", none["clicks"].clone(), 0)?;
    let empty = list(&none, "by_day")?.is_empty() && list(&none, "referrers")?.is_empty();
    expect(empty, "empty lists by_day and referrers for a new link", &none)?;
    for (referrer, times) in [
        (&b"https://news.example/item?id=1"[..], 3),
        (b"http://blog.example", 2),
        // These count as no referrer: the first is no web page, the second no text.
        (b"javascript:alert(1)", 1),
        (b"\xff\xfe", 1),
    ] {
        for _ in 0..times {
            let follow = target.request(Method::GET, &code);
            let follow = follow.header(REFERER, HeaderValue::from_bytes(referrer)?);
            redirects(&target.send(follow).await?)?;
        }
    }
    client.follow(&code).await?;
    let stats = client.stats_with(&code, 8).await?;
    let days = list(&stats, "by_day")?;
    // Midnight may pass.
    expect((1..=2).contains(&days.len()), "one day in by_day, or two", &stats)?;
    let day = text(&days[0], "day")?;
    expect(day.len() == 10 && day.as_bytes()[4] == b'-', "a day as 2026-01-31", day)?;
    for (host, clicks) in [("news.example", 3), ("blog.example", 2), ("direct", 3)] {
        let row = list(&stats, "referrers")?.iter().find(|row| row["host"] == host);
        let seen = row.map_or(Value::Null, |row| row["clicks"].clone());
        equal(&format!("the clicks with the host {host} in referrers"), seen, clicks)?;
    }
    Ok(())
}
