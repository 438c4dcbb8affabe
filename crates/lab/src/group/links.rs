//! How is one link between two nodes cut, without root and in one direction only? Each node is told to reach the others
//! through an HTTP proxy of its own. The proxy's port shows who sends, and the host of the request shows who receives.
//!
//! A cut link holds its bytes, as if they were lost and sent again: they arrive when it heals. No connection is reset,
//! so a node that waits for an answer has to notice the cut by itself.

use std::{collections::HashSet, io, net::SocketAddr, sync::Arc};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use crate::fault::next_client;

/// The sender and the receiver.
type Link = (usize, usize);

/// A node as the others know it.
#[derive(Clone, Debug)]
pub struct Node {
    /// The host in its URL. Only the proxies can resolve it.
    pub host: String,
    /// Where it really listens.
    pub address: SocketAddr,
}

/// The links between the nodes of a group.
#[derive(Debug)]
pub struct Links {
    cut: watch::Sender<HashSet<Link>>,
    proxies: Vec<SocketAddr>,
    /// The tasks that accept connections. Dropping them ends every connection.
    _accepting: JoinSet<()>,
}

impl Links {
    /// Starts a proxy for each node.
    pub(super) async fn between(nodes: Vec<Node>) -> anyhow::Result<Self> {
        let nodes: Arc<[Node]> = nodes.into();
        let (cut, cuts) = watch::channel(HashSet::new());
        let (mut proxies, mut accepting) = (Vec::new(), JoinSet::new());
        for node in 0..nodes.len() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            proxies.push(listener.local_addr()?);
            accepting.spawn(accept(listener, node, nodes.clone(), cuts.clone()));
        }
        Ok(Self { cut, proxies, _accepting: accepting })
    }

    /// The proxy of this node.
    pub(super) fn proxy(&self, node: usize) -> String {
        format!("http://{}", self.proxies[node])
    }

    /// What one node sends no longer reaches the other. The way back stays open.
    pub fn cut(&self, from: usize, to: usize) {
        self.cut.send_modify(|cut| cut.extend([(from, to)]));
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, node: usize) {
        self.cut.send_modify(|cut| {
            for other in (0..self.proxies.len()).filter(|&other| other != node) {
                cut.extend([(node, other), (other, node)]);
            }
        });
    }

    /// Lets everything through again, also what was held.
    pub fn heal(&self) {
        self.cut.send_modify(HashSet::clear);
    }
}

async fn accept(
    listener: TcpListener,
    from: usize,
    nodes: Arc<[Node]>,
    cut: watch::Receiver<HashSet<Link>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let client = next_client(&listener).await;
        let (nodes, cut) = (nodes.clone(), cut.clone());
        connections.spawn(async move {
            if let Err(error) = connection(client, from, &nodes, cut).await {
                // Usually because a node was killed.
                tracing::debug!(from, "a connection between nodes ended: {error:#}");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One request and its answer, which may go on for hours: etcd sends its messages in such answers.
async fn connection(
    mut client: TcpStream,
    from: usize,
    nodes: &[Node],
    cut: watch::Receiver<HashSet<Link>>,
) -> anyhow::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        ensure!(client.read_buf(&mut head).await? > 0, "it ended before its request did");
        ensure!(head.len() < 65_536, "the head of its request does not end");
        if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at;
        }
    };
    let (to, request) = redirect(std::str::from_utf8(&head[..end])?, nodes)?;
    let server = TcpStream::connect(nodes[to].address).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let there = async {
        passes(&cut, (from, to)).await;
        to_server.write_all(request.as_bytes()).await?;
        to_server.write_all(&head[end + 4..]).await?;
        pump(from_client, to_server, cut.clone(), (from, to)).await
    };
    let back = pump(from_server, to_client, cut.clone(), (to, from));
    tokio::try_join!(there, back)?;
    Ok(())
}

/// The node that a request to a proxy is for, and the request as that node wants it. It closes the connection after its
/// answer, because the next request on the connection could be for another node.
fn redirect(head: &str, nodes: &[Node]) -> anyhow::Result<(usize, String)> {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
        bail!("no request line: {line}");
    };
    let url = url::Url::parse(target).with_context(|| format!("no absolute URL: {target}"))?;
    let to = nodes.iter().position(|node| url.host_str() == Some(&node.host));
    let to = to.with_context(|| format!("no node of this group: {target}"))?;
    let mut request = format!("{method} {} {version}\r\n", &url[url::Position::BeforePath..]);
    for header in headers.split("\r\n") {
        let name = header.split(':').next().unwrap_or_default();
        let about_connection = ["connection", "proxy-connection", "keep-alive"];
        if !about_connection.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            request += &format!("{header}\r\n");
        }
    }
    Ok((to, request + "Connection: close\r\n\r\n"))
}

