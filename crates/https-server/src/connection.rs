//! What may a handler know about the connection? What TLS has agreed on, before anything of HTTP was said.
//!
//! Behind a proxy that ends TLS, a handler knows none of this, only what the proxy writes into headers.

use std::net::SocketAddr;

use serde::Serialize;
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion::TLSv1_3, ServerConnection};

use crate::machine;

/// How requests of this connection arrive.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// The version of TLS.
    pub tls: &'static str,
    /// The cipher suite.
    pub cipher: String,
    /// What is spoken inside, if the client said what it can speak.
    pub alpn: Option<String>,
    /// Whether it resumes an earlier session, without certificates.
    pub resumed: bool,
    /// The name in the client's certificate, if it showed one that is good.
    pub client_certificate: Option<String>,
    /// The name that the client asked for in the handshake (SNI). It is there unless the client used an IP address.
    #[serde(skip)]
    pub server_name: Option<String>,
    /// Whose it is.
    #[serde(skip)]
    pub peer: SocketAddr,
}

// ANCHOR: of
impl Connection {
    /// Reads it from a connection whose handshake is done.
    pub fn of(tls: &ServerConnection, peer: SocketAddr) -> Self {
        let suite = tls.negotiated_cipher_suite();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            tls: if tls.protocol_version() == Some(TLSv1_3) { "1.3" } else { "1.2" },
            cipher: suite.and_then(|it| it.suite().as_str()).unwrap_or("unknown").to_owned(),
            alpn: tls.alpn_protocol().map(text),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            client_certificate: tls.peer_certificates().and_then(|it| machine::name(it.first()?)),
            server_name: tls.server_name().map(str::to_owned),
            peer,
        }
    }
}
// ANCHOR_END: of
