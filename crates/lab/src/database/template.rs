//! How does a test get a database in milliseconds? It takes a copy of a migrated template, usually one that was made in
//! advance.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

use anyhow::bail;
use sqlx::migrate::Migrator;

use super::{
    admin::{Admin, Comment, NO_SUCH_DATABASE, code},
    make::{claim, make},
    mark::{Kind, Mark, kind_of, random_name, template_name},
};
use crate::claim::fingerprint;

/// How many spare copies are made in advance. Copying a template takes 0.1 s; renaming a spare takes milliseconds.
const SPARES: usize = 4;

/// The database that is copied.
#[derive(Clone, Debug)]
pub(super) struct Template {
    of: String,
    schema: String,
}

impl Template {
    /// The template of this answer with exactly these migrations, for our role: a role may not copy another role's
    /// template.
    pub(super) fn of(admin: &Admin, of: &str, migrations: &Migrator) -> Self {
        let migrations: Vec<_> = migrations.iter().map(|it| &it.checksum).collect();
        let schema = fingerprint(&(of, migrations, &admin.role));
        Self { of: of.to_owned(), schema }
    }

    /// Makes a database of this name: renames a spare copy, or else copies the template.
    pub(super) async fn copy_to(
        &self,
        admin: &mut Admin,
        server: &str,
        name: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<()> {
        let marked = admin.marked().await?;
        for (old, _) in marked.iter().filter(|it| self.is_outdated(it)) {
            admin.drop_or_warn(old).await;
        }
        let mark = self.mark(admin, Kind::Fresh);
        for (spare, _) in marked.iter().filter(|it| self.is_spare(it)) {
            // Fails if another process has just taken it.
            if admin.rename(spare, name, &mark).await.is_ok() {
                return Ok(());
            }
        }
        self.copy(admin, server, name, migrations).await?;
        admin.mark(name, &mark).await
    }

    async fn copy(
        &self,
        admin: &mut Admin,
        server: &str,
        name: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<()> {
        let template = template_name(&self.schema);
        let mut attempts = 0;
        loop {
            match admin.comment(&template).await? {
                Some(Comment::Ours(_)) => {}
                Some(_) => bail!("the database {template} was not made here; rename it"),
                None => {
                    let mark = self.mark(admin, Kind::Template);
                    make(admin, server, &template, &mark, Some(migrations)).await?;
                }
            }
            let copied = admin.create(name, Some(&template)).await;
            attempts += 1;
            match copied {
                // Another process has just dropped the template, because it was older than a day.
                Err(error) if attempts < 3 && is_gone(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn mark(&self, admin: &Admin, kind: Kind) -> Mark {
        let schema = (kind != Kind::Fresh).then(|| self.schema.clone());
        Mark { kind, of: self.of.clone(), made: admin.now, schema }
    }

    /// Whether this is a spare copy of this template.
    fn is_spare(&self, (name, mark): &(String, Mark)) -> bool {
        kind_of(name) == Some(Kind::Spare) && mark.schema.as_ref() == Some(&self.schema)
    }

    /// Whether this is a template or a spare copy with an older schema of this answer.
    fn is_outdated(&self, (name, mark): &(String, Mark)) -> bool {
        matches!(kind_of(name), Some(Kind::Spare | Kind::Template))
            && mark.of == self.of
            && mark.schema.as_ref() != Some(&self.schema)
    }

    /// Makes spare copies for the next tests, on a thread that nobody waits for. If the process ends meanwhile, the
    /// next process drops an incomplete copy.
    pub(super) fn make_spares(self, server: String) {
        /// One thread for each schema is enough.
        static MAKING: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
        let making = || MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if !making().insert(self.schema.clone()) {
            return;
        }
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            if let Err(error) = runtime.block_on(self.top_up(&server)) {
                tracing::debug!(%error, "cannot make a spare copy");
            }
            making().remove(&self.schema);
            anyhow::Ok(())
        });
    }

    async fn top_up(&self, server: &str) -> anyhow::Result<()> {
        let mut admin = Admin::connect(server).await?;
        while admin.marked().await?.iter().filter(|it| self.is_spare(it)).count() < SPARES {
            let spare = random_name(Kind::Spare);
            let claim = claim(server, &spare)?;
            admin.create(&spare, Some(&template_name(&self.schema))).await?;
            let mark = self.mark(&admin, Kind::Spare);
            admin.mark(&spare, &mark).await?;
            claim.release();
        }
        admin.close().await
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref().and_then(code) == Some(NO_SUCH_DATABASE)
}
