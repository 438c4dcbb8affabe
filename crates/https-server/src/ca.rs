//! Who signs the certificate? A private certificate authority, made at the first start and kept in the answer's home.
//!
//! Invariant: it is put into no trust store. Whoever has its key can pass for every server on the internet before
//! a client that trusts it, so a client names it for one call only: `curl --cacert`.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use tempfile::NamedTempFile;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// What a client has to have to check what it signed.
    pub certificate: CertificateDer<'static>,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// By a server, to its clients.
    Server,
    /// By a client, to a server.
    Client,
}

/// A new certificate with its key.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: KeyPair,
}

impl Ca {
    /// The one that is kept in this folder. If there is none, one is made.
    pub fn open(home: &Path) -> io::Result<Self> {
        fs::create_dir_all(home)?;
        let (certificate, key) = (home.join("ca.pem"), home.join("ca.key"));
        if !certificate.exists() {
            let pair = KeyPair::generate().map_err(io::Error::other)?;
            let made = params().self_signed(&pair).map_err(io::Error::other)?;
            // The certificate comes last: if it is there, so is its key.
            write(&key, &pem("PRIVATE KEY", &pair.serialize_der()))?;
            write(&certificate, &pem("CERTIFICATE", made.der()))?;
        }
        let certificate = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256);
        Ok(Self { issuer: Issuer::new(params(), key.map_err(io::Error::other)?), certificate })
    }

    // ANCHOR: issue
    /// Signs a certificate for these names, which is good for one purpose and for this time.
    pub fn issue(
        &self,
        names: &[String],
        purpose: Purpose,
        begins: OffsetDateTime,
        ends: OffsetDateTime,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        let name = names.first().map_or("nobody", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = begins;
        params.not_after = ends;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // One purpose each. A machine whose certificate is good for servers too could pass for our server.
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.der().clone(), key })
    }
    // ANCHOR_END: issue
}

impl Issued {
    /// Writes both to files, in the place of those that are there.
    pub fn write(&self, certificate: &Path, key: &Path) -> io::Result<()> {
        write(key, &pem("PRIVATE KEY", &self.key.serialize_der()))?;
        write(certificate, &pem("CERTIFICATE", &self.certificate))
    }
}

/// Its name and key have to stay from start to start, so that what is signed later still leads to the certificate
/// that is kept. Its time does not matter then.
fn params() -> CertificateParams {
    let (mut params, now) = (CertificateParams::default(), OffsetDateTime::now_utc());
    // Without a name of its own, OpenSSL takes what it signs for self-signed.
    params.distinguished_name.push(DnType::CommonName, "https-server private CA");
    params.not_before = now - Duration::DAY;
    params.not_after = now + Duration::days(3_650);
    // It may sign certificates of servers and clients, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

/// Writes a file that nobody else may read. Under another name first: who reads it meanwhile reads the old one whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
