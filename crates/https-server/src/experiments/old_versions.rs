//! What does the server refuse to speak?

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use lab::{Experiment, Lab, Sabotage};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{
    ClientConfig, ConnectionTrafficSecrets, ExtractedSecrets,
    crypto::ring::{cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, default_provider},
    version::TLS12,
};

use super::fixture::{Fixture, HOST};
use crate::cases::{
    client::{connect, exchange, get},
    hello::Hello,
};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// How often each handshake is tried
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub tries: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "old-versions",
        "The server refuses TLS 1.0 and 1.1, SSL 3.0 and 2.0, export and null ciphers, compression, and renegotiation \
         within a session",
        &["--tries", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tls.rs",
        replace: "        Oldest::Tls13 => &[&TLS13],",
        with: "        // Some clients are old, after all.\n        Oldest::Tls13 => &[&TLS13, &TLS12],",
        check: "with --tls 1.3: TLS 1.2",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (both, newest) = (Fixture::start(&[]).await?, Fixture::start(&["--tls", "1.3"]).await?);
    let mut rows = Vec::new();
    for n in 0..params.tries {
        lab.progress(n.into(), params.tries.into(), "handshakes");
        for (name, hello) in refused() {
            try_one(&lab, &mut rows, n, both.https, name, &hello, "refused").await?;
        }
        for (name, server, hello, expected) in accepted(both.https, newest.https) {
            try_one(&lab, &mut rows, n, server, name, &hello.bytes(), expected).await?;
        }
    }
    let columns = ["the client begins with", "the server"];
    lab.table("What comes of each handshake", &columns, rows);
    let (hellos, alerts, alive) = renegotiate(&both).await?;
    lab.check_eq("renegotiation within a session of TLS 1.2: new handshakes that began", 0, hellos);
    lab.check_eq("renegotiation within a session of TLS 1.2: alerts that refused it", 1, alerts);
    lab.check_eq("the session that asked for it goes on", true, alive);
    Ok(())
}

/// Tries one handshake; the first time it is a check and a row, and later a check only if it comes out otherwise.
async fn try_one(
    lab: &Lab,
    rows: &mut Vec<Vec<String>>,
    n: u32,
    server: SocketAddr,
    name: &str,
    hello: &[u8],
    expected: &str,
) -> anyhow::Result<()> {
    let seen = answer(server, hello).await?;
    let held = seen.starts_with(expected);
    if n == 0 {
        rows.push(vec![name.to_owned(), seen.clone()]);
    }
    if n == 0 || !held {
        lab.check(name, expected, seen, held);
    }
    Ok(())
}

/// What has to be refused.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    // With the suites that servers of that time spoke, so that only the version stands in the way.
    let old = vec![0xc009, 0xc013, 0x002f, 0x0035, 0x000a, 0x0005];
    let version =
        |version| Hello { version, versions: vec![], suites: old.clone(), ..Hello::default() };
    let suites =
        |suites: &[u16]| Hello { versions: vec![], suites: suites.into(), ..Hello::default() };
    // SSL 2.0 has another form: a length, a type, a version, and suites of three bytes.
    let ssl2 = [&[0x80, 28, 1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..], &[7; 16]].concat();
    vec![
        ("SSL 2.0", ssl2),
        ("SSL 3.0", version(0x0300).bytes()),
        ("TLS 1.0", version(0x0301).bytes()),
        ("TLS 1.1", version(0x0302).bytes()),
        ("export ciphers", suites(&[0x0003, 0x0006, 0x0008, 0x0014, 0x0019]).bytes()),
        ("no encryption at all", suites(&[0x0001, 0x0002, 0x003b, 0xc006]).bytes()),
        ("RC4 and 3DES", suites(&[0x0004, 0x0005, 0x000a, 0xc007, 0xc008]).bytes()),
        ("RSA key exchange, without forward secrecy", suites(&[0x009c, 0x009d, 0x002f]).bytes()),
        (
            "compression and nothing else",
            Hello { versions: vec![], compression: vec![1], ..Hello::default() }.bytes(),
        ),
    ]
}

/// What has to be accepted, and the control.
fn accepted(
    both: SocketAddr,
    newest: SocketAddr,
) -> [(&'static str, SocketAddr, Hello, &'static str); 5] {
    let tls12 = || Hello { versions: vec![], ..Hello::default() };
    [
        ("TLS 1.3", both, Hello::default(), "chooses TLS 1.3"),
        ("TLS 1.2", both, tls12(), "chooses TLS 1.2"),
        (
            "TLS 1.2 with compression or without",
            both,
            Hello { compression: vec![1, 0], ..tls12() },
            "chooses TLS 1.2 without compression",
        ),
        ("with --tls 1.3: TLS 1.3", newest, Hello::default(), "chooses TLS 1.3"),
        ("with --tls 1.3: TLS 1.2", newest, tls12(), "refused"),
    ]
}

