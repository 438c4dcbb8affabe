//! What may a job, a user and a device be called?

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that is safe wherever it goes: in paths, in keys of Redis, in logs.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $longest:literal, $also:literal, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(try_from = "String")]
        #[sqlx(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses what a client sent. The error says what is wrong.
            pub fn parse(text: impl Into<String>) -> Result<Self, &'static str> {
                let text = text.into();
                let good = |byte: u8| byte.is_ascii_alphanumeric() || $also.contains(&byte);
                // A dot segment in a path is taken out by clients, and means another path.
                if text.is_empty()
                    || text.len() > $longest
                    || !text.bytes().all(good)
                    || text == "."
                    || text == ".."
                {
                    return Err($wrong);
                }
                Ok(Self(text))
            }

            /// As it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The idempotency key of one notification. Summaries have ids of our own, with a colon in them.
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

impl JobId {
    /// A new one, for a client that has none.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_a_few_marks() {
        for good in ["a", "user-1", "A_b.c@example", "...", &"x".repeat(64)] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "ä", "a\n", "a\0", &"x".repeat(65)] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(DeviceToken::parse("fcm:APA91b_x-y").is_ok());
        assert!(JobId::parse(JobId::random().as_str()).is_ok());
    }
}
