//! How does an open socket get the stream in its order, once, without harm from a client that is slow or hostile?

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    hub::{Hub, Told},
    notification::UserId,
    store::{Entry, Store},
};

/// Entries that are read at once, and so held in memory for one socket.
const PAGE: i64 = 64;
/// A client that has answered none of so many pings is dropped.
const PINGS: u32 = 2;
/// At every so many pings the socket looks into the database, in case that Redis has lost something.
const PINGS_FOR_A_LOOK: u32 = 3;
/// What a client may send in one message, fragments and all. It has nothing to say.
const LONGEST_MESSAGE: usize = 1_024;
/// For each socket. The default of 128 KiB is for those who have much to say.
const READ_BUFFER: usize = 1_024;
/// What waits for a client to take it, answers to its pings too. The longest frame is four fifths of it.
const WRITE_BUFFER: usize = 24 * 1_024;
/// For the closing handshake.
const GOODBYE: Duration = Duration::from_secs(1);

/// How patient we are.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two pings.
    pub ping_every: Duration,
    /// A client that does not take a frame for so long is dropped.
    pub slowest: Duration,
}

/// Why a socket ends.
enum End {
    /// The connection has ended.
    Gone,
    /// The client says goodbye, and waits for our answer.
    Goodbye,
    /// The client does not take what is sent.
    Slow,
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
    web: WebSocket,
    store: Store,
    user: UserId,
    patience: Patience,
    /// How far in the stream its client is.
    seq: i64,
}

impl Socket {
    /// Serves the client until one of the two has enough.
    pub async fn serve(
        web: WebSocket,
        store: Store,
        hub: Arc<Hub>,
        (user, seq): (UserId, i64),
        patience: Patience,
        stop: CancellationToken,
    ) {
        let mut this = Self { web, store, user, patience, seq };
        let end = tokio::select! {
            end = this.run(&hub) => end,
            () = stop.cancelled() => End::Close(close_code::AWAY, "this process stops; come back"),
        };
        let close = match end {
            End::Gone => return,
            // It would not take the goodbye either.
            End::Slow => {
                tracing::info!(user = %this.user, "dropped a client that does not read");
                return;
            }
            // The library has put our answer into its buffer; reading on sends it.
            End::Goodbye => None,
            End::Close(code, reason) => Some(CloseFrame { code, reason: reason.into() }),
        };
        let goodbye = async {
            if let Some(close) = close {
                this.web.send(Message::Close(Some(close))).await?;
            }
            // Until the client has closed too. Otherwise what it still sends makes a reset of our goodbye.
            while let Some(Ok(_)) = this.web.recv().await {}
            Ok::<_, axum::Error>(())
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    // ANCHOR: socket
    async fn run(&mut self, hub: &Arc<Hub>) -> End {
        // Joined before the first look: what comes between the two is told, and known by its place.
        let mut ear = hub.join(self.user.clone()).await;
        let mut ping =
            interval_at(Instant::now() + self.patience.ping_every, self.patience.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pings, mut unanswered) = (0_u32, 0);
        let mut end = self.look().await.err();
        while end.is_none() {
            end = tokio::select! {
                told = ear.told.recv() => match told {
                    Ok(Told::Entry(entry)) => self.told(&entry).await.err(),
                    // Something may be new, or too much was.
                    Ok(Told::Look) | Err(RecvError::Lagged(_)) => self.look().await.err(),
                    Err(RecvError::Closed) => Some(End::Gone),
                },
                said = self.web.recv() => match said {
                    // A client that only pings us need not read what we send.
                    Some(Ok(Message::Pong(_))) => {
                        unanswered = 0;
                        None
                    }
                    said => hear(said).err(),
                },
                _ = ping.tick() => {
                    (pings, unanswered) = (pings.wrapping_add(1), unanswered + 1);
                    if unanswered > PINGS {
                        Some(End::Slow)
                    } else if let Err(end) = self.send(Message::Ping(Vec::new().into())).await {
                        Some(end)
                    } else if pings.is_multiple_of(PINGS_FOR_A_LOOK) {
                        // If the database is away, there is nothing new to tell either.
                        self.look().await.err().filter(|end| !matches!(end, End::Close(..)))
                    } else {
                        None
                    }
                }
            };
        }
        end.unwrap_or(End::Gone)
    }

    /// The next one goes out as it is; one that we have sent is dropped; one that is too far ahead means that we have
    /// missed something.
    async fn told(&mut self, entry: &Entry) -> Result<(), End> {
        if entry.seq <= self.seq {
            Ok(())
        } else if entry.seq == self.seq + 1 {
            self.send_entry(entry).await
        } else {
            self.look().await
        }
    }

    /// Sends what is in the stream after what was sent.
    async fn look(&mut self) -> Result<(), End> {
        loop {
            let entries = match self.store.stream_after(&self.user, self.seq, PAGE).await {
                Ok(entries) => entries,
                Err(error) => return Err(away(&error)),
            };
            for entry in &entries {
                self.send_entry(entry).await?;
            }
            if entries.len() < usize::try_from(PAGE).unwrap_or(0) {
                return Ok(());
            }
        }
    }
    // ANCHOR_END: socket

    async fn send_entry(&mut self, entry: &Entry) -> Result<(), End> {
        let Ok(frame) = serde_json::to_string(entry) else { return Err(End::Gone) };
        self.send(Message::Text(frame.into())).await?;
        self.seq = entry.seq;
        Ok(())
    }

    /// Waits until the client's side has room for it, and no longer than we are patient.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.patience.slowest, self.web.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Slow),
        }
    }
}

/// A client answers pings, may send some, and has nothing else to say.
fn hear(said: Option<Result<Message, axum::Error>>) -> Result<(), End> {
    match said {
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
        Some(Ok(Message::Text(_) | Message::Binary(_))) => {
            Err(End::Close(close_code::UNSUPPORTED, "this stream goes one way"))
        }
        Some(Ok(Message::Close(_))) => Err(End::Goodbye),
        Some(Err(error)) if error.to_string().contains("too long") => {
            Err(End::Close(close_code::SIZE, "that is too long"))
        }
        Some(Err(_)) | None => Err(End::Gone),
    }
}

/// The client comes back, with the last number that it has seen.
fn away(error: &Error) -> End {
    tracing::debug!(%error, "a stream cannot be read");
    End::Close(close_code::AGAIN, "try again")
}
