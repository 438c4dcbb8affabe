//! The table of calls of both ports.

mod bad_input;
pub mod client;
pub mod hello;
mod wire;

use std::sync::Arc;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_rustls::rustls::{ClientConnection, ProtocolVersion::TLSv1_3, version::TLS12};

use client::{
    BOTH, Bridge, address, connect, exchange, get, get_over_http2, https_of, speaking,
    trusting_any_authority,
};
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{Finding, equal, expect, json_of, status, text},
    http::{header, lives_and_is_ready, problem},
    target::{Exchange, Target},
};

cases! {
    Plain a_page_is_redirected_to_the_same_path_and_query: "GET over HTTP: 308 to the same path and query on HTTPS, under the name that was asked for", "Links and bookmarks from before HTTPS still lead where they led.";
    Plain a_login_in_clear_text_is_refused_and_not_redirected: "A call over HTTP that is no GET or HEAD: 403", "The password has crossed the wire already. After a redirect it would do so for years, and nobody would notice.";
    Plain an_acme_challenge_is_answered_over_plain_http: "GET /.well-known/acme-challenge/{token} over HTTP: 200 and the response; another token: 404", "This is how a certificate is got and renewed. There may be none yet.";
    Plain no_redirect_leads_to_another_host: "The host of a redirect is one of the names, whatever path and Host say: else 421", "A link to a well-known name that leads to an attacker's is made for phishing.";
    Plain every_answer_over_https_says_to_stay_there_and_none_over_http: "Strict-Transport-Security on every answer over HTTPS, with max-age above 0, and on none over HTTP", "A browser that has seen it never sends a plain request again. What comes by HTTP, anybody could have written.";
    Plain a_login_sets_a_cookie_that_plain_http_never_sees: "POST /login over HTTPS: 204 and a cookie with Secure, HttpOnly and SameSite=Lax", "Without Secure, a browser sends the cookie with every plain request for the same name.";
    Plain me_says_who_asks_and_how_the_request_arrived: "GET /me with the cookie: 200, the user, and what the handshake agreed on", "Who must know whether a connection is safe should not have to trust a header.";
    Plain a_wrong_password_or_cookie_is_refused: "401 for a wrong user or password, and for a cookie that was not given out", "A cookie that anybody can write lets anybody in.";
    Plain a_machine_needs_a_certificate: "GET /machines without a client certificate: 403", "Who shows nothing in the handshake is nobody.";
    Plain a_reload_ends_no_connection: "POST /admin/certificates/reload from the same machine: 204, and open connections continue", "Certificates are renewed every few weeks, and nobody should notice.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200, on both ports", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), bad_input::cases(), wire::cases()].concat(),
    }
}

/// Makes these requests over HTTPS. What was sent last is told, as for others.
async fn over_https(target: &Target, requests: impl AsyncFnOnce(&Target) -> Outcome) -> Outcome {
    let bridge = Bridge::to(target).await?;
    let outcome = requests(&bridge.target).await;
    let over_https = |it: Exchange| Exchange::new(&format!("{} over HTTPS", it.sent), &it.came);
    let last = over_https(bridge.target.last_exchange());
    target.note(&last.sent, &last.came);
    outcome.map_err(|wrong| match wrong.downcast_ref::<Finding>() {
        Some(finding) => Finding { exchange: over_https(finding.exchange.clone()), wrong }.into(),
        None => wrong,
    })
}

async fn a_page_is_redirected_to_the_same_path_and_query(target: &Target) -> Outcome {
    for path in ["/", "/pages/debts?from=mail&to=%2F%2Fx", "/me", "/a%20b/../c"] {
        for method in [Method::GET, Method::HEAD] {
            // Sent as it stands: a client that tidies up the path would ask for another.
            let request = target.request(method, "").build()?;
            let host = request.url().authority().to_owned();
            let mut plain = tokio::net::TcpStream::connect(address(request.url())?).await?;
            let sent = get(&host, path, &[]).replace("GET", request.method().as_str());
            target.note(&format!("{} {path}", request.method()), "nothing yet");
            let answer = exchange_head(&mut plain, &sent).await?;
            target.note(&format!("{} {path}", request.method()), &answer.status.to_string());
            equal("the status", answer.status, 308)?;
            let location = answer.header("location").to_owned();
            let name = host.split(':').next().unwrap_or_default();
            let starts = location.starts_with(&format!("https://{name}"));
            expect(
                starts && location.ends_with(path),
                format!("`Location` with https://{name} and {path}"),
                &location,
            )?;
        }
    }
    Ok(())
}

