//! What does HTTP/2 change, and whom does a lost connection hurt?

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::{join_all, try_join_all};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};

use super::{
    fixture::{Fixture, HOST},
    tap::Tap,
};
use crate::cases::client::{BOTH, connect, exchange, get};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Small requests
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(12..=200))]
    pub requests: u32,
    /// Connections of HTTP/1.1; browsers open six
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=20))]
    pub connections: u32,
    /// The delay in each direction, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub delay_ms: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "multiplexing",
        "A hundred small requests over a long line: HTTP/2 with one connection needs a few round trips, and HTTP/1.1 with six \
         connections seventeen. A lost connection hurts HTTP/2 more: all requests in flight were on it",
        &["--delay-ms", "10"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tls.rs",
        replace: r#"vec![b"h2".to_vec(), b"http/1.1".to_vec()]"#,
        with: r#"vec![b"http/1.1".to_vec()]"#,
        check: "a client that can speak both speaks HTTP/2",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::start(&[]).await?;
    let (one, two) = (client(&fixture, &["http/1.1"])?, client(&fixture, &["h2", "http/1.1"])?);
    let chosen = connect(&two, fixture.https, HOST).await?;
    let is_h2 = chosen.get_ref().1.alpn_protocol() == Some(b"h2");
    lab.check_eq("a client that can speak both speaks HTTP/2", true, is_h2);
    if !is_h2 {
        return Ok(());
    }
    let delay = Duration::from_millis(params.delay_ms.into());
    let round_trip = 2.0 * delay.as_secs_f64();
    let line = async || {
        let far = Proxy::to(&fixture.https.to_string()).await?;
        far.set(Fault::Delay(delay));
        anyhow::Ok((Tap::on(far.address()).await?, far))
    };
    let (tap, _far) = line().await?;
    let streams = http1(&one, tap.address, params.connections).await?;
    let (begun, before) = (Instant::now(), rounds(&tap));
    let all = in_turns(streams, params.requests).await;
    let (time_one, rounds_one) = (begun.elapsed(), rounds(&tap) - before);
    let (tap, _far) = line().await?;
    let h2 = Http2::open(&two, tap.address).await?;
    let (begun, before) = (Instant::now(), rounds(&tap));
    let failed = h2.ask(params.requests).await;
    let (time_two, rounds_two) = (begun.elapsed(), rounds(&tap) - before);
    lab.check_eq("requests that failed while nothing was lost", 0, all + failed);
    let (many, few) = (params.requests.div_ceil(params.connections), 5);
    lab.check(
        "HTTP/1.1: most requests one after another on one connection",
        format!("at least {many}"),
        rounds_one,
        rounds_one >= many as usize,
    );
    lab.check(
        "HTTP/2: times that the client waited for the server and then asked on",
        format!("at most {few}"),
        rounds_two,
        rounds_two <= few,
    );
    let name = format!("HTTP/1.1, {} connections", params.connections);
    lab.figure(format!("{name}: time"), time_one.as_secs_f64() / round_trip, "round trips");
    lab.figure("HTTP/2, one connection: time", time_two.as_secs_f64() / round_trip, "round trips");
    let (lost_one, lost_two) =
        (lose_one(&params, &fixture, &one).await?, lose_two(&params, &fixture, &two).await?);
    lab.check_eq("HTTP/1.1: requests that fail when one connection is lost", 1, lost_one);
    lab.check_eq(
        "HTTP/2: requests that fail when its connection is lost",
        params.requests,
        lost_two,
    );
    lab.text(
        "A lost packet is the small version of this: TCP holds back everything behind it, for all streams of HTTP/2 at \
         once, and for one of the six connections of HTTP/1.1. HTTP/3 (QUIC) delivers each stream by itself.",
    );
    Ok(())
}

fn client(fixture: &Fixture, protocols: &[&str]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut config = fixture.client(BOTH)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The longest chain of "the client speaks, the server answers, the client speaks on" on one connection.
fn rounds(tap: &Tap) -> usize {
    let seen = tap.seen();
    let connections = seen.iter().map(|piece| piece.connection + 1).max().unwrap_or(0);
    let on = |at| {
        let pieces: Vec<_> = seen.iter().filter(|piece| piece.connection == at).collect();
        pieces.windows(2).filter(|pair| pair[0].to_server && !pair[1].to_server).count()
    };
    (0..connections).map(on).max().unwrap_or(0)
}

type Stream = TlsStream<TcpStream>;

async fn http1(
    client: &Arc<ClientConfig>,
    address: SocketAddr,
    connections: u32,
) -> anyhow::Result<Vec<Stream>> {
    Ok(try_join_all((0..connections).map(|_| connect(client, address, HOST))).await?)
}

/// As a browser does with HTTP/1.1: each free connection takes the next request. Returns how many failed. A connection that
/// fails takes no more.
async fn in_turns(streams: Vec<Stream>, requests: u32) -> u32 {
    let (next, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = streams.into_iter().map(async |mut stream| {
        while next.fetch_add(1, Ordering::Relaxed) < requests {
            let answer = exchange(&mut stream, &get(HOST, "/healthz", &[])).await;
            if !answer.is_ok_and(|answer| answer.status == 200) {
                failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    });
    join_all(work).await;
    failed.into_inner()
}

/// One connection of HTTP/2.
struct Http2 {
    sender: http2::SendRequest<Empty<Bytes>>,
    connection: JoinHandle<()>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Http2 {
    async fn open(client: &Arc<ClientConfig>, address: SocketAddr) -> anyhow::Result<Self> {
        let stream = connect(client, address, HOST).await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "HTTP/2 was not chosen");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            // How it ends, its requests say too.
            let _ = connection.await;
        });
        sender.ready().await?;
        Ok(Self { sender, connection })
    }

    /// Sends so many requests at once. Returns how many failed.
    async fn ask(&self, requests: u32) -> u32 {
        let one = async || {
            let mut sender = self.sender.clone();
            sender.ready().await?;
            let request = Request::get(format!("https://{HOST}/healthz")).body(Empty::new())?;
            let response = sender.send_request(request).await?;
            ensure!(response.status() == 200, "{}", response.status());
            response.collect().await.context("a body").map(drop)
        };
        let all = join_all((0..requests).map(|_| one())).await;
        u32::try_from(all.iter().filter(|outcome| outcome.is_err()).count()).unwrap_or(u32::MAX)
    }
}

/// Six connections; one of them is cut while a request is under way on each. The others do the rest.
async fn lose_one(
    params: &Params,
    fixture: &Fixture,
    client: &Arc<ClientConfig>,
) -> anyhow::Result<u32> {
    let bad = Proxy::to(&fixture.https.to_string()).await?;
    let mut streams = http1(client, fixture.https, params.connections - 1).await?;
    streams.push(connect(client, bad.address(), HOST).await?);
    // What is sent now is under way until the line is cut.
    bad.set(Fault::BlackHole);
    let work = in_turns(streams, params.requests);
    let (failed, ()) = tokio::join!(work, cut_soon(&bad));
    Ok(failed)
}

/// The same with the one connection of HTTP/2.
async fn lose_two(
    params: &Params,
    fixture: &Fixture,
    client: &Arc<ClientConfig>,
) -> anyhow::Result<u32> {
    let bad = Proxy::to(&fixture.https.to_string()).await?;
    let h2 = Http2::open(client, bad.address()).await?;
    bad.set(Fault::BlackHole);
    let (failed, ()) = tokio::join!(h2.ask(params.requests), cut_soon(&bad));
    Ok(failed)
}

async fn cut_soon(line: &Proxy) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    line.set(Fault::Cut);
}
