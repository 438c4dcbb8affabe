//! Does the URL shortener do what its table of calls says? Over HTTP, as its clients would.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::{child::Child, database::Database};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};
use url_shortener::MIGRATIONS;

use crate::{
    http::{client, header, invalid, problem, refuses_bad_bodies},
    support::{Outcome, eventually, tests},
};

tests![
    a_link_redirects,
    a_link_can_be_looked_at,
    the_same_plain_url_gets_the_same_link,
    the_same_url_wanted_by_fifty_at_once_becomes_one_link,
    a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own,
    a_taken_alias_is_a_conflict,
    an_expired_link_is_gone,
    an_expired_alias_can_be_taken_again,
    a_deleted_link_is_not_found,
    an_unknown_code_is_not_found,
    head_redirects_and_counts_no_click,
    clicks_are_counted_by_day_and_by_referrer,
    a_clean_stop_writes_every_click,
    a_url_that_must_not_be_shortened_is_refused,
    a_url_in_every_good_shape_is_kept_as_it_is,
    a_link_to_ourselves_is_refused,
    a_bad_alias_is_refused,
    a_bad_expiry_is_refused,
    a_body_that_is_no_link_is_refused,
    a_code_that_can_be_none_is_not_found,
    a_wrong_method_is_not_allowed,
    too_many_creates_are_slowed_down,
    every_strategy_makes_codes_of_seven_characters,
    links_are_spread_over_shards,
    a_deleted_link_is_gone_from_another_process_within_the_bound,
    thousands_of_silent_connections_do_not_keep_others_out,
    the_service_says_that_it_lives_and_is_ready,
];

/// A shortener of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    databases: Vec<Database>,
    http: reqwest::Client,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let database = Database::fresh("url-shortener", &MIGRATIONS).await?;
        let child = Child::serve("url-shortener").database(&database).args(arguments);
        Ok(Self { child: child.start().await?, databases: vec![database], http: client()? })
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        let url = format!("{}/{path}", self.child.url());
        Ok(self.http.request(method, url).send().await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.ask(Method::GET, path).await
    }

    async fn post(&self, link: &Value) -> anyhow::Result<Response> {
        let url = format!("{}/links", self.child.url());
        Ok(self.http.post(url).json(link).send().await?)
    }

    /// Creates a link that must succeed, and returns its code.
    async fn create(&self, link: &Value) -> anyhow::Result<String> {
        let response = self.post(link).await?;
        ensure!(response.status() == 201, "{link}: {}", response.text().await?);
        let body: Value = response.json().await?;
        Ok(body["code"].as_str().context("no code")?.to_owned())
    }

    async fn clicks(&self, code: &str) -> anyhow::Result<Value> {
        Ok(self.get(&format!("links/{code}/stats")).await?.json().await?)
    }
}

async fn a_link_redirects() -> Outcome {
    let api = Api::start(&[]).await?;
    let target = "https://example.com/a?b=c#d";
    let created = api.post(&json!({ "url": target })).await?;
    ensure!(created.status() == 201);
    let location = header(&created, "location").to_owned();
    let body: Value = created.json().await?;
    let code = body["code"].as_str().context("no code")?;
    ensure!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{code}");
    ensure!(location == format!("/links/{code}"), "{location}");
    ensure!(body["short_url"] == format!("{}/{code}", api.child.url()), "{body}");
    ensure!(body["url"] == target && body["expires_at"].is_null(), "{body}");
    // Twice: from the database, and from the cache.
    for _ in 0..2 {
        let redirect = api.get(code).await?;
        ensure!(redirect.status() == StatusCode::FOUND);
        ensure!(header(&redirect, "location") == target);
        ensure!(header(&redirect, "cache-control") == "private, max-age=0");
    }
    Ok(())
}

async fn a_link_can_be_looked_at() -> Outcome {
    let api = Api::start(&[]).await?;
    let link = json!({ "url": "https://example.com/", "expires_in_seconds": 60 });
    let created: Value = api.post(&link).await?.json().await?;
    let code = created["code"].as_str().context("no code")?;
    let shown: Value = api.get(&format!("links/{code}")).await?.json().await?;
    ensure!(shown == created, "{shown} is not {created}");
    let format = &time::format_description::well_known::Rfc3339;
    let instant =
        |name: &str| time::OffsetDateTime::parse(shown[name].as_str().unwrap_or_default(), format);
    let life = instant("expires_at")? - instant("created_at")?;
    ensure!((life.as_seconds_f64() - 60.0).abs() < 0.001, "{shown}");
    ensure!(instant("created_at")?.offset().is_utc());
    Ok(())
}

