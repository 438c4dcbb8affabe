//! Does anybody notice when a certificate is renewed?

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, client::Resumption, pki_types::CertificateDer,
};

use super::fixture::{Fixture, HOST};
use crate::{
    ca::{Ca, Purpose},
    cases::client::{BOTH, connect, exchange, get, post, trusting},
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Renewals, one after another
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub renewals: u32,
    /// Clients that ask all the time, half of them over kept connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub clients: u32,
    /// Every how many renewals nobody asks for a reload, so that the watcher has to find the files
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub watched: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "rotation",
        "A certificate is renewed fifty times under load: no request fails, and new connections see the new serial",
        &["--renewals", "6", "--clients", "4", "--watched", "6"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/certificate.rs",
        replace: "        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;",
        with: "        drop(renewed);",
        check: "renewals after which a new connection sees the new certificate",
    })
}

/// The clients that ask all the time.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// Whoever renews the certificate.
struct Authority {
    ca: Ca,
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn renew(&self) -> anyhow::Result<CertificateDer<'static>> {
        let (now, day) = (OffsetDateTime::now_utc(), time::Duration::DAY);
        let names = [HOST.to_owned(), "127.0.0.1".to_owned()];
        let issued = self.ca.issue(&names, Purpose::Server, now - day, now + day)?;
        issued.write(&self.certificate, &self.key)?;
        Ok(issued.certificate)
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let [certificate, key] = ["own.pem", "own.key"].map(|name| folder.path().join(name));
    let authority = Authority { ca: Ca::open(folder.path())?, certificate, key };
    let first = authority.renew()?;
    let words = [&authority.certificate, &authority.key].map(|path| path.display().to_string());
    let fixture = Fixture::start(&["--cert", &words[0], "--key", &words[1]]).await?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.ca.certificate.clone())?;
    // Full handshakes: a resumed session shows no certificate.
    let mut client = trusting(roots, BOTH)?;
    client.resumption = Resumption::disabled();
    let client = Arc::new(client);
    let mut open = connect(&client, fixture.https, HOST).await?;
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for n in 0..params.clients {
        clients.spawn(ask(Arc::clone(&load), Arc::clone(&client), fixture.https, n % 2 == 0));
    }
    let (mut seen, mut by_watcher, mut continued, mut slowest) = (0, 0, 0, Duration::ZERO);
    for n in 1..=params.renewals {
        lab.progress(n.into(), params.renewals.into(), "renewals");
        let renewed = authority.renew()?;
        let begun = Instant::now();
        if n % params.watched == 0 {
            let found = until_seen(&client, fixture.https, &renewed).await?;
            by_watcher += u32::from(found);
            seen += u32::from(found);
        } else {
            let mut admin = connect(&client, fixture.https, HOST).await?;
            let status = exchange(&mut admin, &post(HOST, "/admin/certificates/reload", &[], ""))
                .await?
                .status;
            let shown = shown(&client, fixture.https).await?;
            seen += u32::from(status == 204 && shown == renewed);
        }
        slowest = slowest.max(begun.elapsed());
        // Each time, since a connection on which nobody asks is ended.
        let answer = exchange(&mut open, &get(HOST, "/pages/debts", &[])).await;
        continued += u32::from(answer.is_ok_and(|answer| answer.status == 200));
    }
    load.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let (asked, failed) = (load.asked.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    lab.figure("requests meanwhile", asked as f64, "requests");
    lab.figure("renewals that the watcher found by itself", by_watcher.into(), "renewals");
    lab.figure(
        "from the new files to the new certificate, at most",
        slowest.as_secs_f64() * 1_000.0,
        "ms",
    );
    lab.check_eq("requests that failed", 0, failed);
    lab.check("requests that were made", "more than 0", asked, asked > 0);
    lab.check_eq(
        "renewals after which a new connection sees the new certificate",
        params.renewals,
        seen,
    );
    let check = "renewals after which a connection from before all of them still answers";
    lab.check_eq(check, params.renewals, continued);
    let presented = open.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    lab.check_eq("and it began with the first certificate", true, presented == Some(&first));
    Ok(())
}

/// Asks until it is told to stop: over one connection, or over a new one each time.
async fn ask(load: Arc<Load>, client: Arc<ClientConfig>, server: SocketAddr, keeps: bool) {
    let mut kept = None;
    while !load.stop.load(Ordering::Relaxed) {
        let request = async {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect(&client, server, HOST).await?,
            };
            let status = exchange(&mut stream, &get(HOST, "/pages/debts", &[])).await?.status;
            std::io::Result::Ok((stream, status == 200))
        };
        load.asked.fetch_add(1, Ordering::Relaxed);
        match request.await {
            Ok((stream, true)) => kept = keeps.then_some(stream),
            _ => drop(load.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The certificate that a new connection is shown.
async fn shown(
    client: &Arc<ClientConfig>,
    server: SocketAddr,
) -> anyhow::Result<CertificateDer<'static>> {
    let stream = connect(client, server, HOST).await?;
    let chain = stream.get_ref().1.peer_certificates().context("a certificate")?;
    Ok(chain.first().context("a certificate")?.clone())
}

/// Whether new connections see it within some seconds.
async fn until_seen(
    client: &Arc<ClientConfig>,
    server: SocketAddr,
    renewed: &CertificateDer<'static>,
) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        if shown(client, server).await? == *renewed {
            return Ok(true);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(false)
}
