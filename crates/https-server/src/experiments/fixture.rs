//! What do tests, experiments and cases start from? A service with a home of its own, and clients that trust its authority.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use axum::Router;
use conform::target::Target;
use lab::{
    child::{Child, ChildBuilder},
    serve::Here,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    api::{self, Api},
    ca::{Ca, Purpose},
    cases::client::{address, https_of, trusting},
    certificate::{Certificates, Files},
    listener::Listener,
    redirect::{Names, hsts},
    session::Sessions,
    tls::{self, Oldest},
};

const NAME: &str = "https-server";
/// The name that clients ask for.
pub const HOST: &str = "localhost";
/// The right login.
pub const LOGIN: &str = r#"{"user":"ada","password":"lovelace"}"#;

/// A running service.
#[derive(Debug)]
pub struct Fixture {
    /// Its process.
    pub child: Child,
    /// Where plain HTTP is served.
    pub plain: SocketAddr,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// What it keeps. Removed after the process has ended.
    pub home: TempDir,
}

impl Fixture {
    /// Starts it with these options.
    pub async fn start(options: &[&str]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        Self::start_in(home, options).await
    }

    /// The same with a home in which there is something.
    pub async fn start_in(home: TempDir, options: &[&str]) -> anyhow::Result<Self> {
        let https = SocketAddr::from((Ipv4Addr::LOCALHOST, lab::port::free()?));
        let child = serve(home.path(), https.port()).args(options).start().await?;
        let plain = child.address().parse()?;
        // The whiteboard version chooses its port itself, and says so when it is asked for a page.
        let told = https_of(&Target::new(child.url(), None)?).await;
        let https = told.and_then(|url| address(&url)).unwrap_or(https);
        Ok(Self { child, plain, https, home })
    }

    /// Trusts the service's authority.
    pub fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.home.path().join("ca.pem"))?)?;
        Ok(roots)
    }

    /// A client that trusts the service's authority, and speaks these versions.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> anyhow::Result<ClientConfig> {
        trusting(self.roots()?, versions)
    }

    /// The same, to be shared.
    pub fn shared_client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(Arc::new(self.client(versions)?))
    }
}

/// Prepares a service with this home.
pub fn serve(home: &Path, https_port: u16) -> ChildBuilder {
    // A variable, since the whiteboard version has no options.
    let child = Child::serve(NAME).env("HTTPS_SERVER_HOME", home);
    child.args(&["--https-port", &https_port.to_string()])
}

/// The application without TLS, as it would be if nobody had thought of it.
pub async fn without_tls() -> anyhow::Result<Here> {
    lab::serve::here(Parts::new()?.application).await
}

/// What a service is made of, for whoever puts it together in another way.
#[derive(Debug)]
pub struct Parts {
    /// What is served over HTTPS.
    pub application: Router,
    certificates: Arc<Certificates>,
    /// What a client has to trust.
    pub roots: RootCertStore,
}

impl Parts {
    /// With a certificate that is good for a day.
    pub fn new() -> anyhow::Result<Self> {
        let (home, now) = (tempfile::tempdir()?, OffsetDateTime::now_utc());
        let ca = Ca::open(home.path())?;
        let issued = ca.issue(&[HOST.to_owned()], Purpose::Server, now, now + Duration::DAY)?;
        let [certificate, key] = ["own.pem", "own.key"].map(|name| home.path().join(name));
        issued.write(&certificate, &key)?;
        let certificates =
            Certificates::open(Files { certificate, key }, ServerName::try_from(HOST)?)?;
        let certificates = Arc::new(certificates);
        let api = Api {
            names: Names { names: vec![HOST.to_owned()], https_port: 443 },
            sessions: Sessions::new().map_err(|_| anyhow::anyhow!("no random numbers"))?,
            certificates: Arc::clone(&certificates),
            hsts: hsts(300),
            pad_to: 0,
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate)?;
        Ok(Self { application: api::router(Arc::new(api)), certificates, roots })
    }

    /// Serves it over TLS within this process. It ends with the runtime.
    pub async fn with_tls(&self) -> anyhow::Result<SocketAddr> {
        let config = tls::config(Arc::clone(&self.certificates), Oldest::default(), None)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let patience = std::time::Duration::from_secs(5);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let served = Listener::new(acceptor, self.application.clone(), patience);
        tokio::spawn(served.serve(listener, std::future::pending()));
        Ok(address)
    }
}

/// Puts the challenge that the cases ask for into a home.
pub fn with_challenge() -> anyhow::Result<TempDir> {
    let home = tempfile::tempdir()?;
    let folder = home.path().join("acme-challenge");
    fs::create_dir(&folder)?;
    fs::write(folder.join("conform-token"), "conform-token.thumbprint")?;
    Ok(home)
}