/// Waits while the link is cut.
async fn passes(cut: &watch::Receiver<HashSet<Link>>, link: Link) {
    // An error means that the group is gone, and this connection with it.
    let _ = cut.clone().wait_for(|cut| !cut.contains(&link)).await;
}

/// One direction. While the link is cut, we stop reading too, so TCP slows the sender down as a lost network would.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    cut: watch::Receiver<HashSet<Link>>,
    link: Link,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1_024];
    loop {
        let length = from.read(&mut buffer).await?;
        passes(&cut, link).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const NOT_YET: Duration = Duration::from_millis(200);

    fn nodes(addresses: &[SocketAddr]) -> Vec<Node> {
        let node = |(number, &address)| Node { host: format!("n{number}.lab"), address };
        addresses.iter().enumerate().map(node).collect()
    }

    #[test]
    fn a_request_to_a_proxy_goes_on_without_it() {
        let address = "127.0.0.1:1".parse().unwrap();
        let head = "POST http://n1.lab:2380/raft?x=1 HTTP/1.1\r\nHost: n1.lab:2380\r\n\
                    Proxy-Connection: keep-alive\r\nContent-Length: 3";
        let (to, request) = redirect(head, &nodes(&[address, address])).unwrap();
        assert_eq!(to, 1);
        assert_eq!(
            request,
            "POST /raft?x=1 HTTP/1.1\r\nHost: n1.lab:2380\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n",
        );
        assert!(redirect("GET http://elsewhere/ HTTP/1.1\r\n", &nodes(&[address])).is_err());
    }

    /// A node that answers each request once, with what it got, and then says more.
    async fn node() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = vec![0; 1_024];
                    let length = stream.read(&mut head).await.unwrap();
                    assert!(head[..length].starts_with(b"GET /hello HTTP/1.1\r\n"));
                    stream.write_all(b"hello").await.unwrap();
                    let mut more = [0; 4];
                    stream.read_exact(&mut more).await.unwrap();
                    stream.write_all(&more).await.unwrap();
                });
            }
        });
        address
    }

    async fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
        let mut answer = [0; N];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_link_is_cut_in_one_direction_and_what_it_held_arrives_when_it_heals() {
        let three = [node().await, node().await, node().await];
        let links = Links::between(nodes(&three)).await.unwrap();
        let mut stream = TcpStream::connect(links.proxies[0]).await.unwrap();
        stream.write_all(b"GET http://n1.lab/hello HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(&read(&mut stream).await, b"hello");

        // Cut the way back only.
        links.cut(1, 0);
        stream.write_all(b"ping").await.unwrap();
        assert!(timeout(NOT_YET, read::<4>(&mut stream)).await.is_err(), "it came back");
        links.heal();
        assert_eq!(&read(&mut stream).await, b"ping");

        // A new connection is held too, but not the connection of another pair.
        links.cut(0, 1);
        let mut stream = TcpStream::connect(links.proxies[0]).await.unwrap();
        stream.write_all(b"GET http://n1.lab/hello HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(timeout(NOT_YET, read::<5>(&mut stream)).await.is_err(), "it arrived");
        let mut other = TcpStream::connect(links.proxies[2]).await.unwrap();
        other.write_all(b"GET http://n1.lab/hello HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(&read(&mut other).await, b"hello");
        links.heal();
        assert_eq!(&read(&mut stream).await, b"hello");
    }
}
