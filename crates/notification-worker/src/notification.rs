//! What is a notification, and what can become of it?

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, UserId};

/// How it reaches its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Channel {
    /// The user's open sockets, and those that open later.
    Websocket,
    /// Every device of the user, by FCM.
    Push,
}

/// A password reset is not behind a million newsletters: each priority has queues of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Priority {
    /// For what somebody waits for. Not subject to the quiet limit.
    High,
    /// Everything else.
    #[default]
    Normal,
}

impl Priority {
    /// Both.
    pub const ALL: [Self; 2] = [Self::High, Self::Normal];

    /// In names of queues.
    pub fn word(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
        }
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Status {
    /// Accepted, and not tried yet.
    Queued,
    /// An attempt failed; another will come.
    Retrying,
    /// In the user's stream, or taken by FCM.
    Delivered,
    /// Given up, until somebody queues it again.
    Dead,
}

/// What a client wants to have sent.
#[derive(Clone, Debug)]
pub struct NewNotification {
    /// Chosen by the client, or new.
    pub job_id: JobId,
    /// To whom.
    pub user_id: UserId,
    /// How.
    pub channel: Channel,
    /// How soon.
    pub priority: Priority,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

/// What stands in the broker's queues: which job, and which generation of it. The rest is in the database,
/// which both sides share, so nothing can differ between the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// A job, or a summary.
    pub job_id: String,
    /// Its user: decides the shard, and the place in line.
    pub user_id: UserId,
    /// A message of another generation than the job's is void.
    pub generation: i32,
}

impl NewNotification {
    /// Its first message.
    pub fn message(&self) -> Message {
        Message {
            job_id: self.job_id.as_str().to_owned(),
            user_id: self.user_id.clone(),
            generation: 0,
        }
    }
}
