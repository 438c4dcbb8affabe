//! What a client may do below HTTP: speak the wrong protocol, stop half-way, send a handshake that makes no sense.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    client::{address, connect, exchange, get, https_of, trusting_any_authority},
    hello::Hello,
};
use conform::{case::Outcome, cases, expect::expect, target::Target};

cases! {
    Plain plain_http_on_the_port_of_https_ends_clearly: "A client that speaks HTTP to the port for HTTPS gets an answer or an end within ten seconds", "Somebody forgot the s, and should learn it at once.";
    Plain tls_on_the_port_of_http_ends_clearly: "A client that speaks TLS to the port for HTTP gets an answer or an end within ten seconds", "Somebody mixed up the ports, and should not have to wait for a time-out of their own.";
    Plain a_name_in_the_handshake_that_is_none_harms_nobody: "A name in the handshake (SNI) that is an IP address, is 10,000 bytes long or is no name: an answer or an end within ten seconds, and the next client is served", "The handshake is read before anybody is known.";
    Plain both_versions_of_http_are_spoken: "HTTP/2 or HTTP/1.1, as the client wishes (ALPN)", "A client that speaks only one of them still has to be served.";
    Load a_thousand_that_stop_within_the_handshake_keep_nobody_waiting: "A client that stops within the handshake is cut off within ten seconds, and no other client waits for it", "It costs an attacker nothing to open a connection and say nothing.";
}

/// What the table allows, and a little for a busy machine.
const AN_END: Duration = Duration::from_secs(12);

/// What comes after these bytes until the connection ends.
async fn after(server: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    match timeout(AN_END, stream.read_to_end(&mut received)).await {
        Ok(_) => Ok(received),
        Err(_) => bail!("expected an end within ten seconds, got none after {}", received.len()),
    }
}

async fn plain_http_on_the_port_of_https_ends_clearly(target: &Target) -> Outcome {
    let server = address(&https_of(target).await?)?;
    target.note("plain HTTP to the port for HTTPS", "nothing yet");
    let requests =
        ["GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "GET / HT", "POST /login HTTP/1.1\r\n"];
    try_join_all(requests.map(async |request| {
        let received = after(server, request.as_bytes()).await.context(request)?;
        let served = received.starts_with(b"HTTP/1.1 2");
        expect(!served, "no page in clear text", String::from_utf8_lossy(&received))
    }))
    .await?;
    served_still(target).await
}

async fn tls_on_the_port_of_http_ends_clearly(target: &Target) -> Outcome {
    let plain = address(&reqwest::Url::parse(target.url())?)?;
    target.note("a TLS handshake to the port for HTTP", "nothing yet");
    let hellos = [Hello::default().bytes(), vec![22, 3, 1, 2, 0, 1]];
    try_join_all(hellos.iter().map(|hello| after(plain, hello))).await?;
    served_still(target).await
}

async fn a_name_in_the_handshake_that_is_none_harms_nobody(target: &Target) -> Outcome {
    let server = address(&https_of(target).await?)?;
    let long = "a".repeat(10_000);
    target.note("handshakes for names that are none", "nothing yet");
    let names = ["127.0.0.1", "::1", "", "..", "a b", "\u{0}", "ä", &long];
    try_join_all(names.map(async |name| {
        let hello = Hello { name: name.as_bytes().to_vec(), ..Hello::default() };
        let shown: String = name.chars().take(20).collect();
        after(server, &hello.bytes()).await.with_context(|| format!("for the name {shown:?}"))
    }))
    .await?;
    served_still(target).await
}

/// Whether another client gets a page over HTTPS.
async fn served_still(target: &Target) -> Outcome {
    let (url, config) = (https_of(target).await?, Arc::new(trusting_any_authority()?));
    let name = url.host_str().context("a host")?.to_owned();
    let page = async {
        let mut stream = connect(&config, address(&url)?, &name).await?;
        anyhow::Ok(exchange(&mut stream, &get(url.authority(), "/pages/debts", &[])).await?.status)
    };
    target.note("GET /pages/debts over HTTPS", "nothing yet");
    let page = timeout(Duration::from_secs(5), page).await;
    let status =
        page.context("expected a page for another client, got none within five seconds")??;
    target.note("GET /pages/debts over HTTPS", &status.to_string());
    expect(status == 200, "a page for another client", status)
}

async fn both_versions_of_http_are_spoken(target: &Target) -> Outcome {
    let url = https_of(target).await?;
    let name = url.host_str().context("a host")?;
    for (offered, chosen) in
        [(vec!["h2", "http/1.1"], Some("h2")), (vec!["http/1.1"], Some("http/1.1")), (vec![], None)]
    {
        let mut config = trusting_any_authority()?;
        config.alpn_protocols = offered.iter().map(|it| it.as_bytes().to_vec()).collect();
        target.note(&format!("a handshake that offers {offered:?}"), "nothing yet");
        let stream =
            connect(&Arc::new(config), address(&url)?, name).await.context("no handshake")?;
        let seen = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy);
        let words = format!("{chosen:?} to be chosen of {offered:?}");
        expect(seen.as_deref() == chosen, words, format!("{seen:?}"))?;
    }
    Ok(())
}

async fn a_thousand_that_stop_within_the_handshake_keep_nobody_waiting(target: &Target) -> Outcome {
    let url = https_of(target).await?;
    let (server, hello) = (address(&url)?, Hello::default().bytes());
    // More than a process has by default.
    lab::open_files::allow_many();
    target.note("a thousand handshakes that stop half-way", "nothing yet");
    let half = hello.len() / 2;
    let stall = async |n| {
        let connected = timeout(Duration::from_secs(3), TcpStream::connect(server)).await;
        let stream = connected.context("expected a connection to be accepted within three seconds");
        let mut stream = stream??;
        // Some say nothing at all.
        stream.write_all(&hello[..if n % 4 == 0 { 0 } else { half }]).await?;
        anyhow::Ok(stream)
    };
    let mut stalled = Vec::new();
    // Few at once: more may be lost before the program sees them.
    for batch in 0..20 {
        stalled.extend(try_join_all((0..50).map(|n| stall(50 * batch + n))).await?);
    }
    let begun = Instant::now();
    served_still(target).await?;
    let ends = stalled.into_iter().map(async |mut stream| {
        let left = AN_END.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        timeout(left, stream.read_to_end(&mut Vec::new())).await.is_ok()
    });
    let ended =
        futures_util::future::join_all(ends).await.into_iter().filter(|ended| *ended).count();
    expect(
        ended == 1_000,
        "all of them to be cut off within ten seconds",
        format!("{ended} of 1000"),
    )
}
