//! What does the server agree to in a handshake? Versions, what is spoken inside, who may resume, who has to show a
//! certificate.
//!
//! rustls knows no SSL, no TLS 1.0 or 1.1, no RSA key exchange, no compression and no renegotiation, so there is nothing
//! to switch off. Every cipher suite has forward secrecy and authenticated encryption.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring::{self, Ticketer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use crate::{certificate::Certificates, error::StartError, machine};

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Oldest {
    /// TLS 1.2, for old Java and old Windows.
    #[default]
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3: every handshake takes one round trip, and hides the certificate.
    #[value(name = "1.3")]
    Tls13,
}

// ANCHOR: config
/// The configuration of all connections.
pub fn config(
    certificates: Arc<Certificates>,
    oldest: Oldest,
    client_ca: Option<&Path>,
) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(ring::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(file) => machine::verifier(file, &provider)?,
    };
    let versions: &[_] = match oldest {
        Oldest::Tls12 => &[&TLS13, &TLS12],
        Oldest::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    // Offered inside the handshake (ALPN), so that HTTP/2 costs no round trip more.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A ticket is the session, encrypted for ourselves: resumption costs no memory here. The key changes every six hours.
    config.ticketer = Ticketer::new()?;
    Ok(config)
}
// ANCHOR_END: config
