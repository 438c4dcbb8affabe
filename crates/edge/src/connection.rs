//! How is HTTP served over a connection that is already open, such as a TLS stream? In HTTP/1.1 or HTTP/2, as the
//! client chooses. Each request carries what the caller knows about the connection.
//!
//! Invariant: no client can keep a connection open by sending nothing.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};
use tower::Service;

/// Why a connection ended early.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Answers requests until the client closes the connection. After `stop` it finishes the requests in flight and ends.
/// The head of a request has to arrive within `patience`. `known` is added to each request as an extension.
pub async fn answer<S, K>(
    stream: S,
    router: Router,
    known: K,
    patience: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    K: Clone + Send + Sync + 'static,
{
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
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
    // In HTTP/2 we ping a silent client, and close the connection if it does not answer.
    let http2 = &mut builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // hyper's time limits begin when it knows which version the client speaks. This one begins now.
    let silent = async {
        sleep(patience).await;
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

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::timeout,
    };

    use super::*;

    /// What the server sends in answer to these bytes until the connection ends.
    async fn said(bytes: &[u8]) -> String {
        let (mut client, server) = duplex(4_096);
        let router = Router::new()
            .route("/", get(async |Extension(known): Extension<&'static str>| known.to_owned()));
        let patience = Duration::from_millis(200);
        tokio::spawn(answer(server, router, "known", patience, std::future::pending()));
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
}
