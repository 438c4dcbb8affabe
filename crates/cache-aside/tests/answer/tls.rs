//! Are the connections to the servers encrypted when that was asked for? Each real server is behind a proxy that speaks
//! TLS, as stunnel does.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use cache_aside::experiments::fixture::{CALM, Fixture, believing};
use lab::harness::{Outcome, eventually};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use url::Url;

lab::tests![
    redis_and_postgresql_are_spoken_to_over_tls,
    a_certificate_that_nobody_vouches_for_is_refused,
    a_database_that_offers_tls_is_not_spoken_to_in_plain_text,
];

/// What PostgreSQL's clients send to ask for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A proxy that speaks TLS, and its certificate.
struct Tls {
    url: Url,
    certificate: PathBuf,
    accepted: Arc<AtomicU64>,
    handshakes: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Tls {
    /// A proxy in front of the server at this URL.
    async fn before(url: &str) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key)?;
        let folder = tempfile::tempdir()?;
        let certificate = folder.path().join("certificate.pem");
        let base64 = STANDARD.encode(made.cert.der());
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        std::fs::write(&certificate, format!("{begin}\n{}\n{end}\n", lines.join("\n")))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut url = Url::parse(url)?;
        // Without the `sslmode` that is right for the server itself.
        url.set_query(None);
        let server = (
            url.host_str().context("a host")?.to_owned(),
            url.port_or_known_default().unwrap_or(5432),
        );
        url.set_host(Some("127.0.0.1"))?;
        let port = listener.local_addr()?.port();
        url.set_port(Some(port)).map_err(|()| anyhow::anyhow!("no port in {url}"))?;
        let is_postgres = url.scheme().starts_with("postgres");
        let (accepted, handshakes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (count, counted) = (Arc::clone(&accepted), Arc::clone(&handshakes));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (acceptor, server) = (acceptor.clone(), server.clone());
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    // A client that does not want TLS is cut off.
                    let _ = forward(client, server, &acceptor, is_postgres, &counted).await;
                });
            }
        });
        Ok(Self { url, certificate, accepted, handshakes, accepting, _folder: folder })
    }

    fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
}

async fn forward(
    mut client: TcpStream,
    server: (String, u16),
    acceptor: &TlsAcceptor,
    is_postgres: bool,
    handshakes: &AtomicU64,
) -> anyhow::Result<()> {
    if is_postgres {
        let mut asked = [0; 8];
        client.read_exact(&mut asked).await?;
        ensure!(asked == SSL_REQUEST, "plain text");
        client.write_all(b"S").await?;
    }
    let mut client = acceptor.accept(client).await?;
    handshakes.fetch_add(1, Ordering::Relaxed);
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn redis_and_postgresql_are_spoken_to_over_tls() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut redis, database) =
        (Tls::before(&fixture.redis_url).await?, Tls::before(fixture.database.url()).await?);
    redis.url = Url::parse(&redis.url.as_str().replacen("redis://", "rediss://", 1))?;
    let bundle = tempfile::NamedTempFile::new()?;
    let both = [&redis.certificate, &database.certificate].map(std::fs::read);
    let [one, two] = both;
    std::fs::write(bundle.path(), [one?, two?].concat())?;
    let serve = fixture.serve_through(redis.url.as_str()).args(&CALM);
    let serve = serve.env("DATABASE_URL", format!("{}?sslmode=verify-full", database.url));
    let child = serve.env("SSL_CERT_FILE", bundle.path()).start().await?;
    let client = believing(&child).await?;
    let id = client.sign_up("Ada").await?;
    client.hit(id).await?;
    ensure!(redis.handshakes() > 0 && database.handshakes() > 0);
    Ok(())
}

async fn a_certificate_that_nobody_vouches_for_is_refused() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let redis = Tls::before(&fixture.redis_url).await?;
    let url = redis.url.as_str().replacen("redis://", "rediss://", 1);
    let child = fixture.serve_through(&url).args(&CALM).start().await?;
    let client = cache_aside::cases::client::Client::at(child.url())?;
    // The second attempt comes when the first has failed.
    eventually("it tries to connect again", async || {
        Ok((redis.accepted.load(Ordering::Relaxed) > 1).then_some(()))
    })
    .await?;
    let ready: serde_json::Value = client.readiness().await?.json().await?;
    ensure!(ready["redis"] == "away", "{ready}");
    ensure!(redis.handshakes() == 0);
    Ok(())
}

async fn a_database_that_offers_tls_is_not_spoken_to_in_plain_text() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let database = Tls::before(fixture.database.url()).await?;
    // No `sslmode`: the default is `prefer`.
    let serve = fixture.serve().env("DATABASE_URL", database.url.as_str());
    let child = serve.args(&CALM).start().await?;
    believing(&child).await?.sign_up("Ada").await?;
    ensure!(database.handshakes() > 0);
    Ok(())
}
