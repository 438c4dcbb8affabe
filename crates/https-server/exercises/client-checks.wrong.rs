// caught by: chain::
/// Checks a chain of certificates, the server's own first, as a client does that trusts these roots.
pub fn check(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let own = ParsedCertificate::try_from(own)?;
    // The mistake: it is well signed, so it is trusted, whoever's it is.
    let _ = name;
    // For each certificate on the way up to a root: its time, its purpose, and the signature of the next one.
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&own, roots, intermediates, now, algorithms)
}

/// The same without roots. Which authorities its clients trust, a server does not know, so an unknown one is no fault.
pub fn check_all_but_the_root(
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    match check(chain, &RootCertStore::empty(), name, now) {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(()),
        checked => checked,
    }
}
