//! How does everyone get a database in milliseconds? It is a copy of a migrated template, mostly one that was
//! made ahead.

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

/// How many copies are made ahead. Copying takes 0.1 s, taking a copy takes milliseconds.
const SPARES: usize = 4;

/// What is copied.
#[derive(Clone, Debug)]
pub(super) struct Template {
    of: String,
    schema: String,
}

impl Template {
    /// The template of this answer with exactly these migrations, for our role: nobody may copy another's.
    pub(super) async fn of(
        admin: &mut Admin,
        of: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Self> {
        let migrations: Vec<_> = migrations.iter().map(|it| &it.checksum).collect();
        let schema = fingerprint(&(of, migrations, admin.role().await?));
        Ok(Self { of: of.to_owned(), schema })
    }

    /// Makes a database of this name from a copy that was made ahead, or else by copying.
    pub(super) async fn copy_to(
        &self,
        admin: &mut Admin,
        server: &str,
        name: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<()> {
        if !self.take_spare(admin, name).await? {
            self.copy(admin, server, name, migrations).await?;
        }
        let mark = self.mark(admin, Kind::Fresh).await?;
        admin.mark(name, &mark).await
    }

    async fn take_spare(&self, admin: &mut Admin, name: &str) -> anyhow::Result<bool> {
        for spare in self.spares(admin).await? {
            // Fails if another process has just taken it.
            if admin.rename(&spare, name).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
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
                    let mark = self.mark(admin, Kind::Template).await?;
                    make(admin, server, &template, &mark, migrations).await?;
                }
            }
            let copied = admin.create(name, Some(&template)).await;
            attempts += 1;
            match copied {
                // Another process has just dropped it, because it was a day old.
                Err(error) if attempts < 3 && is_gone(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn mark(&self, admin: &mut Admin, kind: Kind) -> anyhow::Result<Mark> {
        let schema = (kind != Kind::Fresh).then(|| self.schema.clone());
        Ok(Mark { kind, of: self.of.clone(), made: admin.now().await?, schema })
    }

    async fn spares(&self, admin: &mut Admin) -> anyhow::Result<Vec<String>> {
        let marked = admin.marked().await?.into_iter();
        // One that was just taken has a fresh name already, and still the mark of a spare.
        let spare = |(name, mark): &(String, Mark)| {
            kind_of(name) == Some(Kind::Spare) && mark.schema.as_ref() == Some(&self.schema)
        };
        Ok(marked.filter(spare).map(|(name, _)| name).collect())
    }

    /// Makes copies for those who come next, on a thread that nobody waits for. If the process ends meanwhile,
    /// the next one drops what is half made.
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
                tracing::debug!(%error, "no copy was made ahead");
            }
            making().remove(&self.schema);
            anyhow::Ok(())
        });
    }

    async fn top_up(&self, server: &str) -> anyhow::Result<()> {
        let mut admin = Admin::connect(server).await?;
        self.drop_outdated(&mut admin).await?;
        while self.spares(&mut admin).await?.len() < SPARES {
            let spare = random_name(Kind::Spare);
            let claim = claim(server, &spare)?;
            admin.create(&spare, Some(&template_name(&self.schema))).await?;
            let mark = self.mark(&mut admin, Kind::Spare).await?;
            admin.mark(&spare, &mark).await?;
            claim.release();
        }
        admin.close().await
    }

    /// Drops templates and copies with a schema that this answer had once.
    async fn drop_outdated(&self, admin: &mut Admin) -> anyhow::Result<()> {
        for (name, mark) in admin.marked().await? {
            let copied = matches!(kind_of(&name), Some(Kind::Spare | Kind::Template));
            if copied && mark.of == self.of && mark.schema.as_ref() != Some(&self.schema) {
                admin.drop(&name).await?;
            }
        }
        Ok(())
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref().and_then(code) == Some(NO_SUCH_DATABASE)
}
