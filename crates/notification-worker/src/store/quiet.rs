//! How is a user's quiet limit counted, and what becomes of what is beyond it?

use super::Store;
use crate::{error::Error, ids::UserId, notification::Message};

impl Store {
    /// Counts one more for a user in this minute; how many that makes.
    pub async fn count_for_quiet(&self, user: &UserId) -> Result<i32, Error> {
        let count: Option<i32> = self
            .database
            .within(async |connection| {
                sqlx::query_scalar(
                    r#"
                    update users
                    set
                        quiet_count = case
                            when quiet_minute = date_trunc('minute', now()) then quiet_count + 1
                            else 1
                        end,
                        quiet_minute = date_trunc('minute', now())
                    where user_id = $1
                    returning quiet_count
                    "#,
                )
                .bind(user)
                .fetch_optional(connection)
                .await
            })
            .await?;
        // Whoever has no row was never notified: the message is none of ours.
        Ok(count.unwrap_or(0))
    }

    // ANCHOR: collapse
    /// Lets a job be one of those that the summary of this minute stands for; makes the summary, if it is
    /// the first, due when the minute is over. The summary is returned as long as it waits.
    ///
    /// Nothing happens if the job has been dealt with, or is being tried.
    pub async fn collapse(&self, job_id: &str) -> Result<Option<(Message, f64)>, Error> {
        let row: Option<(String, UserId, i32, f64)> = self
            .database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    with collapsed as (
                        update notifications
                        set status = 'delivered', confirmed = true, due_at = now()
                        where job_id = $1
                            and status = 'queued'
                            and attempts = 0
                        returning user_id, channel
                    ),
                    numbered as (
                        update users
                        set last_seq = last_seq + 1
                        from collapsed
                        where users.user_id = collapsed.user_id
                        returning users.user_id, last_seq, channel, date_trunc('minute', now()) as minute
                    )
                    insert into notifications
                        (job_id, user_id, seq, channel, priority, title, body, due_at, collapsed)
                    select
                        'quiet:' || user_id || ':' || channel || ':' || extract(epoch from minute)::bigint,
                        user_id,
                        last_seq,
                        channel,
                        'high',
                        '1 more notification',
                        'You were sent many within a minute.',
                        minute + interval '1 minute',
                        1
                    from numbered
                    on conflict (job_id) do update
                    set
                        collapsed = notifications.collapsed + 1,
                        title = (notifications.collapsed + 1) || ' more notifications'
                    returning
                        job_id,
                        user_id,
                        generation,
                        greatest(extract(epoch from due_at - now()), 0)::float8
                    "#,
                )
                .bind(job_id)
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(|(job_id, user_id, generation, due_in)| {
            (Message { job_id, user_id, generation }, due_in)
        }))
    }
    // ANCHOR_END: collapse
}
