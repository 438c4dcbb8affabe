//! How does an answer lose its server? A TCP proxy between them delays or holds back bytes, cuts connections, or stops
//! at a chosen message.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};
use url::Url;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// Every byte arrives this much later, in each direction.
    Delay(Duration),
    /// Open connections are reset, and new ones too: as if the server process had died and its machine lived on.
    Cut,
    /// Connections stay open, new ones are accepted, and nothing passes: as if a cable were pulled. The bytes arrive
    /// when the network is healed, since TCP sends them again.
    BlackHole,
}

/// A proxy in front of one server. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    messages: AtomicU64,
    /// The client's message that is to be held.
    trap: std::sync::Mutex<Option<Trap>>,
}

#[derive(Debug)]
struct Trap {
    which: Which,
    side: Side,
    caught: oneshot::Sender<Held>,
}

/// Which of the clients' messages.
#[derive(Debug)]
enum Which {
    /// Counted from the proxy's start.
    Number(u64),
    /// The next one that contains this text.
    With(&'static str),
}

/// On which side of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server has not seen it.
    Before,
    /// The server has seen it.
    After,
}

/// A message that the proxy holds until this value is dropped: time to kill the client or the server.
#[derive(Debug)]
pub struct Held {
    release: mpsc::Sender<()>,
}

impl Held {
    /// Waits until the connection of the held message is closed, which happens soon after [`Fault::Cut`]. Then the
    /// message never arrives, even if the network is healed at once.
    pub async fn gone(&self) {
        self.release.closed().await;
    }
}

impl Proxy {
    /// Listens on a free port in front of `host:port`.
    pub async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::None);
        let state = Arc::new(State::default());
        let accepting = tokio::spawn(accept(listener, server.to_owned(), faults, state.clone()));
        Ok(Self { address, fault, state, accepting: accepting.abort_handle() })
    }

    /// Listens in front of the server of this URL.
    pub async fn to_url(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url)?;
        let port = url.port().or(match url.scheme() {
            "postgres" | "postgresql" => Some(5432),
            "redis" => Some(6379),
            "amqp" => Some(5672),
            _ => None,
        });
        let (host, port) = (url.host_str().context("no host")?, port.context("no port")?);
        Self::to(&format!("{host}:{port}")).await
    }

    /// The server's URL, with the proxy's address in it.
    pub fn url(&self, url: &str) -> anyhow::Result<String> {
        let mut url = Url::parse(url)?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(self.address.port())).ok().context("this URL can have no port")?;
        Ok(url.into())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the state of the network, at once and for every connection.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Makes the network work again.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Bytes that were forwarded to the server, and to its clients.
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.to_server.load(Ordering::Relaxed), self.state.to_client.load(Ordering::Relaxed))
    }

    /// How many messages clients have sent. A message is what one read brings: on loopback, with a client
    /// that sends each request at once and waits for its answer, that is one request.
    pub fn messages(&self) -> u64 {
        self.state.messages.load(Ordering::Relaxed)
    }

    /// Waits for message number `message` (the first is 1, counted from the proxy's start) and stops its connection
    /// before or after it until [`Held`] is dropped. So every message can be a crash point.
    pub fn at_message(
        &self,
        message: u64,
        side: Side,
    ) -> impl Future<Output = anyhow::Result<Held>> + use<> {
        self.at(Which::Number(message), side)
    }

    /// The same for the next message that contains this text, such as a statement in SQL.
    pub fn at_message_with(
        &self,
        text: &'static str,
        side: Side,
    ) -> impl Future<Output = anyhow::Result<Held>> + use<> {
        self.at(Which::With(text), side)
    }

    fn at(&self, which: Which, side: Side) -> impl Future<Output = anyhow::Result<Held>> + use<> {
        let (caught, catch) = oneshot::channel();
        *self.state.trap() = Some(Trap { which, side, caught });
        async { catch.await.context("the proxy ended before that message came") }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn trap(&self) -> std::sync::MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits if a trap is set for this message on this side.
    async fn pass(&self, number: u64, message: &[u8], side: Side) {
        let trap = self.trap().take_if(|trap| trap.side == side && trap.which.is(number, message));
        if let Some(trap) = trap {
            let (release, mut released) = mpsc::channel(1);
            let _ = trap.caught.send(Held { release });
            // Ends when `Held` is dropped, even if nobody received it.
            released.recv().await;
        }
    }
}

