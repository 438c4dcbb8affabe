//! How do cases, tests and experiments speak HTTPS? With rustls itself, so that they can look at what crosses the wire.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use conform::target::Target;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Url;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split},
    join,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        SupportedProtocolVersion,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
        version::{TLS12, TLS13},
    },
};

use crate::chain;

/// TLS 1.3 and 1.2.
pub static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// An answer of HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The first header of this name, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim())
    }

    /// The cookie that it sets, as a client sends it back.
    pub fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap_or_default()
    }
}

/// The text of a GET.
pub fn get(host: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")
}

/// The text of a POST of JSON.
pub fn post(host: &str, path: &str, headers: &[(&str, &str)], json: &str) -> String {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{headers}\
         content-length: {}\r\n\r\n{json}",
        json.len()
    )
}

/// Sends a request and reads the whole answer.
pub async fn exchange<S>(stream: &mut S, request: &str) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await?;
    // TLS may have kept some of it: a write that finds the socket busy is not tried again by a read.
    stream.flush().await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = whole(&received)? {
            return Ok(answer);
        }
    }
}

/// A GET of HTTP/2 with a cookie, on a connection that nothing else uses.
pub async fn get_over_http2<S>(stream: S, url: &Url, cookie: &str) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = Request::get(url.as_str()).header("cookie", cookie).body(Empty::<Bytes>::new())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        anyhow::Ok(Answer { status, head: String::new(), body })
    };
    tokio::select! {
        answer = asked => answer,
        ended = connection => bail!("expected an answer over HTTP/2, got none: {ended:?}"),
    }
}

/// The answer, if all of it is there.
fn whole(received: &[u8]) -> io::Result<Option<Answer>> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let mut answer = Answer { status, head, body: String::new() };
    let length = match answer.header("content-length") {
        "" => 0,
        length => length.parse().map_err(|_| malformed())?,
    };
    let Some(body) = received.get(end + 4..).and_then(|rest| rest.get(..length)) else {
        return Ok(None);
    };
    answer.body = String::from_utf8_lossy(body).into_owned();
    Ok(Some(answer))
}

/// A client that trusts these roots, and nothing else.
pub fn trusting(
    roots: RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client that takes every certificate that is for this name, this time and this purpose, whoever signed it: a case
/// tries a program that its author has started.
pub fn trusting_any_authority() -> anyhow::Result<ClientConfig> {
    speaking(BOTH)
}

/// The same, with these versions of TLS.
pub fn speaking(versions: &[&'static SupportedProtocolVersion]) -> anyhow::Result<ClientConfig> {
    with_verifier(Arc::new(AnyAuthority(Arc::new(ring::default_provider()))), versions)
}

/// A client that checks certificates in this way, and speaks these versions.
pub fn with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions)?.dangerous();
    Ok(builder.with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Connects to this address, as to the server of this name.
pub async fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Where a program serves HTTPS: it says so when it is asked for a page.
pub async fn https_of(target: &Target) -> anyhow::Result<Url> {
    let response = target.get("").await?;
    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
    let url = location.and_then(|it| Url::parse(it).ok()).filter(|url| url.scheme() == "https");
    url.context("expected a redirect to https:// from `GET /`, got none")
}

/// The address of a URL.
pub fn address(url: &Url) -> anyhow::Result<SocketAddr> {
    let mut all = url.socket_addrs(|| None)?;
    // What is tried listens where it was told to, on IPv4.
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().context("a URL has an address")
}

/// Speaks HTTP on one side and HTTPS on the other, so that the kit of `conform` can try calls that need HTTPS.
pub struct Bridge {
    /// The program as seen through it.
    pub target: Target,
    accepting: AbortHandle,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Bridge {
    /// A bridge to the port for HTTPS of this program.
    pub async fn to(target: &Target) -> anyhow::Result<Self> {
        let (url, config) = (https_of(target).await?, Arc::new(trusting_any_authority()?));
        let server = address(&url)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let here = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = JoinSet::new();
            loop {
                let Ok((plain, _)) = listener.accept().await else { continue };
                let config = Arc::clone(&config);
                connections.spawn(async move {
                    // By its address, so without a name in the handshake: any of the program's names will do inside.
                    let name = server.ip().to_string();
                    let tls = connect(&config, server, &name).await?;
                    carry(plain, tls).await;
                    io::Result::Ok(())
                });
                while connections.try_join_next().is_some() {}
            }
        });
        let target = Target::new(&format!("http://{here}"), None)?;
        Ok(Self { target, accepting: accepting.abort_handle() })
    }
}

/// Carries bytes both ways until both sides have ended. A program that refuses a long body closes before it has read all
/// of it, and its answer has to arrive nevertheless: an error in one direction does not end the other.
async fn carry(plain: TcpStream, tls: TlsStream<TcpStream>) {
    let (mut from_client, mut to_client) = plain.into_split();
    let (mut from_program, mut to_program) = split(tls);
    let there = async {
        let _ = copy(&mut from_client, &mut to_program).await;
        let _ = to_program.shutdown().await;
        // A socket that is closed with unread bytes resets the connection, and then the client loses the answer.
        let _ = copy(&mut from_client, &mut sink()).await;
    };
    let back = async {
        let _ = copy(&mut from_program, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    join!(there, back);
}

/// See [`trusting_any_authority`].
#[derive(Debug)]
struct AnyAuthority(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyAuthority {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = [own].into_iter().chain(intermediates).cloned().collect();
        chain::check_all_but_the_root(&chain, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
