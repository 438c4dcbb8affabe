//! How is HTTP served over a connection that is already open, such as a TLS stream? In HTTP/1.1 or HTTP/2, as the
//! client chooses. Each request carries what the caller knows about the connection.
//!
//! Invariant: no client can keep a connection open by sending nothing, or by reading nothing of what we write.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tower::Service;

/// Why a connection ended early.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// In HTTP/2 a client can read from the connection and from no stream, and each stream then keeps its answer. So a
/// connection has few of them. RFC 9113 advises against fewer than this: clients send so many before they know our limit.
const STREAMS: u32 = 100;

/// How long we wait for a client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request.
    pub head: Duration,
    /// For a write, until the client has read enough for us to write on.
    pub write: Duration,
}

/// This time for a head, and half a minute for a write.
impl From<Duration> for Patience {
    fn from(head: Duration) -> Self {
        Self { head, write: Duration::from_secs(30) }
    }
}

/// Answers requests until the client closes the connection. After `stop` it finishes the requests in flight and ends.
/// The client has to ask and to read within `patience`. `known` is added to each request as an extension.
pub async fn answer<S, K>(
    stream: S,
    router: Router,
    known: K,
    patience: impl Into<Patience>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    K: Clone + Send + Sync + 'static,
{
    let Patience { head, write } = patience.into();
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let asked = Arc::clone(&asked);
        move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(known.clone());
            // A router is always ready.
            router.clone().call(request)
        }
    });
    // The tasks of HTTP/2 streams end with their connection, and our caller waits for the connection.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    // In HTTP/2 we ping a silent client, and close the connection if it does not answer.
    let http2 = &mut builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(head);
    http2.max_concurrent_streams(STREAMS);
    let stream = TokioIo::new(Patient::new(stream, write));
    let mut serving = pin!(builder.serve_connection_with_upgrades(stream, service));
    // hyper's time limits begin when it knows which version the client speaks. This one begins now.
    let silent = async {
        sleep(head).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = &mut serving => return ended,
        () = silent => return Err("the client did not send a request in time".into()),
        () = stop => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}

/// A stream that fails if the client does not read. Only a write that waits counts: a stream of events or a WebSocket
/// may be silent for as long as it likes.
///
/// A client that reads a little each time stays. In HTTP/1.1 it costs one answer, in HTTP/2 up to [`STREAMS`]. A proxy in
/// front takes that over.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits. In a box, so that the many connections that do not wait have no memory for it.
    writing: Wait,
    /// Runs while a flush waits. Not the same: a TCP stream says that it is flushed while a write waits.
    flushing: Wait,
}

type Wait = Option<Pin<Box<Sleep>>>;

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, writing: None, flushing: None }
    }

    /// A TLS stream takes bytes while a flush waits, so a write that goes through begins the flush's time again. It cannot
    /// take many without a client that reads.
    fn wrote(
        &mut self,
        said: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if said.is_ready() {
            self.flushing = None;
        }
        waited(said, &mut self.writing, self.patience, context)
    }
}