impl Which {
    fn is(&self, number: u64, message: &[u8]) -> bool {
        match self {
            Self::Number(wanted) => number == *wanted,
            Self::With(text) => message.windows(text.len()).any(|bytes| bytes == text.as_bytes()),
        }
    }
}

/// The next one that connects. If that fails it is usually because no more files may be open, and others first have to
/// close some.
pub(crate) async fn next_client(listener: &TcpListener) -> TcpStream {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(
    listener: TcpListener,
    server: String,
    fault: watch::Receiver<Fault>,
    state: Arc<State>,
) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let client = next_client(&listener).await;
        state.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(connection(client, server.clone(), fault.clone(), state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards in both directions, until both sides have ended or the connection is cut.
async fn connection(
    client: TcpStream,
    server: String,
    fault: watch::Receiver<Fault>,
    state: Arc<State>,
) {
    // When it is dropped, it sends a reset instead of closing normally.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let forward = async {
        working(fault.clone()).await;
        let server = TcpStream::connect(server).await?;
        let _ = server.set_zero_linger();
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let there = pump(from_client, to_server, fault.clone(), &state, true);
        let back = pump(from_server, to_client, fault.clone(), &state, false);
        tokio::try_join!(there, back).map(|_| ())
    };
    tokio::select! {
        _ = forward => {}
        () = cut(fault.clone()) => {}
    }
}

/// Returns when connections are cut.
async fn cut(mut fault: watch::Receiver<Fault>) {
    // An error means that the proxy is gone, which cuts too.
    let _ = fault.wait_for(|fault| *fault == Fault::Cut).await;
}

/// Waits until bytes may pass.
async fn working(mut fault: watch::Receiver<Fault>) {
    let _ = fault.wait_for(|fault| *fault != Fault::BlackHole).await;
}

/// One direction. It goes on reading while earlier bytes wait for their time, so that a delay does not reduce the
/// throughput.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: watch::Receiver<Fault>,
    state: &State,
    to_server: bool,
) -> std::io::Result<()> {
    // When the channel is full we stop reading, and TCP slows the sender down.
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let read = {
        let fault = fault.clone();
        async move {
            let mut buffer = vec![0; 64 * 1_024];
            loop {
                let length = from.read(&mut buffer).await?;
                if length == 0 {
                    return std::io::Result::Ok(());
                }
                let delay = match *fault.borrow() {
                    Fault::Delay(delay) => delay,
                    _ => Duration::ZERO,
                };
                let due = Instant::now() + delay;
                if send.send((due, buffer[..length].to_vec())).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = receive.recv().await {
            // A timer rounds up to the next millisecond, also for what is due already.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            working(fault.clone()).await;
            let number = to_server.then(|| state.messages.fetch_add(1, Ordering::Relaxed) + 1);
            if let Some(number) = number {
                state.pass(number, &bytes, Side::Before).await;
            }
            // Bytes that were held before a cut never arrive, even if this task notices the release before the cut.
            if *fault.borrow() == Fault::Cut {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            to.write_all(&bytes).await?;
            let count = if to_server { &state.to_server } else { &state.to_client };
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if let Some(number) = number {
                state.pass(number, &bytes, Side::After).await;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NOT_YET: Duration = Duration::from_millis(200);

    /// A server that sends back what it gets, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        Proxy::to(&address.to_string()).await.unwrap()
    }

    #[tokio::test]
    async fn without_a_fault_nothing_waits_for_a_timer() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut quickest = SOON;
        for _ in 0..100 {
            let begun = Instant::now();
            ask(&mut stream).await.unwrap();
            quickest = quickest.min(begun.elapsed());
        }
        assert!(quickest < Duration::from_micros(800), "{quickest:?}");
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<[u8; 4]> {
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn what_works_passes_and_is_counted() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(&ask(&mut stream).await.unwrap(), b"ping");
        }
        assert_eq!((proxy.connections(), proxy.messages(), proxy.bytes().0), (1, 3, 12));
    }

    #[tokio::test]
    async fn a_delay_is_felt_in_each_direction() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Fault::Delay(Duration::from_millis(100)));
        let begun = Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        proxy.heal();
        let begun = Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_what_is_new() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        proxy.set(Fault::Cut);
        let mut byte = [0];
        let end = timeout(SOON, stream.read(&mut byte)).await.expect("it hangs");
        assert!(!matches!(end, Ok(1)), "{end:?}");
        let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(SOON, ask(&mut fresh)).await.expect("it hangs").is_err());
        proxy.heal();
        let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&ask(&mut fresh).await.unwrap(), b"ping");
    }

    #[tokio::test]
    async fn a_black_hole_swallows_everything_and_gives_it_back_when_it_heals() {
        let proxy = echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut old).await.unwrap();
        proxy.set(Fault::BlackHole);
        let mut new = TcpStream::connect(proxy.address()).await.expect("it accepts");
        assert!(timeout(NOT_YET, ask(&mut old)).await.is_err(), "it should hang");
        assert!(timeout(NOT_YET, ask(&mut new)).await.is_err(), "it should hang");
        proxy.heal();
        let mut answer = [0; 4];
        for stream in [&mut old, &mut new] {
            timeout(SOON, stream.read_exact(&mut answer)).await.expect("it still hangs").unwrap();
            assert_eq!(&answer, b"ping");
        }
    }

    #[tokio::test]
    async fn a_message_is_held_before_or_after_the_server_sees_it() {
        for (side, seen_by_server) in [(Side::Before, 4), (Side::After, 8)] {
            let proxy = echo().await;
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            let second = proxy.at_message(2, side);
            ask(&mut stream).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            let held = timeout(SOON, second).await.expect("it was not caught").unwrap();
            assert_eq!(proxy.bytes().0, seen_by_server, "{side:?}");
            drop(held);
            let mut answer = [0; 4];
            timeout(SOON, stream.read_exact(&mut answer)).await.expect("it hangs").unwrap();
            assert_eq!(&answer, b"pong");
        }
    }

    #[tokio::test]
    async fn the_next_message_with_a_text_is_held() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let held = proxy.at_message_with("on", Side::Before);
        ask(&mut stream).await.unwrap();
        assert_eq!(proxy.bytes().0, 4, "it holds what does not contain the text");
        stream.write_all(b"pong").await.unwrap();
        drop(timeout(SOON, held).await.expect("it was not caught").unwrap());
        let mut answer = [0; 4];
        timeout(SOON, stream.read_exact(&mut answer)).await.expect("it hangs").unwrap();
        assert_eq!(&answer, b"pong");
    }

    #[tokio::test]
    async fn a_message_that_is_held_and_then_cut_off_never_arrives() {
        for _ in 0..100 {
            let proxy = echo().await;
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            let first = proxy.at_message(1, Side::Before);
            stream.write_all(b"ping").await.unwrap();
            let held = timeout(SOON, first).await.expect("it was not caught").unwrap();
            proxy.set(Fault::Cut);
            drop(held);
            let mut byte = [0];
            let end = timeout(SOON, stream.read(&mut byte)).await.expect("it hangs");
            assert!(!matches!(end, Ok(1)), "{end:?}");
            assert_eq!(proxy.bytes(), (0, 0), "it has arrived");
        }
    }

    #[tokio::test]
    async fn what_is_held_is_gone_before_the_network_is_healed() {
        for _ in 0..100 {
            let proxy = echo().await;
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            let first = proxy.at_message(1, Side::Before);
            stream.write_all(b"ping").await.unwrap();
            let held = timeout(SOON, first).await.expect("it was not caught").unwrap();
            proxy.set(Fault::Cut);
            timeout(SOON, held.gone()).await.expect("it is not cut off");
            proxy.heal();
            drop(held);
            assert_eq!(proxy.bytes(), (0, 0), "it has arrived");
        }
    }

    #[tokio::test]
    async fn a_dropped_proxy_cuts_everything() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        let address = proxy.address();
        drop(proxy);
        let end = timeout(SOON, ask(&mut stream)).await.expect("it hangs");
        assert!(end.is_err());
        assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    }

    #[tokio::test]
    async fn a_url_is_rewritten_to_the_proxy() {
        let proxy = echo().await;
        let url = proxy.url("postgres://user:secret@db.example/links?a=b").unwrap();
        let port = proxy.address().port();
        assert_eq!(url, format!("postgres://user:secret@127.0.0.1:{port}/links?a=b"));
    }
}
