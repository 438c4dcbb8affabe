//! Which certificate does a new connection get? The newest pair of files that is good.
//!
//! Invariant: what is served has passed [`load`]. A renewal that fails leaves the old pair in place, so a mistake in a
//! file ends nobody's service while it runs. At the start there is no old pair, and the service does not start.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio_rustls::rustls::{
    self,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::chain;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Where the pair is.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate and those that lead to a root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why a pair of files cannot be served. It names files, so it is for whoever runs the server.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file is not there, may not be read, or holds nothing of the kind.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: pem::Error,
    },
    /// The key belongs to another certificate, or is of a kind that we cannot use.
    #[error("{key} is not the key of the certificate: {why}")]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
    /// A client would refuse it: it has expired, is for another name or another purpose, or is an authority itself.
    #[error("a client would refuse {path}: {why}")]
    Refused {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
}

// ANCHOR: load
/// Reads the pair, and checks of it what a client will check, but for the root.
pub fn load(files: &Files, name: &ServerName<'_>) -> Result<CertifiedKey, Unusable> {
    let unreadable = |path: &PathBuf, why| Unusable::Unreadable { path: path.clone(), why };
    let Files { certificate, key } = files;
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|why| unreadable(certificate, why))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|why| unreadable(&files.key, why))?;
    chain::check_all_but_the_root(&chain, name, UnixTime::now())
        .map_err(|why| Unusable::Refused { path: certificate.clone(), why })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|why| Unusable::Mismatch { key: files.key.clone(), why })
}
// ANCHOR_END: load

/// The pair that is served, and where the next one comes from.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    /// The name that it has to be good for.
    name: ServerName<'static>,
    current: RwLock<Arc<CertifiedKey>>,
}

// ANCHOR: resolve
impl ResolvesServerCert for Certificates {
    /// Asked once in each full handshake. A resumed one and an open connection need no certificate any more.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificates {
    /// Loads the first pair. An error is a reason not to start.
    pub fn open(files: Files, name: ServerName<'static>) -> Result<Self, Unusable> {
        let current = RwLock::new(Arc::new(load(&files, &name)?));
        Ok(Self { files, name, current })
    }

    /// Loads the pair again. If it is not good, the old one stays.
    pub fn reload(&self) -> Result<(), Unusable> {
        // Read before the lock is taken, so that no handshake waits for the disk.
        let renewed = Arc::new(load(&self.files, &self.name)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }
}
// ANCHOR_END: resolve

impl Certificates {
    /// Reloads when the files have changed, for ever. It looks at them from time to time: that works on every system
    /// and in every container, also for a folder that is replaced as a whole.
    ///
    /// Two files cannot be replaced at once. Between the two they do not match; then the old pair stays for
    /// another second.
    pub async fn watch(&self) {
        let mut seen = written(&self.files);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = written(&self.files);
            if now == seen {
                continue;
            }
            // A pair that is not good is tried again: its time may come, or the right to read it.
            match self.reload().map(|()| seen = now) {
                Ok(()) => tracing::info!("the certificate was renewed"),
                Err(error) => tracing::error!(%error, "the old certificate stays"),
            }
        }
    }
}

/// When they were written, if they are there.
fn written(Files { certificate, key }: &Files) -> [Option<SystemTime>; 2] {
    let at = |path| -> io::Result<_> { fs::metadata(path)?.modified() };
    [at(certificate).ok(), at(key).ok()]
}
