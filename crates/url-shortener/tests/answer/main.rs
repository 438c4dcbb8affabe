//! Does the URL shortener do what it promises? Over HTTP, as its clients would see it.

mod clicks;
mod shards;

use std::{
    collections::HashSet,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use conform::{
    http::{header, invalid, problem},
    program::Program,
    run::Tried,
    target::Target,
};
use lab::{
    fault::{Fault, Proxy},
    harness::{Completion, Outcome, Served, eventually, run, trial},
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, task::JoinSet};
use url_shortener::{
    cases::client::Client,
    experiments::fixture::{Fixture, UNLIMITED, start},
};

fn main() -> ExitCode {
    let tests = [clicks::tests(), shards::tests(), tests()];
    let mut tests: Vec<_> = tests.into_iter().flatten().collect();
    tests.push(trial(
        module_path!(),
        "a_shortener_in_python_conforms",
        a_shortener_in_python_conforms,
    ));
    run(url_shortener::answer(), || Box::pin(serve_for_cases()), tests)
}

/// The program as its cases want it: without a limit on new links.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().args(&UNLIMITED).start().await?, fixture))
}

lab::tests![
    a_clean_stop_writes_every_click,
    a_url_that_must_not_be_shortened_is_refused,
    a_url_in_every_good_shape_is_kept_as_it_is,
    too_many_creates_are_slowed_down,
    codes_have_seven_characters_and_only_plain_links_share_one,
    a_link_to_this_very_process_is_refused_in_every_spelling,
    a_code_that_nobody_has_is_not_asked_for_again_at_once,
    clients_behind_a_trusted_proxy_have_limits_of_their_own,
    a_deleted_link_is_gone_from_another_process_within_the_bound,
    thousands_of_silent_connections_do_not_keep_others_out,
    a_crowd_is_served_again_soon_after_a_black_hole,
];

async fn a_clean_stop_writes_every_click() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut child, client) = fixture.start(&[]).await?;
    let code = client.shorten("https://example.com/").await?;
    for _ in 0..50 {
        client.follow(&code).await?;
    }
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    child.restart().await?;
    let clicks = client.clicks(&code).await?;
    ensure!(clicks == 50, "{clicks} clicks are written");
    Ok(())
}

/// Shapes from the WHATWG URL test cases (urltestdata.json), and what an attacker would try.
async fn a_url_that_must_not_be_shortened_is_refused() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
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
        let response = client.create(&json!({ "url": url })).await?;
        invalid(response, "url").await.with_context(|| format!("{url:?}"))?;
    }
    Ok(())
}

async fn a_url_in_every_good_shape_is_kept_as_it_is() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
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
        let code = client.shorten(url).await?;
        let redirect = client.follow(&code).await?;
        ensure!(header(&redirect, "location") == target, "{url}: {redirect:?}");
        ensure!(header(&redirect, "set-cookie").is_empty());
    }
    Ok(())
}

async fn too_many_creates_are_slowed_down() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&["--creates-per-second", "1"]).await?;
    let mut statuses = Vec::new();
    for n in 0..5 {
        let link = json!({ "url": format!("https://example.com/{n}") });
        let response = client.create_once(&link).await?;
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            let after: u64 = header(&response, "retry-after").parse().context("Retry-After")?;
            ensure!((1..=5).contains(&after), "Retry-After: {after}");
            problem(response, 429).await?;
        }
    }
    ensure!(statuses[..2] == [201, 201] && statuses.contains(&429), "{statuses:?}");
    // Redirects are not limited.
    ensure!(client.follow("unknown").await?.status() == 404);
    Ok(())
}

async fn codes_have_seven_characters_and_only_plain_links_share_one() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let url = "https://example.com/";
    let plain = client.shorten(url).await?;
    ensure!(client.shorten(url).await? == plain, "the same URL has another code");
    let mut codes = HashSet::from([plain]);
    for _ in 0..20 {
        let link = json!({ "url": url, "expires_in_seconds": 60 });
        let code = client.code_for(&link).await?;
        ensure!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{code}");
        ensure!(codes.insert(code), "two links have one code");
    }
    Ok(())
}

