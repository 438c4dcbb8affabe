//! What does the handshake cost, and what does it leave behind?

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, KeyLog, SupportedProtocolVersion,
    crypto::ring::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, kx_group::SECP256R1},
    pki_types::{PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{
    fixture::{Fixture, HOST},
    tap::{Piece, Tap, contains},
};
use crate::cases::client::{connect, exchange, get};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// The delay in each direction, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(5..=1_000))]
    pub delay_ms: u32,
    /// Sessions that are recorded
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub sessions: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "handshake",
        "Before the first answer, TCP costs one round trip, TLS 1.3 one more and TLS 1.2 two more; a resumed session saves \
         the certificate's bytes, and in TLS 1.2 a round trip. In TLS 1.3 the key exchange never uses the certificate's \
         key, and the secret of one session opens no other",
        &["--delay-ms", "10", "--sessions", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tls.rs",
        replace: "    config.ticketer = Ticketer::new()?;",
        with: "    config.session_storage = Arc::new(tokio_rustls::rustls::server::NoServerSessionStorage {});\n    \
               config.send_tls13_tickets = 0;",
        check: "TLS 1.3, resumed: the session was resumed",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::start(&[]).await?;
    round_trips(&params, &lab, &fixture).await?;
    secrecy(&params, &lab, &fixture).await
}

/// One connection, and what it took until the answer was there.
struct Seen {
    round_trips: usize,
    from_server: usize,
    time: Duration,
    resumed: bool,
}

async fn round_trips(params: &Params, lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let delay = Duration::from_millis(params.delay_ms.into());
    let mut rows = Vec::new();
    let mut row = |name: &str, seen: &Seen| {
        // A proxy in user space cannot see TCP's own handshake. It is one round trip, for all alike.
        let all = seen.round_trips + 1;
        let waited = 1.0 + seen.time.as_secs_f64() / (2.0 * delay.as_secs_f64());
        rows.push(vec![
            name.to_owned(),
            all.to_string(),
            format!("{waited:.1}"),
            seen.from_server.to_string(),
        ]);
        all
    };
    let plain = over_http(fixture, delay).await?;
    lab.check_eq("HTTP: round trips until the answer", 2, row("HTTP", &plain));
    for (version, name, full_trips, resumed_trips) in
        [(&TLS12, "TLS 1.2", 4, 3), (&TLS13, "TLS 1.3", 3, 3)]
    {
        let client = fixture.shared_client(&[version])?;
        let full = over_tls(fixture, delay, &client).await?;
        let resumed = over_tls(fixture, delay, &client).await?;
        lab.check_eq(format!("{name}: round trips until the answer"), full_trips, row(name, &full));
        let name = format!("{name}, resumed");
        lab.check_eq(format!("{name}: the session was resumed"), true, resumed.resumed);
        let trips = row(&name, &resumed);
        lab.check_eq(format!("{name}: round trips until the answer"), resumed_trips, trips);
        let less = format!("less than {}", full.from_server);
        let check = format!("{name}: bytes from the server, without a certificate");
        lab.check(check, less, resumed.from_server, resumed.from_server < full.from_server);
        let saved = full.from_server.saturating_sub(resumed.from_server);
        lab.figure(format!("{name}: bytes from the server that it saves"), saved as f64, "bytes");
    }
    let columns = ["", "round trips", "measured, in round trips", "bytes from the server"];
    lab.table("Until the first answer is there, with TCP's own handshake", &columns, rows);
    Ok(())
}

async fn over_http(fixture: &Fixture, delay: Duration) -> anyhow::Result<Seen> {
    let far = Proxy::to(&fixture.plain.to_string()).await?;
    far.set(Fault::Delay(delay));
    let tap = Tap::on(far.address()).await?;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(tap.address).await?;
    ensure!(exchange(&mut stream, &get(HOST, "/healthz", &[])).await?.status == 200);
    Ok(seen(&tap, begun.elapsed(), false))
}

async fn over_tls(
    fixture: &Fixture,
    delay: Duration,
    client: &Arc<ClientConfig>,
) -> anyhow::Result<Seen> {
    let far = Proxy::to(&fixture.https.to_string()).await?;
    far.set(Fault::Delay(delay));
    let tap = Tap::on(far.address()).await?;
    let begun = Instant::now();
    let mut stream = connect(client, tap.address, HOST).await?;
    ensure!(exchange(&mut stream, &get(HOST, "/healthz", &[])).await?.status == 200);
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(seen(&tap, begun.elapsed(), resumed))
}

/// Counts how often the client spoke and then had to wait for the server.
fn seen(tap: &Tap, time: Duration, resumed: bool) -> Seen {
    let pieces = tap.seen();
    let turns = pieces.windows(2).filter(|pair| pair[0].to_server && !pair[1].to_server);
    Seen { round_trips: turns.count(), from_server: tap.bytes(false), time, resumed }
}

/// The secrets of a session, as a browser writes them to `SSLKEYLOGFILE`.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<u8>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "SERVER_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = secret.to_vec();
        }
    }
}

/// A recorded session, and its secret.
struct Recorded {
    pieces: Vec<Piece>,
    secret: Vec<u8>,
    server_share: Vec<u8>,
}