async fn the_same_plain_url_gets_the_same_link() -> Outcome {
    let api = Api::start(&[]).await?;
    let link = json!({ "url": "https://example.com/twice" });
    let first: Value = api.post(&link).await?.json().await?;
    let second = api.post(&link).await?;
    ensure!(second.status() == 200, "{}", second.status());
    ensure!(second.json::<Value>().await? == first);
    Ok(())
}

async fn the_same_url_wanted_by_fifty_at_once_becomes_one_link() -> Outcome {
    let api = Api::start(&[]).await?;
    let link = json!({ "url": "https://example.com/crowd" });
    let answers = futures_util::future::try_join_all((0..50).map(|_| async {
        let response = api.post(&link).await?;
        let status = response.status();
        anyhow::Ok((status, response.json::<Value>().await?))
    }))
    .await?;
    let created = answers.iter().filter(|(status, _)| *status == 201).count();
    let found = answers.iter().filter(|(status, _)| *status == 200).count();
    ensure!((created, found) == (1, 49), "{created} created, {found} found");
    ensure!(answers.iter().all(|(_, body)| *body == answers[0].1));
    Ok(())
}

async fn a_url_with_an_expiry_or_an_alias_gets_a_link_of_its_own() -> Outcome {
    let api = Api::start(&[]).await?;
    let url = "https://example.com/many";
    let plain = api.create(&json!({ "url": url })).await?;
    let short_lived = api.create(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let another = api.create(&json!({ "url": url, "expires_in_seconds": 60 })).await?;
    let named = api.create(&json!({ "url": url, "alias": "many" })).await?;
    ensure!(plain != short_lived && short_lived != another && named == "many");
    for code in [plain, short_lived, another, named] {
        ensure!(header(&api.get(&code).await?, "location") == url);
    }
    Ok(())
}

async fn a_taken_alias_is_a_conflict() -> Outcome {
    let api = Api::start(&[]).await?;
    api.create(&json!({ "url": "https://example.com/1", "alias": "Sale_2026-x" })).await?;
    let again = json!({ "url": "https://example.com/2", "alias": "Sale_2026-x" });
    problem(api.post(&again).await?, 409).await?;
    // Letters differ by case.
    api.create(&json!({ "url": "https://example.com/2", "alias": "sale_2026-x" })).await?;
    ensure!(header(&api.get("Sale_2026-x").await?, "location").ends_with('1'));
    Ok(())
}

async fn an_expired_link_is_gone() -> Outcome {
    let api = Api::start(&[]).await?;
    let link = json!({ "url": "https://example.com/", "expires_in_seconds": 1 });
    let code = api.create(&link).await?;
    ensure!(api.get(&code).await?.status() == 302, "it has a second to live");
    eventually("the link expires", async || {
        Ok((api.get(&code).await?.status() != 302).then_some(()))
    })
    .await?;
    problem(api.get(&code).await?, 410).await?;
    problem(api.get(&format!("links/{code}")).await?, 410).await?;
    ensure!(api.ask(Method::HEAD, &code).await?.status() == 410);
    Ok(())
}

async fn an_expired_alias_can_be_taken_again() -> Outcome {
    let api = Api::start(&[]).await?;
    let link =
        json!({ "url": "https://example.com/old", "alias": "again", "expires_in_seconds": 1 });
    api.create(&link).await?;
    api.get("again").await?;
    let link = json!({ "url": "https://example.com/new", "alias": "again" });
    eventually("the alias is free again", async || {
        let response = api.post(&link).await?;
        ensure!(response.status() == 201 || response.status() == 409);
        Ok((response.status() == 201).then_some(()))
    })
    .await?;
    ensure!(header(&api.get("again").await?, "location").ends_with("new"));
    // The new owner does not inherit the old one's clicks, only the one just made.
    let clicks = eventually("the new link's click is written", async || {
        let stats = api.clicks("again").await?;
        Ok((stats["clicks"] != 0).then_some(stats))
    })
    .await?;
    ensure!(clicks["clicks"] == 1, "{clicks}");
    Ok(())
}

async fn a_deleted_link_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/" })).await?;
    ensure!(api.get(&code).await?.status() == 302);
    let path = format!("links/{code}");
    ensure!(api.ask(Method::DELETE, &path).await?.status() == 204);
    problem(api.get(&code).await?, 404).await?;
    problem(api.get(&path).await?, 404).await?;
    problem(api.get(&format!("{path}/stats")).await?, 404).await?;
    problem(api.ask(Method::DELETE, &path).await?, 404).await?;
    Ok(())
}

