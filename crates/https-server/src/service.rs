//! How do the parts come together? Two ports of one process, with one certificate.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, pki_types::ServerName},
};

use crate::{
    api::{self, Api},
    ca::{Ca, Purpose},
    certificate::{Certificates, Files},
    error::StartError,
    listener::Listener,
    plain::{self, Plain},
    redirect::{Names, hsts},
    session::Sessions,
    tls::{self, Oldest},
};

/// How long a certificate that we sign is good. It is signed anew at each start.
const LIFE: time::Duration = time::Duration::days(90);

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where HTTPS is served; 0: any free port
    #[arg(long, default_value_t = 3_443)]
    pub https_port: u16,
    /// The names and addresses of this service; redirects under no other name
    #[arg(long = "name", value_delimiter = ',', default_value = "localhost,127.0.0.1,::1")]
    pub names: Vec<String>,
    /// The folder that keeps the private CA and what it signed; an ACME client puts its response into the file
    /// acme-challenge/TOKEN there
    #[arg(long, env = "HTTPS_SERVER_HOME")]
    pub home: Option<PathBuf>,
    /// A certificate of your own and those that lead to its root, in PEM. It must not be an authority itself: `openssl req
    /// -x509` needs `-addext basicConstraints=critical,CA:FALSE`
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Mutual TLS: asks clients for a certificate of these authorities, in PEM; a machine's name is the DNS name in
    /// its certificate
    #[arg(long)]
    pub client_ca: Option<PathBuf>,
    /// The oldest version of TLS
    #[arg(long = "tls", value_enum, default_value_t)]
    pub oldest: Oldest,
    /// How long a browser shall stay with HTTPS. Short, because it holds for every port of localhost; with a name of your
    /// own, two years are usual: 63072000
    #[arg(long, default_value_t = 300)]
    pub hsts_seconds: u32,
    /// Redirects calls of an API too, as textbooks do
    #[arg(long)]
    pub redirect_api: bool,
    /// Makes pages as long as a multiple of so many bytes, so that their length says less
    #[arg(long, default_value_t = 0)]
    pub pad_to: usize,
    /// Seconds for a handshake, for the head of a request, and for a connection that says nothing
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub patience: u64,
}

/// The service.
pub struct Service {
    https: Listener,
    certificates: Arc<Certificates>,
    /// Ours.
    pub names: Names,
    /// What the port for plain HTTP serves.
    pub plain: Router,
}

impl Service {
    /// Loads or makes the certificate, and refuses to start with one that a client would refuse.
    pub fn start(options: Options, home: &Path, https_port: u16) -> Result<Self, StartError> {
        let names = Names { names: options.names, https_port };
        let files = match (options.cert, options.key) {
            (Some(certificate), Some(key)) => Files { certificate, key },
            _ => sign(home, &names.names)?,
        };
        let name = names.names.first().cloned().unwrap_or_default();
        let name = ServerName::try_from(name)
            .map_err(|_| rustls::Error::General("a name of this server is none".to_owned()))?;
        let certificates = Arc::new(Certificates::open(files, name)?);
        let config =
            tls::config(Arc::clone(&certificates), options.oldest, options.client_ca.as_deref())?;
        let api = Arc::new(Api {
            names: names.clone(),
            sessions: Sessions::new().map_err(|_| rustls::Error::FailedToGetRandomBytes)?,
            certificates: Arc::clone(&certificates),
            hsts: hsts(options.hsts_seconds),
            pad_to: options.pad_to,
        });
        let https = Listener::new(
            TlsAcceptor::from(Arc::new(config)),
            api::router(Arc::clone(&api)),
            Duration::from_secs(options.patience),
        );
        let plain = plain::router(Plain {
            names: names.clone(),
            challenges: home.join("acme-challenge"),
            redirect_api: options.redirect_api,
        });
        Ok(Self { https, certificates, names, plain })
    }

    /// Serves HTTPS until `stop`, and then until what is in flight is done. Meanwhile renewed certificates are loaded.
    pub async fn serve_https(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.https.serve(listener, stop) => {}
            () = self.certificates.watch() => {}
        }
    }
}

/// Signs a certificate for the server, and one for a machine that wants to try mutual TLS.
fn sign(home: &Path, names: &[String]) -> io::Result<Files> {
    let (ca, now) = (Ca::open(home)?, OffsetDateTime::now_utc());
    let pair = |name: &str, names: &[String], purpose| -> io::Result<Files> {
        let [certificate, key] = ["pem", "key"].map(|kind| home.join(name).with_extension(kind));
        // An hour back, for clients whose clocks are slow.
        let issued = ca.issue(names, purpose, now - time::Duration::HOUR, now + LIFE);
        issued.map_err(io::Error::other)?.write(&certificate, &key)?;
        Ok(Files { certificate, key })
    };
    pair("machine", &["machine-1".to_owned()], Purpose::Client)?;
    pair("server", names, Purpose::Server)
}
