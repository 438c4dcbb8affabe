//! How is one connection served? Over plain TCP or TLS; [`edge::connection`] speaks HTTP over it.
//!
//! Invariant: no client can keep a connection open by saying nothing. Whatever has to come before the first request (a
//! TLS handshake, a preface, a head) has to come within one time limit.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
use edge::connection::{self, Error};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Connections {
    /// What answers.
    pub router: Router,
    /// With TLS, if this is set.
    pub tls: Option<TlsAcceptor>,
    /// A client that has not sent the head of its request by then is cut off.
    pub head_timeout: Duration,
    /// Owns the task of each connection.
    pub tasks: TaskTracker,
    /// When this is cancelled, a connection ends with the requests that are in flight.
    pub stopping: CancellationToken,
}

impl Connections {
    /// Serves a connection in a task of its own.
    pub fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let this = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = this.accept(stream, peer).await {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }

    async fn accept(self, stream: TcpStream, peer: SocketAddr) -> Result<(), Error> {
        // Answers are small and whole: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        match self.tls.clone() {
            None => self.answer(stream, peer).await,
            // In a box, so that the many plain connections do not take the memory of this one.
            Some(tls) => Box::pin(self.answer_over(tls, stream, peer)).await,
        }
    }

    async fn answer_over(
        self,
        tls: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(), Error> {
        let stream = tokio::select! {
            shaken = timeout(self.head_timeout, tls.accept(stream)) => shaken??,
            () = self.stopping.cancelled() => return Ok(()),
        };
        self.answer(stream, peer).await
    }

    async fn answer<S>(self, stream: S, peer: SocketAddr) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stop = self.stopping.cancelled_owned();
        connection::answer(stream, self.router, ConnectInfo(peer), self.head_timeout, stop).await
    }
}