/// The head of an answer: that of HEAD has no body, whatever its length says.
async fn exchange_head(
    stream: &mut tokio::net::TcpStream,
    request: &str,
) -> anyhow::Result<client::Answer> {
    exchange(stream, request).await.context("no answer came")
}

async fn a_login_in_clear_text_is_refused_and_not_redirected(target: &Target) -> Outcome {
    let login = json!({ "user": "ada", "password": "lovelace" });
    let refused = problem(target.post("login", &login).await?, 403).await?;
    let leaks = refused.to_string().contains("lovelace");
    expect(!leaks, "a problem without the password in it", &refused)?;
    for (method, path) in [
        (Method::POST, "me"),
        (Method::PUT, "pages/debts"),
        (Method::DELETE, ""),
        (Method::POST, "healthz"),
        (Method::POST, ".well-known/acme-challenge/conform-token"),
    ] {
        problem(target.ask(method, path).await?, 403).await?;
    }
    Ok(())
}

async fn an_acme_challenge_is_answered_over_plain_http(target: &Target) -> Outcome {
    let path = ".well-known/acme-challenge/conform-token";
    let response = target.get(path).await?;
    status(&response, 200)?;
    equal("the response", response.text().await?.trim(), "conform-token.thumbprint")?;
    for other in ["other", "..%2Fca.key", "%2e%2e%2fca.key", "conform-token%00", "a.b"] {
        let response = target.get(&format!(".well-known/acme-challenge/{other}")).await?;
        problem(response, 404).await?;
    }
    Ok(())
}

async fn no_redirect_leads_to_another_host(target: &Target) -> Outcome {
    let own = https_of(target).await?;
    for path in
        ["//evil.example", "//evil.example/%2e%2e", "/%5cevil.example", "/?next=//evil.example"]
    {
        let request = target.request(Method::GET, "").build()?;
        let mut plain = tokio::net::TcpStream::connect(address(request.url())?).await?;
        let host = request.url().authority().to_owned();
        target.note(&format!("GET {path}"), "nothing yet");
        let answer = exchange_head(&mut plain, &get(&host, path, &[])).await?;
        let location = answer.header("location").to_owned();
        target.note(&format!("GET {path}"), &format!("{} to {location}", answer.status));
        let leads_to = reqwest::Url::parse(&location).ok();
        let same = leads_to
            .is_some_and(|url| url.host_str() == own.host_str() && url.port() == own.port());
        expect(same || answer.status == 404, "a redirect to the same host, or none", &location)?;
    }
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "[::2]"] {
        let request = target.request(Method::GET, "pages/debts").header("host", host);
        problem(target.send(request).await?, 421).await.context(host)?;
    }
    Ok(())
}

async fn every_answer_over_https_says_to_stay_there_and_none_over_http(target: &Target) -> Outcome {
    for path in ["", "healthz", ".well-known/acme-challenge/x"] {
        let seen = target.get(path).await?;
        let none = header(&seen, "strict-transport-security").is_empty();
        expect(none, "no `Strict-Transport-Security` over plain HTTP", path)?;
    }
    over_https(target, async |https: &Target| {
        for (path, expected) in [("", 200), ("pages/debts", 200), ("me", 401), ("no-such", 404)] {
            let response = https.get(path).await?;
            status(&response, expected)?;
            let said = header(&response, "strict-transport-security").to_lowercase();
            let mut parts = said.split(';').filter_map(|part| part.trim().strip_prefix("max-age="));
            let age = parts.next().and_then(|age| age.trim_matches('"').parse::<u64>().ok());
            expect(age > Some(0), "`Strict-Transport-Security` with `max-age` above 0", &said)?;
        }
        Ok(())
    })
    .await
}

/// The login that is right.
fn login() -> Value {
    json!({ "user": "ada", "password": "lovelace" })
}

async fn a_login_sets_a_cookie_that_plain_http_never_sees(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        let response = https.post("login", &login()).await?;
        status(&response, 204)?;
        let cookie = header(&response, "set-cookie").to_lowercase();
        let has = |attribute: &str| cookie.split(';').skip(1).any(|it| it.trim() == attribute);
        for attribute in ["secure", "httponly", "samesite=lax"] {
            expect(has(attribute), format!("a cookie with `{attribute}`"), &cookie)?;
        }
        Ok(())
    })
    .await
}

