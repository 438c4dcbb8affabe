//! Can somebody else pass for the server?

use std::{net::SocketAddr, sync::Arc};

use lab::{Experiment, Lab, Sabotage};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    },
};

use super::fixture::{Fixture, HOST, LOGIN};
use crate::{
    ca::{Ca, Purpose},
    cases::client::{BOTH, connect, exchange, get, post, with_verifier},
};
use time::{Duration, OffsetDateTime};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// How often a client tries each certificate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub tries: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "impersonate",
        "A man in the middle presents a certificate that is self-signed, expired, not yet valid, for another name, from \
         another authority or for another purpose. A client that verifies refuses each of them; one that does not \
         tells him the password",
        &["--tries", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/ca.rs",
        replace: "Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,",
        with: "Purpose::Client => ExtendedKeyUsagePurpose::ServerAuth,",
        check: "for another purpose: clients that tell the man in the middle the password",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::start(&[]).await?;
    let verifying = fixture.shared_client(BOTH)?;
    let careless = Arc::new(with_verifier(Arc::new(Careless), BOTH)?);
    let mut real = connect(&verifying, fixture.https, HOST).await?;
    let status = exchange(&mut real, &get(HOST, "/", &[])).await?.status;
    lab.check_eq("the real server is accepted by the client that verifies", 200, status);
    let (mut rows, mut told) = (Vec::new(), 0);
    let elsewhere = tempfile::tempdir()?;
    let forged = forged(&Ca::open(fixture.home.path())?, &Ca::open(elsewhere.path())?)?;
    let of = forged.len();
    for (name, chain, key) in forged {
        let mut man = Man::in_the_middle(chain, key).await?;
        let (mut tricked, mut words) = (0, String::new());
        for _ in 0..params.tries {
            match tell(&verifying, man.address).await {
                Ok(()) => tricked += 1,
                Err(error) => words = error.to_string(),
            }
        }
        let check = format!("{name}: clients that tell the man in the middle the password");
        lab.check_eq(check, 0, tricked);
        let read_before = man.passwords();
        let fooled = tell(&careless, man.address).await.is_ok() && man.passwords() > read_before;
        told += usize::from(fooled);
        let words = words.trim_start_matches("invalid peer certificate: ").to_owned();
        rows.push(vec![
            name.to_owned(),
            words,
            if fooled { "accepts it" } else { "refuses it" }.to_owned(),
        ]);
    }
    let columns = ["the certificate is", "who verifies says", "who does not"];
    lab.table("What two clients make of each certificate", &columns, rows);
    lab.check_eq(
        "certificates with which the man reads the password of a client that does not verify",
        of,
        told,
    );
    Ok(())
}

/// Logs in at whoever is there.
async fn tell(client: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = connect(client, address, HOST).await?;
    exchange(&mut stream, &post(HOST, "/login", &[], LOGIN)).await.map(drop)
}

type Forged = (&'static str, CertificateDer<'static>, PrivateKeyDer<'static>);

/// Everything that somebody may have without the server's key.
fn forged(ca: &Ca, stranger: &Ca) -> anyhow::Result<Vec<Forged>> {
    let (now, day) = (OffsetDateTime::now_utc(), Duration::DAY);
    let (host, other) = ([HOST.to_owned()], ["evil.example".to_owned()]);
    let mut all = Vec::new();
    let own = rcgen::generate_simple_self_signed(host.to_vec())?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    all.push(("self-signed", own.cert.der().clone(), key));
    for (name, ca, names, purpose, from) in [
        ("expired", ca, &host, Purpose::Server, now - day * 3),
        ("not yet valid", ca, &host, Purpose::Server, now + day),
        ("for another name", ca, &other, Purpose::Server, now - day),
        ("from another authority", stranger, &host, Purpose::Server, now - day),
        // Say, stolen from a machine that is a client of ours.
        ("for another purpose", ca, &host, Purpose::Client, now - day),
    ] {
        let issued = ca.issue(names, purpose, from, from + day * 2)?;
        all.push((
            name,
            issued.certificate.clone(),
            PrivateKeyDer::Pkcs8(issued.key.serialize_der().into()),
        ));
    }
    Ok(all)
}

/// Somebody who answers in the server's place.
struct Man {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<()>,
    passwords: usize,
    serving: JoinHandle<()>,
}

impl Drop for Man {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Man {
    async fn in_the_middle(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Self> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // No more than there are tries.
        let (tell, heard) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut received = Vec::new();
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                while !received.ends_with(b"}")
                    && stream.read_buf(&mut received).await.unwrap_or(0) > 0
                {}
                if String::from_utf8_lossy(&received).contains("lovelace") {
                    let _ = tell.send(());
                }
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        });
        Ok(Self { address, heard, passwords: 0, serving })
    }

    /// How many passwords he has heard.
    fn passwords(&mut self) -> usize {
        while self.heard.try_recv().is_ok() {
            self.passwords += 1;
        }
        self.passwords
    }
}

/// As in the snippets that make an error go away: `verify=False`, `rejectUnauthorized: false`, `InsecureSkipVerify`.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
