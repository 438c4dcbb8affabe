//! What does somebody on the way see, and what can they change? All bytes, with their times.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
};

/// What one read brought.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The connection, from 0.
    pub connection: usize,
    /// From the client to the server, or back.
    pub to_server: bool,
    /// Since the tap was set up.
    pub at: Duration,
    /// What crossed the wire.
    pub bytes: Vec<u8>,
}

/// One bit that arrives as another.
#[derive(Clone, Copy, Debug)]
pub struct Flip {
    /// In which direction.
    pub to_server: bool,
    /// In which byte of that direction of the first connection.
    pub byte: usize,
    /// Which of its bits, as a mask.
    pub bit: u8,
}

/// Somebody on the way to one server. Dropping it cuts everything.
#[derive(Debug)]
pub struct Tap {
    /// Where clients connect instead of to the server.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Piece>>>,
    accepting: AbortHandle,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Tap {
    /// Listens only.
    pub async fn on(server: SocketAddr) -> anyhow::Result<Self> {
        Self::changing(server, None).await
    }

    /// Listens, and flips this bit.
    pub async fn changing(server: SocketAddr, flip: Option<Flip>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Vec<Piece>>>::default();
        let notes = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let (begun, mut connections) = (Instant::now(), JoinSet::new());
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else { continue };
                let direction = |to_server| Direction {
                    connection,
                    to_server,
                    begun,
                    flip: flip.filter(|it| connection == 0 && it.to_server == to_server),
                    seen: Arc::clone(&notes),
                };
                connections.spawn(forward(client, server, direction(true), direction(false)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, seen, accepting: accepting.abort_handle() })
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Vec<Piece> {
        lock(&self.seen).clone()
    }

    /// What went one way over one connection.
    pub fn stream(&self, connection: usize, to_server: bool) -> Vec<u8> {
        let pieces = self.seen().into_iter();
        let these = pieces.filter(|it| (it.connection, it.to_server) == (connection, to_server));
        these.flat_map(|piece| piece.bytes).collect()
    }

    /// How many bytes went either way.
    pub fn bytes(&self, to_server: bool) -> usize {
        let pieces = self.seen().into_iter().filter(|piece| piece.to_server == to_server);
        pieces.map(|piece| piece.bytes.len()).sum()
    }

    /// Whether these bytes are in what went over any connection.
    pub fn reads(&self, secret: &[u8]) -> bool {
        let connections = self.seen().iter().map(|it| it.connection + 1).max().unwrap_or(0);
        let streams =
            (0..connections).flat_map(|at| [self.stream(at, true), self.stream(at, false)]);
        streams.into_iter().any(|stream| contains(&stream, secret))
    }
}

/// Whether these bytes are somewhere in those.
pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

struct Direction {
    connection: usize,
    to_server: bool,
    begun: Instant,
    flip: Option<Flip>,
    seen: Arc<Mutex<Vec<Piece>>>,
}

async fn forward(
    client: TcpStream,
    server: SocketAddr,
    there: Direction,
    back: Direction,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(there.pump(from_client, to_server), back.pump(from_server, to_client))
        .map(|_| ())
}

impl Direction {
    async fn pump(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        let (mut passed, mut buffer) = (0, vec![0; 16 * 1_024]);
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            if let Some(flip) = self.flip
                && let Some(byte) =
                    flip.byte.checked_sub(passed).and_then(|at| buffer[..length].get_mut(at))
            {
                *byte ^= flip.bit;
            }
            passed += length;
            let bytes = buffer[..length].to_vec();
            let Self { connection, to_server, begun, .. } = self;
            // Before it is passed on: who waits for an answer finds the question noted.
            lock(&self.seen).push(Piece { connection, to_server, at: begun.elapsed(), bytes });
            to.write_all(&buffer[..length]).await?;
        }
    }
}

fn lock(seen: &Mutex<Vec<Piece>>) -> MutexGuard<'_, Vec<Piece>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
