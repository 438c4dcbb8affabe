//! How does a client read a user's stream? Over a WebSocket that a ticket has opened.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::protocol::Message};
use url::Url;

use super::PATIENCE;
use conform::{
    case::Outcome,
    expect::{equal, expect},
    target::{Target, brief},
};

/// For what must not come. Too short a wait lets a fault pass; none is made up by it.
const A_MOMENT: Duration = Duration::from_millis(300);

/// For a goodbye, for which a server has to ask nobody.
const CLOSED: Duration = Duration::from_secs(10);

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Frame {
    /// Rises for each user.
    pub seq: i64,
    /// The job.
    pub job_id: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    target: Target,
    path: String,
    /// The socket itself.
    pub socket: WebSocketStream<TcpStream>,
}

impl Stream {
    /// Opens the stream of a user with this query.
    pub async fn open(target: &Target, user: &str, query: &str) -> anyhow::Result<Self> {
        let addresses = Url::parse(target.url())?.socket_addrs(|| None)?;
        Self::over(TcpStream::connect(&*addresses).await?, target, user, query).await
    }

    /// Opens it over a connection that is there.
    pub async fn over(
        tcp: TcpStream,
        target: &Target,
        user: &str,
        query: &str,
    ) -> anyhow::Result<Self> {
        // The ticket is long, and says nothing to a reader.
        let ticket = query.split('&').find(|part| part.starts_with("ticket=")).unwrap_or_default();
        let shown = query.replacen(ticket, "ticket=…", 1);
        let path = format!("WebSocket /users/{user}/stream?{shown}");
        target.note(&path, "no answer");
        let root = target.url().replacen("http", "ws", 1);
        let opening = client_async(format!("{root}/users/{user}/stream?{query}"), tcp);
        let opened = timeout(PATIENCE, opening).await.context("expected the stream to open")?;
        target.note(&path, &opened.as_ref().map_or_else(ToString::to_string, |_| "open".into()));
        Ok(Self {
            target: target.clone(),
            path,
            socket: opened.context("expected the stream to open")?.0,
        })
    }

    /// The next frame; nothing when the server has closed the stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.target.note(&self.path, &text);
                    let frame = serde_json::from_str(&text);
                    let what = || {
                        let text = brief(text.to_string());
                        format!("expected seq, job_id, title and body in a frame, got {text}")
                    };
                    return Ok(Some(frame.with_context(what)?));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(other)) => {
                    bail!("expected text frames, got {}", brief(format!("{other:?}")))
                }
            }
        }
    }

    /// The next frame, which has to come.
    pub async fn soon(&mut self) -> anyhow::Result<Frame> {
        let what = || format!("expected a frame within {} s, got none", PATIENCE.as_secs());
        let frame = timeout(PATIENCE, self.next()).await.with_context(what)??;
        frame.context("expected a frame, and the stream was closed")
    }

    /// Nothing else comes.
    pub async fn nothing_more(&mut self) -> Outcome {
        match timeout(A_MOMENT, self.next()).await {
            Err(_) => Ok(()),
            Ok(more) => bail!("expected nothing more in the stream, got {:?}", more?),
        }
    }

    /// Says this, as far as the server listens.
    pub async fn say(&mut self, said: Vec<Message>) {
        for message in said {
            // The server may have had enough before it has heard all.
            if self.socket.send(message).await.is_err() {
                break;
            }
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // The server may have gone before.
        let _ = self.socket.close(None).await;
    }

    /// The code with which the server closes it; nothing if it is closed without one.
    pub async fn closed(&mut self) -> anyhow::Result<Option<u16>> {
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(close))) => return close.map(|it| it.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let code: Option<u16> =
            timeout(CLOSED, end).await.context("expected the stream to be closed")?;
        self.target.note(&self.path, &format!("closed: {code:?}"));
        Ok(code)
    }

    /// These jobs come, in this order, with rising numbers.
    pub async fn brings(&mut self, jobs: &[String]) -> anyhow::Result<Vec<Frame>> {
        let mut frames: Vec<Frame> = Vec::new();
        for job in jobs {
            let frame = self.soon().await?;
            equal("the next job in the stream", &*frame.job_id, &**job)?;
            let before = frames.last().map_or(0, |before| before.seq);
            let what = format!("a seq above {before}, the one before");
            expect(frame.seq > before, what, frame.seq)?;
            frames.push(frame);
        }
        Ok(frames)
    }
}
