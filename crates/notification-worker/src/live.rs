//! How does a notification get from any worker to the socket, which may hang on any process? Through Redis.
//!
//! Redis holds nothing that may not be lost: tickets for seconds, and messages in passing. The stream in the
//! database is the truth, and a socket that has missed something reads it there.

use std::time::Duration;

use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use crate::{error::Error, ids::UserId, store::Entry, ticket::Ticket};

/// For an answer, and for a connection.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Redis, as all processes use it.
#[derive(Clone)]
pub struct Live {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
}

impl Live {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> redis::RedisResult<Self> {
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_max_delay(TIMEOUT)
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { client, connection, prefix: prefix.to_owned() })
    }

    // ANCHOR: tell
    /// Tells every process that has a socket of this user.
    pub async fn tell(&self, user: &UserId, entry: &Entry) -> Result<(), Error> {
        let text = serde_json::to_string(entry).map_err(Error::internal)?;
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.channel(user)).arg(text);
        Ok(command.exec_async(&mut self.connection.clone()).await?)
    }
    // ANCHOR_END: tell

    /// The channel of a user.
    pub fn channel(&self, user: &UserId) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// The user of a channel.
    pub fn user(&self, channel: &str) -> Option<UserId> {
        let user = channel.strip_prefix(&self.prefix)?.strip_prefix("user:")?;
        UserId::parse(user).ok()
    }

    /// A connection that listens. Nothing else can be done with it.
    pub async fn listen(&self) -> redis::RedisResult<redis::aio::PubSub> {
        self.client.get_async_pubsub().await
    }

    /// Puts a ticket down, for so long.
    pub async fn put_ticket(
        &self,
        user: &UserId,
        ticket: &Ticket,
        seconds: u64,
    ) -> Result<(), Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.ticket(user, ticket)).arg(1).arg("EX").arg(seconds);
        Ok(command.exec_async(&mut self.connection.clone()).await?)
    }

    /// Takes a ticket up; whether it was there. GETDEL does both at once: of two who try, one gets it.
    pub async fn take_ticket(&self, user: &UserId, ticket: &Ticket) -> Result<bool, Error> {
        let mut command = redis::cmd("GETDEL");
        command.arg(self.ticket(user, ticket));
        let found: Option<i64> = command.query_async(&mut self.connection.clone()).await?;
        Ok(found.is_some())
    }

    /// The user is a part of the key: the ticket of another user is no ticket.
    fn ticket(&self, user: &UserId, ticket: &Ticket) -> String {
        format!("{}ticket:{ticket}:{user}", self.prefix)
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(redis::cmd("PING").exec_async(&mut self.connection.clone()).await?)
    }
}
