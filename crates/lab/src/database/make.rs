//! How does a database bear our mark from its first moment on? It gets its name and its mark last, at once.
//!
//! PostgreSQL creates and comments in two statements, and whoever dies in between leaves a database that nobody
//! can prove to be ours. So it is made under a random name, which is written down before (see
//! [`claim`](crate::claim)), and renamed when all is done.

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

/// Makes a database of this name, unless somebody else is faster. A template is migrated, and nobody can connect
/// to it: PostgreSQL copies only what nobody uses.
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
