//! How is a user's stream read, and read again?

use serde::{Deserialize, Serialize};

use super::Store;
use crate::{error::Error, ids::UserId};

/// A notification in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Entry {
    /// Its place in the stream. Places rise; a gap in them may be one that is never filled.
    pub position: i64,
    /// Its number among the user's, in the order in which they were accepted.
    pub seq: i64,
    /// The job.
    pub job_id: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

impl Store {
    // ANCHOR: stream
    /// What is in the stream after this place, in its order.
    pub async fn stream_after(
        &self,
        user: &UserId,
        position: i64,
        limit: i64,
    ) -> Result<Vec<Entry>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select position, seq, job_id, title, body
                    from notifications
                    where user_id = $1
                        and position > $2
                    order by position
                    limit $3
                    "#,
                )
                .bind(user)
                .bind(position)
                .bind(limit)
                .fetch_all(connection)
                .await
            })
            .await
    }

    /// The place of the notification with this number: the client has seen the stream up to there. One that
    /// had to be retried stands behind others with a higher number, and is not missed.
    ///
    /// If no place has this number (0, or a push's), it is the one before the first with a higher.
    pub async fn position_of(&self, user: &UserId, seq: i64) -> Result<i64, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_scalar(
                    r#"
                    select coalesce(
                        (select position from notifications where user_id = $1 and seq = $2),
                        (select min(position) - 1 from notifications where user_id = $1 and seq > $2),
                        (select last_position from users where user_id = $1),
                        0
                    )
                    "#,
                )
                .bind(user)
                .bind(seq)
                .fetch_one(connection)
                .await
            })
            .await
    }
    // ANCHOR_END: stream
}
