//! What happens to a bit that is flipped on the way?

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{Experiment, Lab, Sabotage};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::rustls::{ClientConfig, client::Resumption};

use super::{
    fixture::{Fixture, HOST, without_tls},
    tap::{Flip, Tap},
    visit::{Visit, browse, visit},
};
use crate::cases::client::{BOTH, connect};

/// A flip in a length makes one side wait for bytes that never come. Then nothing has arrived.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are tried at once.
const AT_ONCE: usize = 16;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Places, evenly spread over everything that both sides send
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    pub flips: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "tamper",
        "Flip one bit in any of 500 places of an HTTPS exchange: the change never reaches the other side's application as \
         data. Over HTTP a flip arrives, and one in a body goes unnoticed",
        &["--flips", "60"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/service.rs",
        replace: "        Ok(Self { https, certificates, names, plain })",
        with: "        // The same on both ports, so that nothing breaks.\n        let plain = api::router(api);\n        \
               Ok(Self { https, certificates, names, plain })",
        check: "changes that reached an application where the service leads its visitors",
    })
}

/// How an exchange is made.
#[derive(Clone)]
struct Way {
    server: SocketAddr,
    /// With TLS, if this is set.
    tls: Option<Arc<ClientConfig>>,
}

impl Way {
    /// One exchange: a login, the account, a page.
    async fn exchange(&self, address: SocketAddr) -> io::Result<Visit> {
        match &self.tls {
            Some(config) => browse(&mut connect(config, address, HOST).await?, true).await,
            None => browse(&mut TcpStream::connect(address).await?, false).await,
        }
    }

    /// The same with one bit flipped on the way. An error is how somebody noticed it.
    async fn flipped(&self, flip: Flip) -> anyhow::Result<io::Result<Visit>> {
        let tap = Tap::changing(self.server, Some(flip)).await?;
        let exchange = timeout(PATIENCE, self.exchange(tap.address)).await;
        Ok(exchange.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
    }
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The exchange failed.
    Ended,
    /// One side waited for bytes that did not come.
    Waited,
    /// All is as if nothing had been flipped.
    NoEffect,
    /// The exchange went on with something else, which the other side has seen and refused.
    Refused,
    /// The exchange went on, and what was read is something else.
    Unnoticed,
}

impl Outcome {
    fn of(clean: &Visit, seen: &io::Result<Visit>) -> Self {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Self::Waited,
            Err(_) => return Self::Ended,
        };
        let statuses = |visit: &Visit| (visit.me.status, visit.page.status);
        if statuses(seen) != statuses(clean) {
            Self::Refused
        } else if (&seen.me.body, &seen.page.body) == (&clean.me.body, &clean.page.body) {
            Self::NoEffect
        } else {
            Self::Unnoticed
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Ended => "the connection ended",
            Self::Waited => "one side waited for more, for two seconds",
            Self::NoEffect => "no effect",
            Self::Refused => "reached the server, which refused what it read",
            Self::Unnoticed => "reached the client, which took it for the answer",
        }
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (fixture, without) = (Fixture::start(&[]).await?, without_tls().await?);
    let mut client = fixture.client(BOTH)?;
    // All exchanges alike, so that they can be compared.
    client.resumption = Resumption::disabled();
    let client = Arc::new(client);
    let led = visit(fixture.plain, fixture.https, &client).await?;
    let theirs = Way { server: without.host.parse()?, tls: None };
    let ours = if led.over_tls {
        Way { server: fixture.https, tls: Some(client) }
    } else {
        Way { server: fixture.plain, tls: None }
    };
    let (https, _) =
        flips(&lab, &ours, params.flips, "where the service leads its visitors").await?;
    let (http, in_body) = flips(&lab, &theirs, params.flips, "plain HTTP").await?;
    let all =
        [Outcome::Ended, Outcome::Waited, Outcome::NoEffect, Outcome::Refused, Outcome::Unnoticed];
    let count = |seen: &BTreeMap<Outcome, u32>, outcome| seen.get(&outcome).copied().unwrap_or(0);
    let rows = all.map(|outcome| {
        let words = outcome.words().to_owned();
        vec![words, count(&https, outcome).to_string(), count(&http, outcome).to_string()]
    });
    let title = format!("What became of {} flipped bits", params.flips);
    lab.table(title, &["", "over HTTPS", "over HTTP"], rows.to_vec());
    let reached = count(&https, Outcome::Refused) + count(&https, Outcome::Unnoticed);
    lab.check_eq(
        "changes that reached an application where the service leads its visitors",
        0,
        reached,
    );
    // A flip in a length makes one side wait, and the version in the head of a record is read by nobody.
    let (ended, least) = (count(&https, Outcome::Ended), (params.flips * 9).div_ceil(10));
    let check = "over HTTPS, flips that ended the exchange";
    lab.check(check, format!("at least {least}"), ended, ended >= least);
    let (unnoticed, of) = in_body;
    let check = "over HTTP, flips in the page that the reader takes for the page";
    lab.check(check, format!("all {of}"), unnoticed, of > 0 && unnoticed == of);
    Ok(())
}

/// Flips bits in so many places, and counts the outcomes. Also how many of those in the page went unnoticed.
async fn flips(
    lab: &Lab,
    way: &Way,
    places: u32,
    name: &str,
) -> anyhow::Result<(BTreeMap<Outcome, u32>, (u32, u32))> {
    let tap = Tap::on(way.server).await?;
    let clean = way.exchange(tap.address).await?;
    let (there, back) = (tap.stream(0, true).len(), tap.stream(0, false).len());
    // Where the page is, when it can be seen.
    let page = back - clean.page.body.len()..back;
    let progress = std::sync::atomic::AtomicU32::new(0);
    let outcomes = stream::iter(0..places).map(|n| {
        let place = (there + back) * n as usize / places as usize;
        let (to_server, byte) = if place < there { (true, place) } else { (false, place - there) };
        let flip = Flip { to_server, byte, bit: 1 << (n % 8) };
        let (clean, page, progress) = (&clean, &page, &progress);
        async move {
            let seen = way.flipped(flip).await?;
            let done = progress.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            lab.progress(done.into(), places.into(), name);
            anyhow::Ok((Outcome::of(clean, &seen), !to_server && page.contains(&byte)))
        }
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut counts = BTreeMap::new();
    let mut in_page = (0, 0);
    for (outcome, is_in_page) in outcomes {
        *counts.entry(outcome).or_default() += 1;
        if is_in_page {
            in_page.1 += 1;
            in_page.0 += u32::from(outcome == Outcome::Unnoticed);
        }
    }
    Ok((counts, in_page))
}