async fn an_unknown_code_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    for path in ["0000000", "abc", "links/0000000", "links/0000000/stats", "no/such/path"] {
        problem(api.get(path).await?, 404).await.context(path)?;
    }
    Ok(())
}

async fn head_redirects_and_counts_no_click() -> Outcome {
    let api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/head" })).await?;
    for _ in 0..5 {
        let head = api.ask(Method::HEAD, &code).await?;
        ensure!(head.status() == 302 && header(&head, "location").ends_with("head"));
    }
    api.get(&code).await?;
    let stats = eventually("the one click is written", async || {
        let stats = api.clicks(&code).await?;
        Ok((stats["clicks"] != 0).then_some(stats))
    })
    .await?;
    ensure!(stats["clicks"] == 1, "{stats}");
    Ok(())
}

async fn clicks_are_counted_by_day_and_by_referrer() -> Outcome {
    let api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/" })).await?;
    let none = api.clicks(&code).await?;
    ensure!(none == json!({ "code": code, "clicks": 0, "by_day": [], "referrers": [] }), "{none}");
    let url = format!("{}/{code}", api.child.url());
    for (referrer, times) in [("https://news.example/item?id=1", 3), ("http://blog.example", 2)] {
        for _ in 0..times {
            api.http.get(&url).header(header::REFERER, referrer).send().await?;
        }
    }
    // A referrer that is no web page, and one that is no text, are no referrers.
    api.http.get(&url).header(header::REFERER, "javascript:alert(1)").send().await?;
    let bytes = header::HeaderValue::from_bytes(b"\xff\xfe")?;
    api.http.get(&url).header(header::REFERER, bytes).send().await?;
    api.get(&code).await?;
    let stats = eventually("eight clicks are written", async || {
        let stats = api.clicks(&code).await?;
        Ok((stats["clicks"] == 8).then_some(stats))
    })
    .await?;
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

async fn a_clean_stop_writes_every_click() -> Outcome {
    let mut api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/" })).await?;
    for _ in 0..50 {
        api.get(&code).await?;
    }
    let status = api.child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    api.child.restart().await?;
    let stats = api.clicks(&code).await?;
    ensure!(stats["clicks"] == 50, "{stats}");
    Ok(())
}

/// Shapes from the WHATWG URL test cases (urltestdata.json), and what an attacker would try.
async fn a_url_that_must_not_be_shortened_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let long = format!("https://example.com/{}", "a".repeat(2_048));
    for url in [
        "",
        " ",
        "example.com",
        "//example.com/",
        "/path",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<script>",
        "file:///etc/passwd",
        "ftp://example.com/",
        "mailto:a@example.com",
        "ws://example.com/",
        "http://",
        "http:///",
        "https://?x",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "https://example.com@evil.example/",
        "http://:80/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "http://example.com/a b",
        " https://example.com/",
        "https://example.com/\t",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://exam\nple.com/",
        "https://example.com/\u{0}",
        "https://example.com/\u{7f}",
        "http://[::1",
        "http://[::1::2]/",
        "http://256.256.256.256/",
        "http://a%00b/",
        "http://%zz/",
        "http://xn--a/",
        &long,
    ] {
        let response = api.post(&json!({ "url": url })).await?;
        invalid(response, "url").await.with_context(|| format!("{url:?}"))?;
    }
    Ok(())
}