/// What the stream says; or an error, if it has said for too long that it cannot write.
fn waited<T>(
    said: Poll<io::Result<T>>,
    wait: &mut Wait,
    patience: Duration,
    context: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if said.is_ready() {
        *wait = None;
        return said;
    }
    let wait = wait.get_or_insert_with(|| Box::pin(sleep(patience)));
    ready!(wait.as_mut().poll(context));
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(said, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(said, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, patience, flushing, .. } = &mut *self;
        waited(Pin::new(stream).poll_flush(context), flushing, *patience, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, patience, flushing, .. } = &mut *self;
        waited(Pin::new(stream).poll_shutdown(context), flushing, *patience, context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::atomic::AtomicU32};

    use axum::{Extension, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    /// What the server sends in answer to these bytes until the connection ends.
    async fn said(bytes: &[u8]) -> String {
        let (mut client, server) = duplex(4_096);
        let router = Router::new()
            .route("/", get(async |Extension(known): Extension<&'static str>| known.to_owned()));
        let patience = Duration::from_millis(200);
        tokio::spawn(answer(server, router, "known", patience, pending()));
        client.write_all(bytes).await.unwrap();
        let mut received = Vec::new();
        let end = timeout(Duration::from_secs(5), client.read_to_end(&mut received)).await;
        end.expect("it stays open").unwrap();
        String::from_utf8_lossy(&received).into_owned()
    }

    #[tokio::test]
    async fn a_handler_gets_what_is_known_of_the_connection() {
        let answer = said(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("known"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_ask_in_time_is_cut_off() {
        for silent in
            ["", "G", "PRI * HT", "GET / HTTP/1.1\r\nho", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let answer = said(silent.as_bytes()).await;
            assert!(!answer.contains(" 200 "), "{silent:?}: {answer}");
        }
    }

    /// A client that has asked for a megabyte, and how the server ends.
    async fn asked_for_much() -> (DuplexStream, JoinHandle<Result<(), Error>>) {
        let (mut client, server) = duplex(4_096);
        let router = Router::new().route("/", get(async || "x".repeat(1_000_000)));
        let patience = Patience { head: Duration::from_mins(1), write: Duration::from_secs(1) };
        let serving = tokio::spawn(answer(server, router, (), patience, pending()));
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        (client, serving)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (_client, serving) = asked_for_much().await;
        let ended = timeout(Duration::from_secs(5), serving).await.expect("it stays open");
        assert!(ended.unwrap().is_err());
    }

    /// Like TLS over a socket that is full: it takes what is written, and is never empty.
    struct Full;

    impl AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_flush_that_waits_has_time_as_long_as_writes_go_through() {
        let mut stream = Patient::new(Full, Duration::from_secs(1));
        for _ in 0..2 {
            let flush = timeout(Duration::from_millis(600), stream.flush()).await;
            assert!(flush.is_err(), "{flush:?}");
            stream.write_all(b"a").await.unwrap();
        }
        let ended =
            timeout(Duration::from_secs(5), stream.flush()).await.expect("it waits for ever");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_or_asks_rarely_is_not_cut_off() {
        let (mut client, serving) = asked_for_much().await;
        let mut received = Vec::new();
        let is_whole = |received: &[u8]| {
            let head = received.windows(4).position(|end| end == b"\r\n\r\n");
            head.is_some_and(|end| received.len() == end + 4 + 1_000_000)
        };
        // Longer in all than the server waits for one write.
        for _ in 0..6 {
            sleep(Duration::from_millis(250)).await;
            assert_ne!(client.read_buf(&mut received).await.unwrap(), 0, "it ended");
        }
        while !is_whole(&received) {
            assert_ne!(client.read_buf(&mut received).await.unwrap(), 0, "it ended");
        }
        let more = timeout(Duration::from_millis(1_500), client.read_buf(&mut received)).await;
        assert!(more.is_err() && !serving.is_finished(), "a connection without a write was ended");
    }

    #[tokio::test]
    async fn a_client_of_http2_has_few_requests_in_flight() {
        let (mut client, server) = duplex(65_536);
        let begun = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&begun);
        let router = Router::new().route(
            "/",
            get(async move || {
                counter.fetch_add(1, Ordering::Relaxed);
                pending::<String>().await
            }),
        );
        let patience = Duration::from_mins(1);
        tokio::spawn(answer(server, router, (), patience, pending()));
        // The preface, our settings, and GET / with the scheme and the authority from HPACK's static table.
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for n in 0..2 * STREAMS {
            bytes.extend(b"\0\0\x06\x01\x05");
            bytes.extend((2 * n + 1).to_be_bytes());
            bytes.extend(b"\x82\x84\x86\x41\x01a");
        }
        client.write_all(&bytes).await.unwrap();
        // Whatever is too much is refused. The server has read it all when the last one is.
        let last = [&[3, 0][..], &(4 * STREAMS - 1).to_be_bytes()[..]].concat();
        let mut answers = Vec::new();
        let refused = async {
            while !answers.windows(last.len()).any(|window| window == last) {
                assert_ne!(client.read_buf(&mut answers).await.unwrap(), 0, "it ended");
            }
        };
        timeout(Duration::from_secs(5), refused).await.expect("the last one is not refused");
        assert!(begun.load(Ordering::Relaxed) <= STREAMS);
    }
}