async fn a_link_to_this_very_process_is_refused_in_every_spelling() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let options = ["--public-url", "https://sho.rt/"];
    let (child, client) = fixture.start(&options).await?;
    let port = child.address().rsplit(':').next().context("no port")?;
    for host in [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "127.0.0.2",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:0.0.0.0]",
        "%3127.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/abc");
        let response = client.create(&json!({ "url": url })).await?;
        invalid(response, "url").await.with_context(|| url.clone())?;
    }
    for url in ["http://sho.rt/abc", "https://sho.rt./", "https://SHO.RT:443/"] {
        invalid(client.create(&json!({ "url": url })).await?, "url").await.context(url)?;
    }
    client.shorten("http://localhost:9/another-service").await?;
    Ok(())
}

async fn a_code_that_nobody_has_is_not_asked_for_again_at_once() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database().url()).await?;
    let program = fixture.serve().env("DATABASE_URL", proxy.url(fixture.database().url())?);
    let (_child, client) = start(program).await?;
    let brief = json!({ "url": "https://example.com/", "expires_in_seconds": 1 });
    let ended = client.code_for(&brief).await?;
    eventually("the link has ended", async || {
        Ok((client.follow(&ended).await?.status() == 410).then_some(()))
    })
    .await?;
    ensure!(client.follow("nobody").await?.status() == 404);
    proxy.set(Fault::Cut);
    for (code, status) in [("nobody", 404), (&ended, 410)] {
        let seen = client.follow(code).await?.status();
        ensure!(seen == status, "the database was asked again for {code}: {seen}");
    }
    proxy.heal();
    // A link that is made now can be followed at once.
    client.create(&json!({ "url": "https://example.com/", "alias": "nobody" })).await?;
    ensure!(client.follow("nobody").await?.status() == 302, "the new link is not found");
    Ok(())
}

async fn clients_behind_a_trusted_proxy_have_limits_of_their_own() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let create = async |options: &[&str], forwarded: &str| {
        let (child, _) = fixture.start(options).await?;
        let mut statuses = Vec::new();
        for n in 0..4 {
            let link =
                json!({ "url": format!("https://example.com/{n}"), "expires_in_seconds": 9 });
            let target = Target::new(child.url(), None)?;
            let request = target.request(reqwest::Method::POST, "links").json(&link);
            let client = forwarded.replace('N', &n.to_string());
            let request = request.header("x-forwarded-for", client);
            statuses.push(target.send(request).await?.status().as_u16());
        }
        anyhow::Ok(statuses)
    };
    let one = ["--creates-per-second", "1"];
    let trusting = [&one[..], &["--trusted-proxy", "127.0.0.0/8"]].concat();
    // Nobody is trusted: what a client writes into the header does not matter.
    ensure!(create(&one, "192.0.2.N").await?.contains(&429), "a header bought a fresh limit");
    ensure!(!create(&trusting, "192.0.2.N").await?.contains(&429), "clients share a limit");
    // The proxy appended 192.0.2.9; what stands before it is the client's own invention.
    let forged = create(&trusting, "192.0.2.N, 192.0.2.9").await?;
    ensure!(forged.contains(&429), "a forged header bought a fresh limit");
    for network in ["::ffff:10.0.0.0/8", "somewhere", "10.0.0.0/33"] {
        let started = fixture.start(&["--trusted-proxy", network]).await;
        ensure!(started.is_err(), "{network} was taken");
    }
    Ok(())
}

