//! What does HTTPS cost?

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop},
};
use tokio::net::TcpStream;
use tokio_rustls::{
    client::TlsStream,
    rustls::{ClientConfig, HandshakeKind, RootCertStore, client::Resumption},
};

use super::fixture::{HOST, Parts};
use crate::cases::client::{BOTH, connect, exchange, trusting};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Seconds for each measurement, of which there are ten
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    pub seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "HTTPS over kept connections costs little more than HTTP. A new connection for each request costs much more, and \
         resumption wins some of that back",
        &["--clients", "4", "--seconds", "0.2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tls.rs",
        replace: "    config.ticketer = Ticketer::new()?;",
        with: "    config.session_storage = Arc::new(tokio_rustls::rustls::server::NoServerSessionStorage {});\n    \
               config.send_tls13_tickets = 0;",
        check: "new connections that should have resumed a session and did not",
    })
}

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    HttpKept,
    HttpsKept,
    HttpNew,
    HttpsNew,
    HttpsResumed,
}

impl Way {
    const ALL: [Self; 5] =
        [Self::HttpKept, Self::HttpsKept, Self::HttpNew, Self::HttpsNew, Self::HttpsResumed];

    fn name(self) -> &'static str {
        match self {
            Self::HttpKept => "HTTP, kept connections",
            Self::HttpsKept => "HTTPS, kept connections",
            Self::HttpNew => "HTTP, a new connection each",
            Self::HttpsNew => "HTTPS, a new connection each, full handshake",
            Self::HttpsResumed => "HTTPS, a new connection each, resumed",
        }
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // The same application in the same process, with the same layers, once over TCP and once over TLS.
    let parts = Parts::new()?;
    let here = lab::serve::here(parts.application.clone()).await?;
    let servers =
        Servers { http: here.host.parse()?, https: parts.with_tls().await?, roots: parts.roots };
    // There and back, so that what changes with time falls on all alike.
    let turns = Way::ALL.into_iter().chain(Way::ALL.into_iter().rev());
    let (mut rates, mut failed) = (Vec::new(), 0);
    for (n, way) in (0..).zip(turns) {
        lab.progress(n, 10, way.name());
        let outcome = measure(&servers, &params, way).await?;
        if let Some(error) = &outcome.first_error {
            lab.text(format!("{}: the first failure: {error}", way.name()));
        }
        // Of a resumed way, a full handshake is a failure, and has a check of its own.
        failed += if way == Way::HttpsResumed { 0 } else { outcome.failed };
        rates.push((way, outcome));
    }
    let rate = |way| {
        load::median(rates.iter().filter(|it| it.0 == way).map(|it| it.1.throughput()).collect())
    };
    let rows = Way::ALL.map(|way| vec![way.name().to_owned(), format!("{:.0}", rate(way))]);
    lab.table("Requests a second", &["way", "requests/s"], rows.to_vec());
    for way in Way::ALL {
        lab.figure(way.name(), rate(way), "requests/s");
    }
    let ratio = |one, other| rate(one) / rate(other);
    let kept = ratio(Way::HttpsKept, Way::HttpKept);
    lab.figure_with_target("HTTPS ÷ HTTP, kept connections", kept, "", Target::AtLeast(0.8));
    lab.figure("HTTPS ÷ HTTP, a new connection each", ratio(Way::HttpsNew, Way::HttpNew), "");
    lab.figure("a new connection each ÷ kept, HTTPS", ratio(Way::HttpsNew, Way::HttpsKept), "");
    lab.figure("resumed ÷ full handshake", ratio(Way::HttpsResumed, Way::HttpsNew), "");
    let full = 1_000.0 / rate(Way::HttpsNew) - 1_000.0 / rate(Way::HttpNew);
    lab.figure("what a full handshake adds, clients and server together", full, "ms");
    lab.check_eq("requests that failed", 0, failed);
    let resumed = rates.iter().filter(|it| it.0 == Way::HttpsResumed);
    let (good, bad) = resumed.fold((0, 0), |sum, it| (sum.0 + it.1.ok, sum.1 + it.1.failed));
    lab.check("new connections that resumed a session", "more than 0", good, good > 0);
    lab.check_eq("new connections that should have resumed a session and did not", 0, bad);
    Ok(())
}

/// Where the application is served.
struct Servers {
    http: SocketAddr,
    https: SocketAddr,
    roots: RootCertStore,
}

/// A client and its way.
struct Client {
    way: Way,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    plain: Option<TcpStream>,
    secure: Option<TlsStream<TcpStream>>,
}

async fn measure(servers: &Servers, params: &Params, way: Way) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..params.clients {
        let mut tls = trusting(servers.roots.clone(), BOTH)?;
        if way == Way::HttpsNew {
            tls.resumption = Resumption::disabled();
        }
        let is_http = matches!(way, Way::HttpKept | Way::HttpNew);
        let address = if is_http { servers.http } else { servers.https };
        let mut client = Client { way, address, tls: Arc::new(tls), plain: None, secure: None };
        // What is done once for each connection, or for the first session, is not measured.
        match way {
            Way::HttpKept => client.plain = Some(client.open().await?),
            Way::HttpsKept => client.secure = Some(client.shake_hands().await?),
            Way::HttpsResumed => {
                let mut first = client.shake_hands().await?;
                exchange(&mut first, REQUEST).await?;
            }
            Way::HttpNew | Way::HttpsNew => {}
        }
        clients.push(client);
    }
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients, stop, |client| Box::pin(client.ask())).await
}

const REQUEST: &str = "GET /pages/debts HTTP/1.1\r\nhost: localhost\r\n\r\n";

impl Client {
    async fn open(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        // Thousands of closed connections would use up the ports.
        stream.set_zero_linger()?;
        Ok(stream)
    }

    async fn shake_hands(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = connect(&self.tls, self.address, HOST).await?;
        stream.get_ref().0.set_zero_linger()?;
        Ok(stream)
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        let answer = match (self.way, &mut self.plain, &mut self.secure) {
            (Way::HttpKept, Some(stream), _) => exchange(stream, REQUEST).await?,
            (Way::HttpsKept, _, Some(stream)) => exchange(stream, REQUEST).await?,
            (Way::HttpNew, ..) => exchange(&mut self.open().await?, REQUEST).await?,
            _ => {
                let mut stream = self.shake_hands().await?;
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                let answer = exchange(&mut stream, REQUEST).await?;
                ensure!(resumed == (self.way == Way::HttpsResumed), "resumed: {resumed}");
                answer
            }
        };
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    }
}