async fn me_says_who_asks_and_how_the_request_arrived(target: &Target) -> Outcome {
    let url = https_of(target).await?;
    let name = url.host_str().context("a host")?;
    target.note("POST /login over HTTPS", "nothing yet");
    let config = Arc::new(trusting_any_authority()?);
    let mut stream = connect(&config, address(&url)?, name).await.context("no handshake")?;
    let request = client::post(url.authority(), "/login", &[], &login().to_string());
    let cookie = exchange(&mut stream, &request).await?.cookie().to_owned();
    let mut resumed = Vec::new();
    for (versions, protocol, connections) in
        [(BOTH, "http/1.1", 2), (&[&TLS12][..], "http/1.1", 1), (BOTH, "h2", 1)]
    {
        let mut config = speaking(versions)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let config = Arc::new(config);
        for _ in 0..connections {
            target.note("GET /me over HTTPS", "nothing yet");
            let mut stream =
                connect(&config, address(&url)?, name).await.context("no handshake")?;
            let expected = agreed(stream.get_ref().1);
            let answer = if protocol == "h2" {
                get_over_http2(stream, &url.join("/me")?, &cookie).await?
            } else {
                let me = get(url.authority(), "/me", &[("cookie", &cookie)]);
                exchange(&mut stream, &me).await?
            };
            target.note("GET /me over HTTPS", &answer.body);
            equal("the status", answer.status, 200)?;
            let me: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            equal("the field `user`", text(&me, "user")?, "ada")?;
            let arrived = &me["arrived"];
            for (field, expected) in ["tls", "cipher", "alpn"].into_iter().zip(expected) {
                let seen = arrived[field].as_str().unwrap_or_default().replace("TLS13_", "TLS_");
                equal(&format!("the field `{field}`"), seen, expected)?;
            }
            let certificate = arrived["client_certificate"].clone();
            equal("the field `client_certificate`", certificate, Value::Null)?;
            resumed.push(arrived["resumed"].clone());
        }
    }
    let expected = [false, true, false, false].map(Value::from);
    equal("`resumed` of two connections, and of two others", resumed, expected.to_vec())
}

/// The version, the cipher suite and the protocol inside, as the client knows them.
fn agreed(tls: &ClientConnection) -> [String; 3] {
    let version = if tls.protocol_version() == Some(TLSv1_3) { "1.3" } else { "1.2" };
    let suite = tls.negotiated_cipher_suite().and_then(|it| it.suite().as_str());
    // rustls writes 13 where IANA does not.
    let suite = suite.unwrap_or("none").replace("TLS13_", "TLS_");
    let protocol = String::from_utf8_lossy(tls.alpn_protocol().unwrap_or_default()).into_owned();
    [version.to_owned(), suite, protocol]
}

async fn a_wrong_password_or_cookie_is_refused(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        for (user, password) in [("ada", "Lovelace"), ("ada", ""), ("bob", "lovelace"), ("", "")] {
            let wrong = json!({ "user": user, "password": password });
            problem(https.post("login", &wrong).await?, 401).await?;
        }
        let good = https.post("login", &login()).await?;
        let good = header(&good, "set-cookie").split(';').next().unwrap_or_default().to_owned();
        let name = good.split('=').next().unwrap_or_default();
        let cut = &good[..good.len().saturating_sub(2)];
        for cookie in [format!("{name}=ada"), format!("{name}="), cut.to_owned(), "a=b".to_owned()]
        {
            let request = https.request(Method::GET, "me").header("cookie", &cookie);
            problem(https.send(request).await?, 401)
                .await
                .with_context(|| format!("for the cookie {cookie}"))?;
        }
        problem(https.get("me").await?, 401).await?;
        let request = https.request(Method::GET, "me").header("cookie", &good);
        let me = json_of(https.send(request).await?, 200).await?;
        equal("the field `user`", text(&me, "user")?, "ada")
    })
    .await
}

async fn a_machine_needs_a_certificate(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        problem(https.get("machines").await?, 403).await.map(drop)
    })
    .await
}

async fn a_reload_ends_no_connection(target: &Target) -> Outcome {
    let url = https_of(target).await?;
    let name = url.host_str().context("a host")?;
    let config = Arc::new(trusting_any_authority()?);
    let mut open = connect(&config, address(&url)?, name).await.context("no handshake")?;
    let page = get(url.authority(), "/pages/debts", &[]);
    equal("the status", exchange(&mut open, &page).await?.status, 200)?;
    over_https(target, async |https: &Target| {
        status(&https.ask(Method::POST, "admin/certificates/reload").await?, 204)
    })
    .await?;
    let again = exchange(&mut open, &page).await.context("on a connection from before")?;
    equal("the status on a connection from before", again.status, 200)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await?;
    over_https(target, lives_and_is_ready).await
}
