//! Does the service do what cannot be tried from outside, or not with the options that its table of calls (`conform`) is
//! tried with?

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use axum::{body::Body, http::Request};
use https_server::{
    ca::{Ca, Issued, Purpose},
    cases::{
        client::{Answer, BOTH, connect, exchange, get, post},
        hello::Hello,
    },
    connection::Connection,
    experiments::fixture::{Fixture, HOST, LOGIN, Parts, serve, with_challenge},
};
use lab::harness::{Outcome, Served, eventually, run};
use serde_json::Value;
use time::{Duration as Days, OffsetDateTime};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{
    ClientConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tower::ServiceExt;

fn main() -> ExitCode {
    run(https_server::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let Fixture { child, https, home, .. } = Fixture::start_in(with_challenge()?, &[]).await?;
    let words = home.path().display().to_string();
    let url = format!("https://localhost:{}", https.port());
    Ok(Served::new(child, home).word("home", words).word("https", url))
}

lab::tests![
    it_starts_with_no_pair_that_a_client_would_refuse,
    a_renewal_that_is_not_good_is_told_and_the_old_pair_stays,
    the_watcher_too_keeps_the_old_pair_until_a_good_one_is_there,
    a_renewal_that_begins_later_is_taken_when_it_begins,
    only_this_machine_may_ask_for_a_reload,
    the_authority_and_its_secrets_stay_from_start_to_start,
    a_machine_is_known_by_its_certificate_also_when_it_resumes,
    a_machine_without_a_dns_name_is_told_what_its_certificate_lacks,
    a_certificate_of_a_server_or_of_a_stranger_makes_no_machine,
    api_calls_are_redirected_if_the_textbook_is_asked_for,
    a_silent_connection_is_ended_after_its_handshake_too,
    a_handshake_that_trickles_in_has_five_seconds_too,
    a_browser_stays_with_https_for_as_long_as_was_asked,
    a_name_with_a_capital_is_the_name_in_the_handshake,
    who_speaks_http_to_the_port_of_https_is_told,
    it_stops_cleanly_and_answers_what_is_in_flight,
];

/// A pair of files in a folder of its own.
struct Pair {
    folder: tempfile::TempDir,
    ca: Ca,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::open(folder.path())?;
        Ok(Self { folder, ca })
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.path().join("own").with_extension(kind)
    }

    /// From so many days from now, for two days.
    fn issue(&self, name: &str, purpose: Purpose, days: i64) -> anyhow::Result<Issued> {
        let from = OffsetDateTime::now_utc() + Days::days(days);
        Ok(self.ca.issue(&[name.to_owned()], purpose, from, from + Days::days(2))?)
    }

    fn write(&self, issued: &Issued) -> anyhow::Result<()> {
        Ok(issued.write(&self.path("pem"), &self.path("key"))?)
    }

    fn options(&self) -> Vec<String> {
        let path = |kind| self.path(kind).display().to_string();
        vec!["--cert".to_owned(), path("pem"), "--key".to_owned(), path("key")]
    }

    async fn start(&self) -> anyhow::Result<Fixture> {
        let options = self.options();
        Fixture::start(&options.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(self.ca.certificate.clone())?;
        let mut config = https_server::cases::client::trusting(roots, BOTH)?;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

async fn it_starts_with_no_pair_that_a_client_would_refuse() -> Outcome {
    let pair = Pair::new()?;
    let good = pair.issue(HOST, Purpose::Server, -1)?;
    pair.write(&good)?;
    pair.start().await.context("a good pair")?;
    for (name, purpose, days, words) in [
        (HOST, Purpose::Server, -3, "expired"),
        (HOST, Purpose::Server, 1, "not valid yet"),
        (HOST, Purpose::Client, -1, "a client would refuse"),
        ("evil.example", Purpose::Server, -1, "not valid for name"),
    ] {
        pair.write(&pair.issue(name, purpose, days)?)?;
        does_not_start(&pair, words).await?;
    }
    let key = fs::read(pair.path("key"))?;
    pair.write(&good)?;
    fs::write(pair.path("key"), key)?;
    does_not_start(&pair, "is not the key of").await?;
    for (kind, text) in [
        ("key", ""),
        ("key", "nonsense"),
        ("pem", ""),
        ("pem", "-----BEGIN CERTIFICATE-----\nnonsense"),
    ] {
        pair.write(&good)?;
        fs::write(pair.path(kind), text)?;
        does_not_start(&pair, &pair.path(kind).display().to_string()).await?;
    }
    fs::remove_file(pair.path("pem"))?;
    does_not_start(&pair, "cannot read").await
}

/// It ends by itself, and its last words have these in them.
async fn does_not_start(pair: &Pair, words: &str) -> Outcome {
    match pair.start().await {
        Ok(_) => bail!("it starts, and not: {words}"),
        Err(error) => {
            let error = format!("{error:#}");
            let panics = error.contains("panicked");
            ensure!(error.contains(words) && !panics, "{words:?} is not in: {error}");
            Ok(())
        }
    }
}

async fn shown(
    client: &Arc<ClientConfig>,
    server: SocketAddr,
) -> anyhow::Result<CertificateDer<'static>> {
    let stream = connect(client, server, HOST).await?;
    let chain = stream.get_ref().1.peer_certificates().context("a certificate")?;
    Ok(chain[0].clone())
}

async fn reload(client: &Arc<ClientConfig>, server: SocketAddr) -> anyhow::Result<Answer> {
    let mut stream = connect(client, server, HOST).await?;
    Ok(exchange(&mut stream, &post(HOST, "/admin/certificates/reload", &[], "")).await?)
}

async fn a_renewal_that_is_not_good_is_told_and_the_old_pair_stays() -> Outcome {
    let pair = Pair::new()?;
    let old = pair.issue(HOST, Purpose::Server, -1)?;
    pair.write(&old)?;
    let (fixture, client) = (pair.start().await?, pair.client()?);
    pair.write(&pair.issue(HOST, Purpose::Server, -3)?)?;
    let refused = reload(&client, fixture.https).await?;
    ensure!(refused.status == 409 && refused.body.contains("expired"), "{}", refused.body);
    ensure!(shown(&client, fixture.https).await? == old.certificate, "the expired one is served");
    let new = pair.issue(HOST, Purpose::Server, -1)?;
    pair.write(&new)?;
    ensure!(reload(&client, fixture.https).await?.status == 204);
    ensure!(shown(&client, fixture.https).await? == new.certificate, "the old one is served");
    Ok(())
}

async fn the_watcher_too_keeps_the_old_pair_until_a_good_one_is_there() -> Outcome {
    let pair = Pair::new()?;
    let old = pair.issue(HOST, Purpose::Server, -1)?;
    pair.write(&old)?;
    let (fixture, client) = (pair.start().await?, pair.client()?);
    let new = pair.issue(HOST, Purpose::Server, -1)?;
    // Half of it: the new certificate with the old key.
    let key = fs::read(pair.path("key"))?;
    pair.write(&new)?;
    let new_key = fs::read(pair.path("key"))?;
    fs::write(pair.path("key"), key)?;
    eventually("the watcher tells that they do not match", async || {
        Ok(fixture.child.log().contains("is not the key of").then_some(()))
    })
    .await?;
    ensure!(shown(&client, fixture.https).await? == old.certificate, "a pair that does not match");
    fs::write(pair.path("key"), new_key)?;
    eventually("the watcher finds the whole pair", async || {
        Ok((shown(&client, fixture.https).await? == new.certificate).then_some(()))
    })
    .await
}

/// Its files do not change any more when its time comes.
async fn a_renewal_that_begins_later_is_taken_when_it_begins() -> Outcome {
    let pair = Pair::new()?;
    pair.write(&pair.issue(HOST, Purpose::Server, -1)?)?;
    let (fixture, client) = (pair.start().await?, pair.client()?);
    let begins = OffsetDateTime::now_utc() + Days::seconds(4);
    let ends = begins + Days::days(2);
    let new = pair.ca.issue(&[HOST.to_owned()], Purpose::Server, begins, ends)?;
    pair.write(&new)?;
    eventually("the watcher tells that it is not valid yet", async || {
        Ok(fixture.child.log().contains("not valid yet").then_some(()))
    })
    .await?;
    eventually("the watcher takes it when it is", async || {
        Ok((shown(&client, fixture.https).await? == new.certificate).then_some(()))
    })
    .await
}

async fn only_this_machine_may_ask_for_a_reload() -> Outcome {
    let application = Parts::new()?.application;
    let connection = Connection {
        tls: "1.3",
        cipher: String::new(),
        alpn: None,
        resumed: false,
        client_certificate: None,
        server_name: Some(HOST.to_owned()),
        peer: "127.0.0.1:5".parse()?,
    };
    for (peer, expected) in
        [("192.0.2.1:5", 404), ("[2001:db8::1]:5", 404), ("[::ffff:192.0.2.1]:5", 404)]
    {
        let request = Request::post("https://localhost/admin/certificates/reload");
        let mut request = request.body(Body::empty())?;
        request.extensions_mut().insert(Connection { peer: peer.parse()?, ..connection.clone() });
        let status = application.clone().oneshot(request).await?.status();
        ensure!(status == expected, "{peer}: {status}");
    }
    Ok(())
}

async fn the_authority_and_its_secrets_stay_from_start_to_start() -> Outcome {
    let mut fixture = Fixture::start(&[]).await?;
    let home = fixture.home.path().to_owned();
    let root = fs::read(home.join("ca.pem"))?;
    let client = fixture.shared_client(BOTH)?;
    for file in ["ca.key", "server.key", "machine.key"] {
        let mode = fs::metadata(home.join(file))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{file}: {mode:o}");
    }
    fixture.child.kill().await?;
    fixture.child.restart().await?;
    ensure!(fs::read(home.join("ca.pem"))? == root, "another authority");
    let mut stream = connect(&client, fixture.https, HOST).await?;
    ensure!(exchange(&mut stream, &get(HOST, "/", &[])).await?.status == 200);
    Ok(())
}

/// A client that shows this certificate.
fn machine(fixture: &Fixture, certificate: &Path, key: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(BOTH)?
    .with_root_certificates(fixture.roots()?)
    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(Arc::new(config))
}

/// A service that asks for certificates of its own authority.
async fn with_mutual_tls() -> anyhow::Result<Fixture> {
    let home = tempfile::tempdir()?;
    Ca::open(home.path())?;
    let ca = home.path().join("ca.pem").display().to_string();
    Fixture::start_in(home, &["--client-ca", &ca]).await
}

async fn a_machine_is_known_by_its_certificate_also_when_it_resumes() -> Outcome {
    let fixture = with_mutual_tls().await?;
    let file = |name: &str| fixture.home.path().join(name);
    let client = machine(&fixture, &file("machine.pem"), &file("machine.key"))?;
    for resumed in [false, true] {
        let mut stream = connect(&client, fixture.https, HOST).await?;
        let answer = exchange(&mut stream, &get(HOST, "/machines", &[])).await?;
        ensure!(answer.status == 200 && answer.body.contains("machine-1"), "{}", answer.body);
        let cookie =
            exchange(&mut stream, &post(HOST, "/login", &[], LOGIN)).await?.cookie().to_owned();
        let me = exchange(&mut stream, &get(HOST, "/me", &[("cookie", &cookie)])).await?;
        let me: Value = serde_json::from_str(&me.body)?;
        ensure!(me["arrived"]["client_certificate"] == "machine-1", "{me}");
        ensure!(me["arrived"]["resumed"] == resumed, "{me}");
    }
    let mut nobody = connect(&fixture.shared_client(BOTH)?, fixture.https, HOST).await?;
    let status = exchange(&mut nobody, &get(HOST, "/machines", &[])).await?.status;
    ensure!(status == 403, "{status}");
    Ok(())
}

/// It is verified: no client has to have a name.
async fn a_machine_without_a_dns_name_is_told_what_its_certificate_lacks() -> Outcome {
    let fixture = with_mutual_tls().await?;
    let pair = Pair { folder: tempfile::tempdir()?, ca: Ca::open(fixture.home.path())? };
    pair.write(&pair.issue("127.0.0.1", Purpose::Client, -1)?)?;
    let client = machine(&fixture, &pair.path("pem"), &pair.path("key"))?;
    let mut stream = connect(&client, fixture.https, HOST).await?;
    let answer = exchange(&mut stream, &get(HOST, "/machines", &[])).await?;
    ensure!(answer.status == 403 && answer.body.contains("with a DNS name"), "{answer:?}");
    Ok(())
}

async fn a_certificate_of_a_server_or_of_a_stranger_makes_no_machine() -> Outcome {
    let fixture = with_mutual_tls().await?;
    let file = |name: &str| fixture.home.path().join(name);
    let pair = Pair::new()?;
    pair.write(&pair.issue("machine-1", Purpose::Client, -1)?)?;
    for (certificate, key) in
        [(file("server.pem"), file("server.key")), (pair.path("pem"), pair.path("key"))]
    {
        let client = machine(&fixture, &certificate, &key)?;
        // In TLS 1.3 the client hears of it after its side of the handshake is done.
        let asked = async {
            let mut stream = connect(&client, fixture.https, HOST).await?;
            exchange(&mut stream, &get(HOST, "/machines", &[])).await
        };
        let asked = asked.await;
        ensure!(asked.is_err(), "{}: {asked:?}", certificate.display());
    }
    Ok(())
}

async fn api_calls_are_redirected_if_the_textbook_is_asked_for() -> Outcome {
    let fixture = Fixture::start(&["--redirect-api"]).await?;
    let mut stream = TcpStream::connect(fixture.plain).await?;
    let answer = exchange(&mut stream, &post(HOST, "/login", &[], LOGIN)).await?;
    let expected = format!("https://localhost:{}/login", fixture.https.port());
    ensure!((answer.status, answer.header("location")) == (308, &*expected), "{answer:?}");
    Ok(())
}

async fn a_silent_connection_is_ended_after_its_handshake_too() -> Outcome {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = Fixture::start(&["--patience", "1"]).await?;
    for (protocol, sent) in [("h2", ""), ("http/1.1", ""), ("http/1.1", "GET / HTTP/1.1\r\nho")] {
        let mut config = fixture.client(BOTH)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let mut stream = connect(&Arc::new(config), fixture.https, HOST).await?;
        stream.write_all(sent.as_bytes()).await?;
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest));
        ensure!(end.await.is_ok(), "{protocol} {sent:?}: it stays open");
    }
    Ok(())
}

/// A limit for each read would let it trickle in for minutes.
async fn a_handshake_that_trickles_in_has_five_seconds_too() -> Outcome {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = Fixture::start(&[]).await?;
    let (mut from, mut to) = TcpStream::connect(fixture.https).await?.into_split();
    let trickle = async {
        for byte in Hello::default().bytes() {
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(8), from.read_to_end(&mut rest));
    let (end, ()) = tokio::join!(end, trickle);
    ensure!(end.is_ok(), "it stays open");
    Ok(())
}

async fn a_browser_stays_with_https_for_as_long_as_was_asked() -> Outcome {
    let fixture = Fixture::start(&["--hsts-seconds", "60"]).await?;
    let mut stream = connect(&fixture.shared_client(BOTH)?, fixture.https, HOST).await?;
    let answer = exchange(&mut stream, &get(HOST, "/", &[])).await?;
    let said = answer.header("strict-transport-security");
    ensure!(said == "max-age=60; includeSubDomains", "{said}");
    Ok(())
}

/// In the handshake it is in small letters, whatever the client writes.
async fn a_name_with_a_capital_is_the_name_in_the_handshake() -> Outcome {
    let fixture = Fixture::start(&["--name", "Shop.example"]).await?;
    let client = fixture.shared_client(BOTH)?;
    for host in ["shop.example", "Shop.example"] {
        let mut stream = connect(&client, fixture.https, host).await?;
        let status = exchange(&mut stream, &get(host, "/", &[])).await?.status;
        ensure!(status == 200, "{host}: {status}");
    }
    Ok(())
}

async fn who_speaks_http_to_the_port_of_https_is_told() -> Outcome {
    let fixture = Fixture::start(&[]).await?;
    let mut stream = TcpStream::connect(fixture.https).await?;
    let answer = exchange(&mut stream, &get(HOST, "/", &[])).await?;
    ensure!(answer.status == 400 && answer.body.starts_with("This is HTTPS"), "{answer:?}");
    Ok(())
}

async fn it_stops_cleanly_and_answers_what_is_in_flight() -> Outcome {
    let home = tempfile::tempdir()?;
    let mut child = serve(home.path(), lab::port::free()?).start().await?;
    let status = child.stop().await?;
    ensure!(status.success(), "{status}: {}", child.log());
    let mut fixture = Fixture::start(&[]).await?;
    let (client, https) = (fixture.shared_client(BOTH)?, fixture.https);
    let mut open = connect(&client, https, HOST).await?;
    ensure!(exchange(&mut open, &get(HOST, "/", &[])).await?.status == 200);
    // A login whose handler waits for the body.
    let login = post(HOST, "/login", &[("expect", "100-continue")], LOGIN);
    let head = login.strip_suffix(LOGIN).context("the body comes last")?;
    let mut busy = connect(&client, https, HOST).await?;
    let asked = exchange(&mut busy, head).await?;
    ensure!(asked.status == 100, "{asked:?}");
    let finish = async {
        eventually("nobody else is let in", async || {
            Ok(TcpStream::connect(https).await.is_err().then_some(()))
        })
        .await?;
        anyhow::Ok(exchange(&mut busy, LOGIN).await?)
    };
    let (status, answer) = tokio::try_join!(fixture.child.stop(), finish)?;
    ensure!(answer.status == 204, "{answer:?}");
    ensure!(status.success(), "{status}: {}", fixture.child.log());
    Ok(())
}
