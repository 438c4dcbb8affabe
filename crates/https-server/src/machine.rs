//! Who is the client? With mutual TLS, the handshake asks for its certificate too, and this is what is checked and read.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{certificate::Unusable, error::StartError};

// ANCHOR: verifier
/// Asks each client for a certificate of this authority. One without a certificate is let in, because people with
/// browsers come by the same port; `/machines` refuses it. One with a bad certificate ends in the handshake.
pub fn verifier(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let unreadable = |why| Unusable::Unreadable { path: file.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        roots.add(root.map_err(unreadable)?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    let verifier = verifier.allow_unauthenticated().build();
    Ok(verifier.map_err(|error| rustls::Error::General(error.to_string()))?)
}
// ANCHOR_END: verifier

/// The name in a certificate that was verified.
pub fn name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_dns_names().next().map(str::to_owned)
}
