//! What does a client check before it trusts a certificate? Its name, its time, its purpose, and who signed it.
//!
//! The server checks its own certificate in the same way before it serves it. Otherwise the first who learns that it has
//! expired is a client.

use tokio_rustls::rustls::{
    CertificateError, Error, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

// ANCHOR: check
/// Checks a chain of certificates, the server's own first, as a client does that trusts these roots.
pub fn check(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let own = ParsedCertificate::try_from(own)?;
    // A certificate for another name is another server's, however well it is signed.
    verify_server_name(&own, name)?;
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
// ANCHOR_END: check

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::ca::{Ca, Purpose};

    const DAY: Duration = Duration::DAY;

    fn ca() -> Ca {
        Ca::open(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn refusal(
        name: &str,
        purpose: Purpose,
        from: Duration,
        days: i32,
    ) -> (Option<Error>, Option<Error>) {
        let ca = ca();
        let begins = OffsetDateTime::now_utc() + from;
        let issued =
            ca.issue(&["shop.example".to_owned()], purpose, begins, begins + DAY * days).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate.clone()).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let chain = [issued.certificate];
        (
            check(&chain, &roots, &name, UnixTime::now()).err(),
            check_all_but_the_root(&chain, &name, UnixTime::now()).err(),
        )
    }

    #[test]
    fn a_certificate_has_to_be_for_this_name_this_time_and_this_purpose() {
        assert_eq!(refusal("shop.example", Purpose::Server, -DAY, 2), (None, None));
        assert_eq!(refusal("SHOP.example", Purpose::Server, -DAY, 2), (None, None));
        for (name, purpose, from, days) in [
            ("evil.example", Purpose::Server, -DAY, 2),
            ("shop.example", Purpose::Client, -DAY, 2),
            ("shop.example", Purpose::Server, -DAY * 3, 2),
            ("shop.example", Purpose::Server, DAY, 2),
        ] {
            let (client, server) = refusal(name, purpose, from, days);
            assert!(client.is_some(), "{name} {purpose:?} {from}");
            assert_eq!(client, server);
        }
    }

    #[test]
    fn only_who_has_the_root_can_tell_who_signed_it() {
        let (ca, other) = (ca(), ca());
        let now = OffsetDateTime::now_utc();
        let names = ["shop.example".to_owned()];
        let issued = other.issue(&names, Purpose::Server, now - DAY, now + DAY).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate.clone()).unwrap();
        let (chain, name) = ([issued.certificate], ServerName::try_from("shop.example").unwrap());
        assert!(check(&chain, &roots, &name, UnixTime::now()).is_err());
        assert_eq!(check_all_but_the_root(&chain, &name, UnixTime::now()), Ok(()));
        assert!(check_all_but_the_root(&[], &name, UnixTime::now()).is_err());
    }
}
