//! What does a two-phase commit say to its databases?

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

// ANCHOR: two_phase_sql
/// The vote: from here on this database can neither refuse nor forget, and keeps every lock until it hears how the
/// others voted.
pub async fn prepare(connection: &mut PgConnection, id: Uuid, part: &str) -> sqlx::Result<()> {
    run(connection, format!("prepare transaction '{id}.{part}'")).await
}

/// The verdict.
pub async fn commit(connection: &mut PgConnection, id: Uuid, part: &str) -> sqlx::Result<()> {
    run(connection, format!("commit prepared '{id}.{part}'")).await
}
// ANCHOR_END: two_phase_sql

/// Begins a transaction by hand, since `prepare transaction` ends it in a way that sqlx does not know.
pub async fn begin(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, "begin".to_owned()).await
}

/// Ends it as if it had never been.
pub async fn roll_back(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, "rollback".to_owned()).await
}

/// Nothing in these statements can be bound. They are made of a UUID and of names of ours.
async fn run(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