async fn a_url_in_every_good_shape_is_kept_as_it_is() -> Outcome {
    let api = Api::start(&[]).await?;
    let fits = format!("https://example.com/{}", "a".repeat(2_048 - 20));
    for (url, target) in [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://EXAMPLE.com:443/A", "https://example.com/A"),
        ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://192.0.2.1/", "http://192.0.2.1/"),
        ("https://bücher.example/ü?q=ö#ä", "https://xn--bcher-kva.example/%C3%BC?q=%C3%B6#%C3%A4"),
        ("https://例え.テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("https://example.com/a/../b", "https://example.com/b"),
        (
            "https://example.com/%0d%0aSet-Cookie:%20a=b",
            "https://example.com/%0d%0aSet-Cookie:%20a=b",
        ),
        ("https://example.com/?a=%20&b=+", "https://example.com/?a=%20&b=+"),
        (&fits, &fits),
    ] {
        let code = api.create(&json!({ "url": url })).await?;
        let redirect = api.get(&code).await?;
        ensure!(header(&redirect, "location") == target, "{url}: {redirect:?}");
        ensure!(header(&redirect, "set-cookie").is_empty());
    }
    Ok(())
}

async fn a_link_to_ourselves_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let ourselves = format!("{}/abc", api.child.url());
    invalid(api.post(&json!({ "url": ourselves })).await?, "url").await?;
    // Another service on this machine is not us.
    api.create(&json!({ "url": "http://127.0.0.1:9/" })).await?;
    Ok(())
}

async fn a_bad_alias_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let long = "a".repeat(33);
    for alias in [
        "", "ab", &long, "a/b", "../etc", "a.b", "a b", "a%2fb", "äöü", "abc\n", "links",
        "healthz", "readyz",
    ] {
        let response = api.post(&json!({ "url": "https://example.com/", "alias": alias })).await?;
        invalid(response, "alias").await.with_context(|| format!("{alias:?}"))?;
    }
    Ok(())
}

async fn a_bad_expiry_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    for seconds in [json!(0), json!(-1), json!(315_360_001), json!(i64::MAX), json!(i64::MIN)] {
        let link = json!({ "url": "https://example.com/", "expires_in_seconds": seconds });
        invalid(api.post(&link).await?, "expires_in_seconds").await.context(seconds.to_string())?;
    }
    for seconds in ["1.5", "1e400", "99999999999999999999999", "\"60\"", "true"] {
        let body = format!(r#"{{"url":"https://example.com/","expires_in_seconds":{seconds}}}"#);
        let url = format!("{}/links", api.child.url());
        let request = api.http.post(url).header("content-type", "application/json").body(body);
        let status = request.send().await?;
        ensure!(matches!(status.status().as_u16(), 400 | 422), "{seconds}: {}", status.status());
        let code = status.status().as_u16();
        problem(status, code).await?;
    }
    // Ten years are allowed.
    api.create(&json!({ "url": "https://example.com/", "expires_in_seconds": 315_360_000 }))
        .await?;
    Ok(())
}

async fn a_body_that_is_no_link_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let good = json!({ "url": "https://example.com/" });
    let url = format!("{}/links", api.child.url());
    refuses_bad_bodies(|| api.http.post(&url), &good).await?;
    invalid(api.post(&json!({ "url": 7 })).await?, "url").await?;
    for body in [
        r#"{"url": null}"#,
        r#"{"url": 7}"#,
        r#"{"url": "https://example.com/", "ulr": 1}"#,
        r#"{"url": "https://a.example/", "url": "https://b.example/"}"#,
    ] {
        let request = api.http.post(&url).header("content-type", "application/json");
        let response = request.body(body).send().await?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 422), "{body}: {status}");
        problem(response, status).await?;
    }
    Ok(())
}

async fn a_code_that_can_be_none_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/", "alias": "plain" })).await?;
    let long = "a".repeat(1_000);
    for path in [
        long.as_str(),
        "%00",
        "a%2fb",
        "%2e%2e%2fetc%2fpasswd",
        "a%20b",
        "a'%20or%201=1--",
        "plain%0d%0a",
        "pl%C3%A4in",
        "%ff%fe",
    ] {
        for path in [path.to_owned(), format!("links/{path}")] {
            let response = api.get(&path).await?;
            let status = response.status().as_u16();
            ensure!(matches!(status, 400 | 404), "{path:.60}: {status}");
            problem(response, status).await.context(path)?;
        }
    }
    // Percent-encoded letters are the letters: RFC 3986, section 2.3.
    ensure!(code == "plain" && api.get("%70lain").await?.status() == 302);
    Ok(())
}

