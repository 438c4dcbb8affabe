//! How does a database get the newest schema? By sqlx's migrations, in one transaction.
//!
//! One transaction, because a pooler may run each transaction in another session: sqlx's own lock and its prepared
//! statements would stay in a session that others use.

use anyhow::{Context, anyhow};
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};

/// Brings a database to the newest schema. If a reader has changed an old migration, the error says what to do.
pub async fn migrate(url: &str, migrations: &Migrator) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(
        r#"
        set local client_min_messages = warning; -- no notice about a table that already exists
        deallocate all; -- behind a pooler, others may have left statements of the same names in this session
        select pg_advisory_xact_lock(hashtextextended('worked-answers migrate', 0));
        "#,
    )
    .execute(&mut *transaction)
    .await?;
    let mut unlocked = Migrator::with_migrations(migrations.iter().cloned().collect());
    unlocked.set_locking(false);
    // `run` calls this too, but the compiler cannot prove that the future of `run` is `Send`.
    let outcome = unlocked.run_direct(None, &mut *transaction, false).await;
    match outcome {
        Ok(()) => {
            transaction.clear_cached_statements().await?;
            transaction.commit().await?;
            Ok(connection.close().await?)
        }
        Err(MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version)) => {
            Err(anyhow!(
                "migration {version} was changed after this database had been made with it. Either \
                 undo the change and add a new migration, or start again with `serve --reset`, which \
                 deletes what the database holds"
            ))
        }
        Err(error) => Err(error).context("cannot migrate the database"),
    }
}
