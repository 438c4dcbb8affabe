//! How is it ensured that a database with our name always has our mark? It gets both last, in one transaction.
//!
//! PostgreSQL creates and comments in two statements. If the process died in between, nothing would show that the
//! database is ours. So we make it under a random name, which we write down first (see [`claim`](crate::claim)), and
//! rename it when all else is done.

use sqlx::migrate::Migrator;

use super::{
    admin::{Admin, is_taken, with_database},
    mark::{Kind, Mark, random_name},
    migrate::migrate,
};
use crate::{Service, claim::Claim};

/// Writes down that a database of this name is about to be made.
pub(super) fn claim(server: &str, name: &str) -> anyhow::Result<Claim> {
    Claim::stake(Service::Postgres, server, &name)
}

/// Makes a database of this name, unless another process is faster. With `template` it becomes a template: it is
/// migrated, and nobody can connect to it, since PostgreSQL copies a database only while nobody is connected.
pub(super) async fn make(
    admin: &mut Admin,
    server: &str,
    name: &str,
    mark: &Mark,
    template: Option<&Migrator>,
) -> anyhow::Result<()> {
    let draft = random_name(Kind::Fresh);
    let claim = claim(server, &draft)?;
    admin.create(&draft, None).await?;
    if let Some(migrations) = template {
        migrate(&with_database(server, &draft)?, migrations).await?;
        admin.seal(&draft).await?;
    }
    match admin.rename(&draft, name, mark).await {
        Err(error) if is_taken(&error) => admin.drop(&draft).await?,
        outcome => outcome?,
    }
    claim.release();
    Ok(())
}
