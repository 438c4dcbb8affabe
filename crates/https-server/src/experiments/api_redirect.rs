//! Is a redirect good for an API?

use std::net::SocketAddr;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use tokio::net::TcpStream;

use super::{
    fixture::{Fixture, HOST, LOGIN},
    tap::{Tap, contains},
};
use crate::cases::client::{BOTH, connect, exchange, post};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Calls that the client makes, if nothing stops it
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub calls: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "api-redirect",
        "A client with a wrong URL follows the 308 and sends its secret again: it works for years, while the secret \
         crosses the wire in clear text. With the 403 the mistake is found at the first call",
        &["--calls", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/plain.rs",
        replace: "        Err(Error::InTheClear(plain.names.url()))",
        with: "        plain.names.to_https(&uri, &headers)",
        check: "with the 403: calls until somebody has to look at the URL",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let calls = params.calls;
    let redirected = of(&["--redirect-api"], &lab, calls).await?;
    lab.check_eq("with the redirect: calls that work", calls, redirected.worked);
    lab.check_eq(
        "with the redirect: times that a listener reads the password",
        calls,
        redirected.read,
    );
    let refused = of(&[], &lab, calls).await?;
    lab.check_eq("with the 403: calls that work", 0, refused.worked);
    lab.check_eq("with the 403: calls until somebody has to look at the URL", 1, refused.made);
    lab.check_eq("with the 403: times that a listener reads the password", 1, refused.read);
    lab.text(
        "Once is once too often, and no answer can change that: the password was sent before the server was asked. The \
         refusal makes it the last time.",
    );
    Ok(())
}

/// What came of a client's calls.
#[derive(Default)]
struct Calls {
    made: u32,
    worked: u32,
    read: u32,
}

/// A client in production whose configuration says http://. It stops at the first error, because then somebody is called.
async fn of(options: &[&str], lab: &Lab, calls: u32) -> anyhow::Result<Calls> {
    let fixture = Fixture::start(options).await?;
    let (tap, tls) = (Tap::on(fixture.plain).await?, fixture.shared_client(BOTH)?);
    let mut all = Calls::default();
    for n in 0..calls {
        lab.progress(n.into(), calls.into(), options.first().copied().unwrap_or("refused"));
        all.made += 1;
        let status = call(&fixture, tap.address, &tls).await?;
        if status != 204 {
            break;
        }
        all.worked += 1;
    }
    let connections = 0..all.made as usize;
    let heard = connections.filter(|at| contains(&tap.stream(*at, true), b"lovelace"));
    all.read = u32::try_from(heard.count())?;
    Ok(all)
}

/// What every library does with a 308: the same again, with the body, at the new address.
async fn call(
    fixture: &Fixture,
    plain: SocketAddr,
    tls: &std::sync::Arc<tokio_rustls::rustls::ClientConfig>,
) -> anyhow::Result<u16> {
    let request = post(HOST, "/login", &[], LOGIN);
    let first = exchange(&mut TcpStream::connect(plain).await?, &request).await?;
    if first.status != 308 {
        return Ok(first.status);
    }
    first.header("location").strip_prefix("https://").context("a redirect to HTTPS")?;
    let mut stream = connect(tls, fixture.https, HOST).await?;
    Ok(exchange(&mut stream, &request).await?.status)
}