async fn secrecy(params: &Params, lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let mut sessions = Vec::new();
    for n in 0..params.sessions {
        lab.progress(n.into(), params.sessions.into(), "recorded sessions");
        sessions.push(record(fixture, &[&TLS13]).await?);
    }
    let key = public_key(fixture)?;
    let shares = sessions.iter().map(|it| &it.server_share);
    // A share of another curve could not be this key, and the check could not fail.
    ensure!(shares.clone().all(|share| share.len() == key.len()), "shares of another curve");
    let with_key = shares.clone().filter(|share| **share == key).count();
    let different: std::collections::BTreeSet<_> = shares.collect();
    lab.check_eq("key exchanges that use the key of the certificate", 0, with_key);
    lab.check_eq("different keys in so many key exchanges", sessions.len(), different.len());
    let opens = |at: usize, with: usize| opened(&sessions[at].pieces, &sessions[with].secret);
    let own = (0..sessions.len()).map(|at| opens(at, at)).collect::<anyhow::Result<Vec<_>>>()?;
    let others =
        (1..sessions.len()).map(|at| opens(at, at - 1)).collect::<anyhow::Result<Vec<_>>>()?;
    let readable = own.iter().filter(|opened| **opened).count();
    lab.check_eq(
        "sessions that open with their own secret, from SSLKEYLOGFILE",
        sessions.len(),
        readable,
    );
    let readable = others.into_iter().filter(|opened| *opened).count();
    lab.check_eq(
        "sessions that open with the secret of another one, under the same key",
        0,
        readable,
    );
    lab.text(
        "The server's key has only signed. No secret of a session follows from it, so whoever steals the key later cannot \
         read what was recorded. (They can pass for the server from then on.)",
    );
    Ok(())
}

/// The key in the server's certificate: a point of the curve P-256, as each share of a key exchange is.
fn public_key(fixture: &Fixture) -> anyhow::Result<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_file(fixture.home.path().join("server.key"))?;
    let (curve, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
    let key = EcdsaKeyPair::from_pkcs8(curve, key.secret_der(), &random);
    let key = key.ok().context("the server's key is none of P-256")?;
    Ok(key.public_key().as_ref().to_vec())
}

async fn record(
    fixture: &Fixture,
    versions: &[&'static SupportedProtocolVersion],
) -> anyhow::Result<Recorded> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    // The curve of the certificate's key, so that a share could be that key.
    provider.kx_groups = vec![SECP256R1];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_root_certificates(fixture.roots()?)
        .with_no_client_auth();
    let secrets = Arc::new(Secrets::default());
    config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
    let tap = Tap::on(fixture.https).await?;
    let mut stream = connect(&Arc::new(config), tap.address, HOST).await?;
    ensure!(exchange(&mut stream, &get(HOST, "/pages/debts", &[])).await?.status == 200);
    // What the client has read, the tap has noted.
    sleep(Duration::ZERO).await;
    let secret = secrets.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let server_share = server_share(&tap.stream(0, false)).context("a ServerHello")?;
    Ok(Recorded { pieces: tap.seen(), secret, server_share })
}

/// The server's half of the key exchange, from its first message: the extension `key_share`.
fn server_share(received: &[u8]) -> Option<Vec<u8>> {
    let hello = received.get(5..)?;
    let session = 4 + 2 + 32;
    let mut at = session + 1 + usize::from(*hello.get(session)?) + 2 + 1 + 2;
    let number = |at: usize| Some(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?]));
    loop {
        let (kind, length) = (number(at)?, usize::from(number(at + 2)?));
        if kind == 51 {
            // Behind the group and the length.
            return Some(hello.get(at + 8..at + 4 + length)?.to_vec());
        }
        at += 4 + length;
    }
}

/// Whether the page can be read from what the server sent, with this secret: RFC 8446, sections 5.2 and 7.3.
fn opened(pieces: &[Piece], secret: &[u8]) -> anyhow::Result<bool> {
    let key = UnboundKey::new(&AES_128_GCM, &derive::<16>(secret, b"key")?);
    let key = LessSafeKey::new(key.ok().context("a key of 16 bytes")?);
    let iv = derive::<12>(secret, b"iv")?;
    let received: Vec<u8> = pieces
        .iter()
        .filter(|piece| !piece.to_server)
        .flat_map(|piece| piece.bytes.clone())
        .collect();
    let (mut at, mut sequence, mut text) = (0, 0_u64, Vec::new());
    while let Some(head) = received.get(at..at + 5) {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let Some(body) = received.get(at + 5..at + 5 + length) else { break };
        at += 5 + length;
        let mut nonce = iv;
        for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= number;
        }
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        // Records of the handshake have another key, and are passed over.
        if let Ok(plain) = key.open_in_place(nonce, Aad::from(head), &mut body) {
            sequence += 1;
            text.extend_from_slice(plain);
        }
    }
    Ok(contains(&text, b"What people ask about debts"))
}

/// HKDF-Expand-Label, without a context.
fn derive<const N: usize>(secret: &[u8], label: &[u8]) -> anyhow::Result<[u8; N]> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = [b"tls13 ", label].concat();
    let (whole, short) = (u16::try_from(N)?.to_be_bytes(), u8::try_from(label.len())?);
    let about = [&whole[..], &[short], &label, &[0]];
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    let mut key = [0; N];
    let expanded = prk.expand(&about, Length(N)).and_then(|okm| okm.fill(&mut key));
    expanded.ok().context("a short key")?;
    Ok(key)
}