async fn a_deleted_link_is_gone_from_another_process_within_the_bound() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let (_other_child, other) = fixture.start(&[]).await?;
    let link = json!({ "url": "https://example.com/", "alias": "deleted" });
    let (code, token) = client.create_owned(&link).await?;
    ensure!(other.follow(&code).await?.status() == 302, "the other process does not find the link");
    client.delete(&code, Some(&token)).await?;
    let begun = Instant::now();
    ensure!(client.follow(&code).await?.status() == 404, "the deleting process still serves it");
    let bound = url_shortener::cache::FRESH_FOR + Duration::from_secs(5);
    while other.follow(&code).await?.status() == 302 {
        ensure!(begun.elapsed() < bound, "the other process still redirects");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn thousands_of_silent_connections_do_not_keep_others_out() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (child, client) = fixture.start(&[]).await?;
    let code = client.shorten("https://example.com/").await?;
    let mut silent = Vec::new();
    for _ in 0..2_000 {
        silent.push(TcpStream::connect(child.address()).await?);
    }
    ensure!(client.follow(&code).await?.status() == 302, "others are kept out");
    // Each is cut off, with an answer or without one.
    for stream in &mut silent {
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let end = tokio::time::timeout(Duration::from_secs(40), end).await;
        end.context("a silent connection stays open")?.ok();
    }
    // Not on the connection from before, which the server may be closing at this moment.
    ensure!(Client::at(child.url())?.follow(&code).await?.status() == 302);
    Ok(())
}

/// Runs every case, also those that kill the program, as a reader would.
async fn a_shortener_in_python_conforms() -> anyhow::Result<Completion> {
    let python = std::process::Command::new("python3").arg("--version").output();
    if python.is_err() {
        return Ok(Completion::ignored_with("needs python3"));
    }
    let port = lab::port::free()?;
    let folder = std::env::temp_dir().join(format!("conform-python-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let program = lab::stack::workspace().join("examples/python/url_shortener.py");
    let text = std::fs::read_to_string(&program)?;
    ensure!(text.lines().count() <= 180, "it has {} lines", text.lines().count());
    let command =
        format!("exec python3 '{}' {port} '{}/links.db'", program.display(), folder.display());
    let url = format!("http://127.0.0.1:{port}");
    let program = Program::of(command, &url, Duration::from_mins(1)).await?;
    let target = Target::new(&url, Some(program.restart()))?;
    let cases = url_shortener::answer().suite.cases;
    let results =
        conform::run::run(&cases, &target, Tried { load: true, restart: true }, |_| {}).await;
    drop(program);
    std::fs::remove_dir_all(&folder)?;
    let results = results?;
    let wrong: Vec<_> = results.iter().filter(|result| result.wrong.is_some()).collect();
    ensure!(wrong.is_empty() && results.len() == cases.len(), "{wrong:#?}");
    Ok(Completion::Completed)
}

/// A crowd goes on asking while the network swallows everything. Each request gives up within a second. If it took its
/// connection attempt with it, the crowd would connect for ever, and never be served again.
async fn a_crowd_is_served_again_soon_after_a_black_hole() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let database = fixture.database().url();
    let proxy = Proxy::to_url(database).await?;
    // Far away: a connection takes several round trips, and a request two.
    let far = Fault::Delay(Duration::from_millis(20));
    proxy.set(far);
    let program = fixture.serve().env("DATABASE_URL", proxy.url(database)?);
    let (_child, client) = start(program).await?;
    let code = client.shorten("https://example.com/").await?;
    let (served, mut last_served) = watch::channel(Instant::now());
    let mut crowd = JoinSet::new();
    for _ in 0..64 {
        let (client, code, served) = (client.clone(), code.clone(), served.clone());
        crowd.spawn(async move {
            loop {
                if client.look_at(&code).await.is_ok_and(|answer| answer.status() == 200) {
                    served.send_replace(Instant::now());
                }
            }
        });
    }
    let mut served_after = async |moment: Instant| {
        let served = last_served.wait_for(|last| *last > moment);
        let served = tokio::time::timeout(Duration::from_secs(5), served).await;
        anyhow::Ok(served.context("nobody is served")??.duration_since(moment))
    };
    served_after(Instant::now()).await.context("before")?;
    proxy.set(Fault::BlackHole);
    // Longer than an attempt to connect may take, so that no old one is left.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let healed = Instant::now();
    proxy.set(far);
    let back = served_after(healed).await.context("after the black hole")?;
    ensure!(back < Duration::from_secs(3), "served again after {back:?}");
    Ok(())
}
