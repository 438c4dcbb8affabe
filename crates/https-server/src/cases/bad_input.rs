//! What a client may send by mistake or on purpose, and what it gets.

use std::sync::Arc;

use anyhow::Context;
use reqwest::Method;

use super::{
    client::{address, connect, exchange, https_of, trusting_any_authority},
    login, over_https,
};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::expect,
    http::{not_allowed, not_found, problem},
    target::Target,
};

cases! {
    Plain a_login_that_is_none_is_refused: "A bad body of POST /login over HTTPS: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_request_for_another_host_than_the_handshake_is_misdirected: "421 if Host is none of the names, or another one than in the handshake; 400 without Host, or with two", "A client has checked the certificate for one name. Rules for a host must not be evaded by naming another one inside.";
    Plain what_is_not_there_is_not_found: "A path or a topic that there is not, over HTTPS: 404", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have, over HTTPS: 405 with Allow", "It tells a client's author what the path is for.";
}

async fn a_login_that_is_none_is_refused(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        refuses_bad_bodies(https, || https.request(Method::POST, "login"), &login()).await
    })
    .await
}

async fn a_request_for_another_host_than_the_handshake_is_misdirected(target: &Target) -> Outcome {
    let url = https_of(target).await?;
    let config = Arc::new(trusting_any_authority()?);
    let port = url.port().unwrap_or(443);
    for (hosts, expected) in [
        (vec!["localhost".to_owned()], 200),
        (vec![format!("LOCALHOST:{port}")], 200),
        (vec![format!("127.0.0.1:{port}")], 421),
        (vec!["evil.example".to_owned()], 421),
        (vec![], 400),
        (vec!["localhost".to_owned(), "evil.example".to_owned()], 400),
    ] {
        // The name in the handshake is always localhost.
        let mut stream =
            connect(&config, address(&url)?, "localhost").await.context("no handshake")?;
        let headers: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let request = format!("GET /pages/debts HTTP/1.1\r\n{headers}\r\n");
        target.note(
            &format!("GET /pages/debts over HTTPS, as localhost, with Host {hosts:?}"),
            "nothing yet",
        );
        let seen = exchange(&mut stream, &request).await.context("no answer came")?.status;
        expect(seen == expected, format!("status {expected} for Host {hosts:?}"), seen)?;
    }
    over_https(target, async |https: &Target| {
        // Without a name in the handshake, Host still has to be one of ours.
        let request = https.request(Method::GET, "pages/debts").header("host", "evil.example");
        problem(https.send(request).await?, 421).await.map(drop)
    })
    .await
}

async fn what_is_not_there_is_not_found(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        let paths = [
            "pages",
            "pages/",
            "pages/weather",
            "pages/debts/1",
            "pages/%ff",
            "pages/%00",
            "index.html",
            "admin",
            "%2e%2e/ca.key",
        ];
        not_found(https, &paths).await
    })
    .await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    over_https(target, async |https: &Target| {
        not_allowed(
            https,
            &[
                (Method::POST, ""),
                (Method::GET, "login"),
                (Method::DELETE, "me"),
                (Method::PUT, "pages/debts"),
                (Method::GET, "admin/certificates/reload"),
                (Method::POST, "healthz"),
            ],
        )
        .await
    })
    .await
}