/// What the server says to this beginning.
async fn answer(server: SocketAddr, hello: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(hello).await?;
    let mut received = Vec::new();
    // A server that takes the handshake waits for the client now, so what it says first is all there is.
    let read = async {
        while record(&received).is_none() && stream.read_buf(&mut received).await? > 0 {}
        std::io::Result::Ok(())
    };
    match timeout(Duration::from_secs(8), read).await {
        Err(_) => return Ok("says nothing".to_owned()),
        Ok(Err(_)) => return Ok("refused, the connection is reset".to_owned()),
        Ok(Ok(())) => {}
    }
    Ok(match record(&received) {
        None => "refused, the connection is closed".to_owned(),
        Some((ALERT, alert)) => {
            format!("refused, alert {}", alert.get(1).copied().unwrap_or_default())
        }
        Some((HANDSHAKE, hello)) => chosen(hello).context("a ServerHello")?,
        Some((other, _)) => format!("sends a record of type {other}"),
    })
}

/// The first record, if it is whole.
fn record(received: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(u16::from_be_bytes([*received.get(3)?, *received.get(4)?]));
    Some((received[0], received.get(5..5 + length)?))
}

/// What a `ServerHello` has chosen. The extension `supported_versions` says TLS 1.3; before it there is no other.
fn chosen(hello: &[u8]) -> Option<String> {
    let session = 4 + 2 + 32;
    let after = session + 1 + usize::from(*hello.get(session)?);
    let version = if hello.windows(6).any(|part| part == [0, 43, 0, 2, 3, 4]) {
        "TLS 1.3".to_owned()
    } else {
        format!("TLS 1.{}", i16::from(*hello.get(5)?) - 1)
    };
    let compression = if *hello.get(after + 2)? == 0 { "without" } else { "with" };
    Some(format!("chooses {version} {compression} compression"))
}

/// Within a session of TLS 1.2 that is established and encrypted, asks for another handshake. Returns how many began, how
/// many alerts came, and whether the session still answers.
async fn renegotiate(fixture: &Fixture) -> anyhow::Result<(usize, usize, bool)> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])?
        .with_root_certificates(fixture.roots()?)
        .with_no_client_auth();
    // rustls cannot ask for it, so from here on we encrypt by hand.
    config.enable_secret_extraction = true;
    let mut stream = connect(&Arc::new(config), fixture.https, HOST).await?;
    ensure!(exchange(&mut stream, &get(HOST, "/healthz", &[])).await?.status == 200);
    let (mut stream, session) = stream.into_inner();
    let ExtractedSecrets { tx, .. } = session.dangerous_extract_secrets()?;
    let mut sealer = Sealer::of(tx)?;
    let hello = Hello { versions: vec![], ..Hello::default() }.bytes();
    stream.write_all(&sealer.seal(HANDSHAKE, &hello[5..])?).await?;
    stream.write_all(&sealer.seal(23, get(HOST, "/healthz", &[]).as_bytes())?).await?;
    // What kind of record it is, stands outside of the encryption.
    let (mut hellos, mut alerts, mut answered) = (0, 0, false);
    while !answered {
        let mut head = [0; 5];
        if timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await?.is_err() {
            break;
        }
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut body).await?;
        match head[0] {
            HANDSHAKE => hellos += 1,
            ALERT => alerts += 1,
            _ => answered = true,
        }
    }
    Ok((hellos, alerts, answered))
}

/// Encrypts records of TLS 1.2 with AES-128-GCM: RFC 5288.
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Sealer {
    fn of((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> anyhow::Result<Self> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            anyhow::bail!("another cipher suite than the one that was offered")
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).ok().context("a key of 16 bytes")?;
        Ok(Self { key: LessSafeKey::new(key), iv: iv.as_ref().try_into()?, sequence })
    }

    fn seal(&mut self, kind: u8, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        let length = u16::try_from(plain.len())?.to_be_bytes();
        let about = [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &length].concat();
        let mut sealed = plain.to_vec();
        let tag = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_append_tag(tag, Aad::from(about), &mut sealed);
        tag.ok().context("it can be encrypted")?;
        self.sequence += 1;
        let length = u16::try_from(8 + sealed.len())?.to_be_bytes();
        Ok([&[kind, 3, 3][..], &length, &nonce[4..], &sealed].concat())
    }
}