async fn a_wrong_method_is_not_allowed() -> Outcome {
    let api = Api::start(&[]).await?;
    for (method, path) in [
        (Method::GET, "links"),
        (Method::PUT, "links"),
        (Method::POST, "abc"),
        (Method::DELETE, "abc"),
        (Method::PATCH, "links/abc"),
        (Method::POST, "links/abc/stats"),
        (Method::POST, "healthz"),
    ] {
        let response = api.ask(method.clone(), path).await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}

async fn too_many_creates_are_slowed_down() -> Outcome {
    let api = Api::start(&["--creates-per-second", "1"]).await?;
    let mut statuses = Vec::new();
    for n in 0..5 {
        let link = json!({ "url": format!("https://example.com/{n}") });
        let response = api.post(&link).await?;
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            let after: u64 = header(&response, "retry-after").parse().context("Retry-After")?;
            ensure!((1..=5).contains(&after), "Retry-After: {after}");
            problem(response, 429).await?;
        }
    }
    ensure!(statuses[..2] == [201, 201] && statuses.contains(&429), "{statuses:?}");
    // Redirects are not limited.
    ensure!(api.get("unknown").await?.status() == 404);
    Ok(())
}

async fn every_strategy_makes_codes_of_seven_characters() -> Outcome {
    for strategy in ["crc32", "sequence", "random"] {
        let api = Api::start(&["--codes", strategy]).await?;
        let mut codes = std::collections::HashSet::new();
        for n in 0..20 {
            let url = format!("https://example.com/{n}");
            let code = api.create(&json!({ "url": url })).await?;
            ensure!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            ensure!(header(&api.get(&code).await?, "location") == url);
            ensure!(codes.insert(code), "{strategy} gave a code twice");
        }
    }
    Ok(())
}

async fn links_are_spread_over_shards() -> Outcome {
    let shards = [
        Database::fresh("url-shortener", &MIGRATIONS).await?,
        Database::fresh("url-shortener", &MIGRATIONS).await?,
    ];
    let arguments = ["--shard", shards[0].url(), "--shard", shards[1].url()];
    let mut api = Api::start(&arguments).await?;
    let mut codes = Vec::new();
    for n in 0..60 {
        codes.push(api.create(&json!({ "url": format!("https://example.com/{n}") })).await?);
    }
    for code in &codes {
        ensure!(api.get(code).await?.status() == 302);
    }
    for shard in &shards {
        let pool = shard.pool().await?;
        let links: i64 = sqlx::query_scalar("select count(*) from links").fetch_one(&pool).await?;
        ensure!((5..=55).contains(&links), "a shard holds {links} of 60 links");
        pool.close().await;
    }
    api.databases.extend(shards);
    Ok(())
}

async fn a_deleted_link_is_gone_from_another_process_within_the_bound() -> Outcome {
    let api = Api::start(&[]).await?;
    let other = Child::serve("url-shortener").database(&api.databases[0]).start().await?;
    let code = api.create(&json!({ "url": "https://example.com/" })).await?;
    let elsewhere = format!("{}/{code}", other.url());
    ensure!(api.http.get(&elsewhere).send().await?.status() == 302, "now hot over there");
    api.ask(Method::DELETE, &format!("links/{code}")).await?;
    let begun = Instant::now();
    ensure!(api.get(&code).await?.status() == 404, "at once where it was deleted");
    let bound = url_shortener::cache::FRESH_FOR + Duration::from_secs(5);
    while api.http.get(&elsewhere).send().await?.status() == 302 {
        ensure!(begun.elapsed() < bound, "the other process still redirects");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn thousands_of_silent_connections_do_not_keep_others_out() -> Outcome {
    let api = Api::start(&[]).await?;
    let code = api.create(&json!({ "url": "https://example.com/" })).await?;
    let mut silent = Vec::new();
    for _ in 0..2_000 {
        silent.push(TcpStream::connect(api.child.address()).await?);
    }
    ensure!(api.get(&code).await?.status() == 302, "others are kept out");
    // Each is cut off, with an answer or without one.
    for stream in &mut silent {
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let end = tokio::time::timeout(Duration::from_secs(40), end).await;
        end.context("a silent connection stays open")?.ok();
    }
    ensure!(api.get(&code).await?.status() == 302);
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready() -> Outcome {
    let api = Api::start(&[]).await?;
    ensure!(api.get("healthz").await?.status() == 200);
    ensure!(api.get("readyz").await?.status() == 200);
    Ok(())
}
