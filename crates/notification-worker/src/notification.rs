//! What is a notification, what may a client send, and what can become of it?

use edge::text::is_line;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// A name that is safe wherever it goes: in paths, in keys of Redis, in logs.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $longest:literal, $also:literal, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(try_from = "String")]
        #[sqlx(transparent)]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let good = |byte: u8| byte.is_ascii_alphanumeric() || $also.contains(&byte);
                // Clients resolve the segments `.` and `..`, so in a path these two mean another path.
                let is_name = (1..=$longest).contains(&text.len())
                    && text.bytes().all(good)
                    && text != "."
                    && text != "..";
                is_name.then_some(Self(text)).ok_or($wrong)
            }
        }

        impl $name {
            /// As it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The idempotency key of one notification.
    JobId, 64, b"_-.@",
    "must be 1 to 64 letters, digits, '_', '-', '.' or '@'"
);
name!(
    /// A user, as the system that sends notifications knows them.
    UserId, 64, b"_-.@",
    "must be 1 to 64 letters, digits, '_', '-', '.' or '@'"
);
name!(
    /// What FCM calls a registration token.
    DeviceToken, 4096, b"_-:.",
    "must be 1 to 4096 letters, digits, '_', '-', ':' or '.'"
);

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

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Status {
    /// Accepted: an attempt will come, or comes again.
    Queued,
    /// In the user's stream, or taken by FCM.
    Delivered,
    /// Given up, until somebody queues it again.
    Dead,
}

/// What a client wants to have sent: the body of its call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `user_id`, `channel`, `title`, `body`")]
pub struct NewNotification {
    /// Chosen by the client, or new.
    #[serde(default = "new_job_id")]
    pub job_id: JobId,
    /// To whom.
    pub user_id: UserId,
    /// How.
    pub channel: Channel,
    /// The headline.
    #[serde(deserialize_with = "title")]
    pub title: String,
    /// The text. With the title and what FCM's JSON adds, below the 4,096 bytes that FCM takes.
    #[serde(deserialize_with = "text::<_, 0, 3_000>")]
    pub body: String,
}

/// For a client that never repeats a call.
fn new_job_id() -> JobId {
    JobId(uuid::Uuid::now_v7().to_string())
}

/// So many bytes, and no NUL, which PostgreSQL's text cannot hold.
fn text<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = (LEAST..=MOST).contains(&text.len()) && !text.contains('\0');
    let wrong = || D::Error::custom(format!("must have {LEAST} to {MOST} bytes, and no NUL"));
    fits.then_some(text).ok_or_else(wrong)
}

/// One printable line, wherever it is shown.
fn title<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let title = text::<D, 1, 256>(deserializer)?;
    if is_line(&title) { Ok(title) } else { Err(D::Error::custom("must be one printable line")) }
}

/// What stands in the broker's queues: which job. Everything else is in the database, which both sides share, so there
/// are no two copies that could differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The job.
    pub job_id: JobId,
    /// Its user, who decides the shard and the lane.
    pub user_id: UserId,
    /// Workers have died while they tried this job: it is tried while nothing else is.
    pub alone: bool,
}

impl NewNotification {
    /// Its first message.
    pub fn message(&self) -> Message {
        let (job_id, user_id) = (self.job_id.clone(), self.user_id.clone());
        Message { job_id, user_id, alone: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_a_few_marks() {
        for good in ["a", "user-1", "A_b.c@example", "...", &"x".repeat(64)] {
            assert!(UserId::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "ä", "a\n", "a\0", &"x".repeat(65)] {
            assert!(UserId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(DeviceToken::try_from("fcm:APA91b_x-y".to_owned()).is_ok());
        assert!(JobId::try_from(new_job_id().0).is_ok());
    }
}
