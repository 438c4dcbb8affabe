//! What does somebody do who types an address? They begin with http://, go where the server leads them, log in there,
//! and read.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::rustls::ClientConfig;

use super::fixture::{HOST, LOGIN};
use crate::cases::client::{Answer, connect, exchange, get, post};

/// What the visitor has got.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Whether the server has led to HTTPS.
    pub over_tls: bool,
    /// The session's cookie, as it is sent back.
    pub cookie: String,
    /// The answer of `/me`.
    pub me: Answer,
    /// The page that was read.
    pub page: Answer,
}

/// Which page is read.
pub const PAGE: &str = "/pages/divorce";

/// Visits the service whose two ports are here.
pub async fn visit(
    plain: SocketAddr,
    https: SocketAddr,
    client: &Arc<ClientConfig>,
) -> io::Result<Visit> {
    let mut stream = TcpStream::connect(plain).await?;
    let led = exchange(&mut stream, &get(HOST, "/", &[])).await?;
    if led.header("location").starts_with("https://") {
        drop(stream);
        let mut stream = connect(client, https, HOST).await?;
        browse(&mut stream, true).await
    } else {
        browse(&mut stream, false).await
    }
}

/// Logs in, looks at the account, and reads a page.
pub async fn browse<S>(stream: &mut S, over_tls: bool) -> io::Result<Visit>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let cookie = exchange(stream, &post(HOST, "/login", &[], LOGIN)).await?.cookie().to_owned();
    let me = exchange(stream, &get(HOST, "/me", &[("cookie", &cookie)])).await?;
    let page = exchange(stream, &get(HOST, PAGE, &[("cookie", &cookie)])).await?;
    Ok(Visit { over_tls, cookie, me, page })
}
