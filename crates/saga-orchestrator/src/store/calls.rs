//! How does a participant do a thing once that it is asked to do twice? It finds the row of the first time.
//!
//! Invariant: a row of `calls` and the effect it stands for are written by one statement, so either both are there
//! or neither. The primary key on the order decides who is first, also between an action and its compensation.

use serde_json::Value;
use sqlx::{PgConnection, migrate::Migrator};
use uuid::Uuid;

use crate::saga::Call;

/// The payment service's schema, which is also the shipping service's: what was asked, and what was done.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/effects");

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

// ANCHOR: act_sql
pub(crate) const ACT: &str = r#"
    with call as (
        insert into calls (order_id, action_key, request, refusal)
        values ($1, $2, $3, $4)
        on conflict (order_id) do nothing
        returning order_id, request, refusal
    ), effect as (
        insert into effects (order_id, kind, request)
        select order_id, $5, request
        from call
        where refusal is null
    )
    select refusal from call
"#;

/// Charges or books, unless there is a reason not to.
pub async fn act(
    connection: &mut PgConnection,
    call: Call,
    asked: &Asked,
    refusal: Option<&str>,
) -> sqlx::Result<Answer> {
    let first: Option<Option<String>> = sqlx::query_scalar(ACT)
        .bind(asked.order_id)
        .bind(&asked.key)
        .bind(&asked.request)
        .bind(refusal)
        .bind(call.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    match first {
        Some(refusal) => Ok(refusal.map_or(Answer::Done, Answer::Refused)),
        None => replay(connection, asked).await,
    }
}

/// Refunds or cancels what was done, which may be nothing. It cannot be refused, and leaves a mark that no later
/// action gets past.
pub async fn undo(
    connection: &mut PgConnection,
    call: Call,
    asked: &Asked,
) -> sqlx::Result<Answer> {
    sqlx::query(
        r#"
        with call as (
            insert into calls (order_id, undo_key)
            values ($1, $2)
            on conflict (order_id) do update set undo_key = excluded.undo_key
                where calls.undo_key is null
            returning order_id, request, action_key is not null and refusal is null as was_done
        )
        insert into effects (order_id, kind, request)
        select order_id, $3, request
        from call
        where was_done
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.key)
    .bind(call.to_string())
    .execute(connection)
    .await?;
    Ok(Answer::Done)
}
// ANCHOR_END: act_sql

/// What was done for an order, in its order.
pub async fn effects(connection: &mut PgConnection, order_id: Uuid) -> sqlx::Result<Vec<Value>> {
    sqlx::query_scalar(
        r#"
        select jsonb_build_object('kind', kind, 'request', request, 'at', at)
        from effects
        where order_id = $1
        order by id
        "#,
    )
    .bind(order_id)
    .fetch_all(connection)
    .await
}

/// The row of an order, beside what is asked now.
#[derive(Clone, Default, sqlx::FromRow)]
struct Row {
    /// The key of the action; nothing if only its compensation has come.
    action_key: Option<String>,
    /// Why it was refused; nothing if it was done.
    refusal: Option<String>,
    /// Whether the request is the same; nothing if there was none.
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
    Ok(row.answer(&asked.key))
}

impl Row {
    // ANCHOR: remember
    /// What was answered the first time, if this is that again.
    fn answer(self, key: &str) -> Answer {
        match self.action_key {
            // A compensation overtook it. To do it now would leave it done for ever.
            None => Answer::Refused("it was undone before it came".to_owned()),
            Some(first) if first != key => {
                Answer::Refused("this order has had this step under another key".to_owned())
            }
            Some(_) if self.is_same != Some(true) => Answer::KeyReused,
            Some(_) => self.refusal.map_or(Answer::Done, Answer::Refused),
        }
    }
    // ANCHOR_END: remember
}
// ANCHOR_END: replay

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Row {
        Row { action_key: Some("o.charge".to_owned()), refusal: None, is_same: Some(true) }
    }

    #[test]
    fn what_is_asked_again_is_answered_as_the_first_time() {
        assert_eq!(first().answer("o.charge"), Answer::Done);
        let declined = Row { refusal: Some("declined".to_owned()), ..first() };
        assert_eq!(declined.answer("o.charge"), Answer::Refused("declined".to_owned()));
    }

    #[test]
    fn another_request_under_the_same_key_is_a_mistake_and_no_repetition() {
        let other = Row { is_same: Some(false), ..first() };
        assert_eq!(other.answer("o.charge"), Answer::KeyReused);
    }

    #[test]
    fn another_key_does_not_do_the_step_of_an_order_again() {
        for refusal in [None, Some("declined".to_owned())] {
            let row = Row { refusal, ..first() };
            assert!(matches!(row.answer("x"), Answer::Refused(why) if why.contains("another key")));
        }
    }

    #[test]
    fn what_was_undone_before_it_came_is_refused() {
        assert!(matches!(Row::default().answer("o.charge"), Answer::Refused(_)));
    }
}
