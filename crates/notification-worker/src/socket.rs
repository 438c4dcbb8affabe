//! How does an open socket get the stream in its order, once, without harm from a client that is slow or hostile?

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{hub::Hub, notification::UserId, store::Store};

/// Entries that are read at once, and so held in memory for one socket.
const PAGE: i64 = 64;
/// A client that has answered none of so many pings is dropped.
const PINGS: u32 = 2;
/// What a client may send in one message, fragments and all. It has nothing to say.
const LONGEST_MESSAGE: usize = 1_024;
/// For each socket. The default of 128 KiB is for those who have much to say.
const READ_BUFFER: usize = 1_024;
/// What waits for a client to take it, answers to its pings too. The longest frame is four fifths of it.
const WRITE_BUFFER: usize = 24 * 1_024;
/// After a look that the database did not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For the closing handshake.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a socket ends.
enum End {
    /// The connection has ended, or its client takes nothing: it would not take a goodbye either.
    Gone,
    /// The client says goodbye, and waits for our answer, which the library has put into its buffer.
    Goodbye,
    /// Anything else, which the client is told.
    Close(u16, &'static str),
}

// ANCHOR: limits
/// No buffer of a socket grows without a bound, whatever its client sends or does not read.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(LONGEST_MESSAGE)
        .max_frame_size(LONGEST_MESSAGE)
}
// ANCHOR_END: limits

/// A socket that is open.
pub struct Socket {
    /// The connection.
    pub web: WebSocket,
    /// Where the stream is.
    pub store: Store,
    /// Whose it is.
    pub user: UserId,
    /// How far in the stream its client is.
    pub seq: i64,
    /// Between two pings. A client that takes nothing for so long is dropped.
    pub ping_every: Duration,
    /// Pings since the client answered one.
    pub unanswered: u32,
}

impl Socket {
    /// Serves the client until one of the two has enough.
    pub async fn serve(mut self, hub: &Hub, stop: &CancellationToken) {
        let end = tokio::select! {
            ended = self.run(hub) => ended.err(),
            () = stop.cancelled() => Some(End::Close(close_code::AWAY, "this process stops; come back")),
        };
        let goodbye = async {
            match end {
                Some(End::Gone) | None => return,
                Some(End::Goodbye) => {}
                Some(End::Close(code, reason)) => {
                    let frame = CloseFrame { code, reason: reason.into() };
                    let _ = self.web.send(Message::Close(Some(frame))).await;
                }
            }
            // Sends what is in the buffer. Until the client has closed too, or what it still sends makes a reset of it.
            while let Some(Ok(_)) = self.web.recv().await {}
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    // ANCHOR: socket
    async fn run(&mut self, hub: &Hub) -> Result<(), End> {
        // Joined before the first look: what comes between the two is another look.
        let mut updates = hub.join(self.user.clone());
        let mut ping = interval_at(Instant::now() + self.ping_every, self.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look().await?;
        loop {
            tokio::select! {
                Ok(()) = updates.changed() => self.look().await?,
                said = self.web.recv() => self.hear(said.as_ref())?,
                _ = ping.tick() => self.ping().await?,
            }
        }
    }

    /// Sends what is in the stream after what was sent, so each once and in order.
    async fn look(&mut self) -> Result<(), End> {
        loop {
            let Ok(entries) = self.store.stream_after(&self.user, self.seq, PAGE).await else {
                // It stays open: if all came back at once, the database would have a harder time still.
                sleep(LOOK_AGAIN).await;
                continue;
            };
            for entry in &entries {
                let frame = serde_json::to_string(entry).map_err(|_| End::Gone)?;
                self.send(Message::Text(frame.into())).await?;
                self.seq = entry.seq;
            }
            if entries.len() < usize::try_from(PAGE).unwrap_or(0) {
                return Ok(());
            }
        }
    }
    // ANCHOR_END: socket

    /// Pings, and looks, in case that Redis has lost something.
    async fn ping(&mut self) -> Result<(), End> {
        if self.unanswered == PINGS {
            tracing::info!(user = self.user.as_str(), "dropped a client that answers no ping");
            return Err(End::Gone);
        }
        self.unanswered += 1;
        self.send(Message::Ping(Vec::new().into())).await?;
        self.look().await
    }

    /// Waits until the client's side has room for it, but not for long.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        let sent = timeout(self.ping_every, self.web.send(message)).await;
        sent.map_err(|_| End::Gone)?.map_err(|_| End::Gone)
    }

    /// A client answers pings, may send some, and has nothing else to say. One that only pings us need not read what we
    /// send.
    fn hear(&mut self, said: Option<&Result<Message, axum::Error>>) -> Result<(), End> {
        match said {
            Some(Ok(Message::Pong(_))) => self.unanswered = 0,
            Some(Ok(Message::Ping(_))) => {}
            Some(Ok(Message::Close(_))) => return Err(End::Goodbye),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                return Err(End::Close(close_code::UNSUPPORTED, "this stream goes one way"));
            }
            Some(Err(_)) | None => return Err(End::Gone),
        }
        Ok(())
    }
}
