//! How do the parts come together? Two ports of one process, with one certificate.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpSocket};
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
    redirect::Names,
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
    /// The folder that keeps the private CA and what it signed
    #[arg(long, env = "HTTPS_SERVER_HOME")]
    pub home: Option<PathBuf>,
    /// A certificate of your own and those that lead to its root, in PEM
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Mutual TLS: asks clients for a certificate of these authorities, in PEM
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
    /// Seconds for a handshake, and for the head of a request
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub patience: u64,
}

/// The service, with its port for HTTPS bound.
pub struct Service {
    listener: TcpListener,
    https: Listener,
    certificates: Arc<Certificates>,
    names: Names,
    /// What the port for plain HTTP serves.
    pub plain: Router,
}

impl Service {
    /// Binds the port, loads or makes the certificate, and refuses to start with one that no client would accept.
    pub fn start(options: Options, home: &Path, address: IpAddr) -> Result<Self, StartError> {
        let bound = listen((address, options.https_port).into());
        let what = || {
            format!(
                "cannot serve HTTPS on port {}; choose another with --https-port",
                options.https_port
            )
        };
        let listener = bound.map_err(|why| StartError::Io { what: what(), why })?;
        let https_port =
            listener.local_addr().map_err(|why| StartError::Io { what: what(), why })?.port();
        let parsed = options.names.iter().map(|name| {
            let parsed = ServerName::try_from(name.to_lowercase());
            parsed.map_err(|_| StartError::Name(name.clone()))
        });
        let names = Names { names: parsed.collect::<Result<_, _>>()?, https_port };
        let files = match (options.cert, options.key) {
            (Some(certificate), Some(key)) => Files { certificate, key },
            _ => sign(home, &options.names).map_err(|why| StartError::Io {
                what: format!("cannot keep a certificate in {}", home.display()),
                why,
            })?,
        };
        let certificates = Arc::new(Certificates::open(files, names.names[0].clone())?);
        let config =
            tls::config(Arc::clone(&certificates), options.oldest, options.client_ca.as_deref())?;
        let api = Arc::new(Api {
            names: names.clone(),
            sessions: Sessions::new().map_err(|_| rustls::Error::FailedToGetRandomBytes)?,
            certificates: Arc::clone(&certificates),
            hsts_seconds: options.hsts_seconds,
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
        Ok(Self { listener, https, certificates, names, plain })
    }

    /// The address of HTTPS.
    pub fn url(&self) -> String {
        self.names.url()
    }

    /// Serves HTTPS until `stop`, and then until what is in flight is done. Meanwhile renewed certificates are loaded.
    pub async fn serve_https(self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.https.serve(self.listener, stop) => {}
            () = self.certificates.watch() => {}
        }
    }
}

/// Listens with room for many that wait to be accepted. The default is 128, which is full at once when many come, and
/// then connections are lost without a word.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4_096)
}

/// Signs a certificate for the server, and one for a machine that wants to try mutual TLS.
fn sign(home: &Path, names: &[String]) -> io::Result<Files> {
    let (ca, now) = (Ca::open(home)?, OffsetDateTime::now_utc());
    let pair = |name: &str, names: &[String], purpose| {
        let [certificate, key] = ["pem", "key"].map(|kind| home.join(name).with_extension(kind));
        // An hour back, for clients whose clocks are slow.
        let issued = ca.issue(names, purpose, now - time::Duration::HOUR, now + LIFE);
        issued.map_err(io::Error::other)?.write(&certificate, &key)?;
        Ok(Files { certificate, key })
    };
    let machine: io::Result<Files> = pair("machine", &["machine-1".to_owned()], Purpose::Client);
    machine?;
    pair("server", names, Purpose::Server)
}
