//! How far has a transaction come? PostgreSQL knows the last statement that it had from each connection.

use sqlx::PgConnection;

/// The server's URL for a process that PostgreSQL shall know by this name.
pub fn named(url: &str, name: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(url)?;
    url.query_pairs_mut().append_pair("application_name", name);
    Ok(url.into())
}

/// An open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// The last statement that PostgreSQL had from it.
    pub step: &'static str,
    /// Whether that has been done, and PostgreSQL waits for the next.
    pub done: bool,
}

/// The money is moved, and not yet committed.
pub const HALF_WAY: Open = Open { step: "move the money", done: true };

/// The open transactions of the process of this name. To be asked while it is stopped, so that nothing moves.
pub async fn open_transactions(
    connection: &mut PgConnection,
    name: &str,
) -> anyhow::Result<Vec<Open>> {
    let query = sqlx::query_as(
        r#"
        select query, state = 'idle in transaction'
        from pg_stat_activity
        where
            application_name = $1
            and state <> 'idle'
            -- Another run on this server may have given the same name.
            and datname = current_database()
        "#,
    );
    let open: Vec<(String, bool)> = query.bind(name).fetch_all(connection).await?;
    Ok(open.iter().map(|(query, done)| Open { step: last_step(query), done: *done }).collect())
}

/// The steps of a transfer, in their order.
pub const STEPS: [&str; 6] =
    ["begin", "claim the key", "lock the accounts", "move the money", "commit", "answer again"];

fn last_step(statement: &str) -> &'static str {
    let words =
        ["begin", "insert into idempotency_keys", "for no key update", "with debit as", "commit"];
    let step = words.iter().position(|words| statement.contains(words));
    STEPS[step.unwrap_or(STEPS.len() - 1)]
}
