//! How does a participant do a thing once that it is asked to do twice? It finds the row of the first time.
//!
//! Invariant: a row of `calls` and the effect it stands for are written by one statement, so either both are there
//! or neither. The primary key on the order decides who is first, also between an action and its compensation.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// What a participant is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// For which order.
    pub order_id: Uuid,
    /// The idempotency key: the same for every attempt at this step.
    pub key: String,
    /// The whole request: asked again, it must be the same.
    pub request: Value,
}

/// What it answers, the first time and each time after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, now or before.
    Done,
    /// Not done, and it never will be.
    Refused(String),
    /// The key was used for another request.
    KeyReused,
}

impl From<Option<String>> for Answer {
    fn from(refusal: Option<String>) -> Self {
        refusal.map_or(Self::Done, Self::Refused)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    action_key: Option<String>,
    refusal: Option<String>,
    is_same: Option<bool>,
}

// ANCHOR: replay
/// The answer to an action whose order has a row already.
pub async fn replay(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    let row: Row = sqlx::query_as(
        r#"
        select action_key, refusal, request = $2 as is_same
        from calls
        where order_id = $1
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.request)
    .fetch_one(connection)
    .await?;
    Ok(match row.action_key {
        // A compensation overtook it. To do it now would leave it done for ever.
        None => Answer::Refused("it was undone before it came".to_owned()),
        Some(key) if key != asked.key => {
            Answer::Refused("this order has had this step under another key".to_owned())
        }
        Some(_) if row.is_same != Some(true) => Answer::KeyReused,
        Some(_) => row.refusal.into(),
    })
}
// ANCHOR_END: replay
