//! What does a remedy do? It is applied in a transaction, so it is there as a whole or not at all, however this process ends.

use sqlx::Connection;

use super::{Session, Store, execute};
use crate::error::{Error, Result};
use crate::patient::{Patient, Remedy};
use crate::treatment::Examination;

impl Store {
    /// A connection that keeps other remedies out until it is dropped. A remedy that came between two runs would be in one of
    /// them and not in the other.
    async fn alone(&self) -> Result<Session<'_>> {
        let mut session = self.session().await?;
        let alone = "set lock_timeout = '20s'; select pg_advisory_lock(hashtext('remedies')); set lock_timeout = '2s'";
        execute(&mut session.connection, alone).await?;
        Ok(session)
    }

    // ANCHOR: treat
    /// Runs the patient's query, applies the remedy, and runs it again; with `dry_run` nothing of it stays but
    /// the row counts in `pg_class`, which ANALYZE and CREATE INDEX write at once. All of this is in the answer's own database.
    pub async fn treat(
        &self,
        patient: &Patient,
        remedy: &Remedy,
        dry_run: bool,
    ) -> Result<(Examination, Examination)> {
        let mut session = self.alone().await?;
        let connection = &mut session.connection;
        let before = self.examined(&mut *connection, patient).await?;
        let mut tx = connection.begin().await?;
        if let Some(statements) = &remedy.statements {
            if !dry_run {
                // Partitions replace the table: what other remedies have made would stay with the old one, or go with the new one.
                let moved = "select exists (select from treatments where 'partitions' in (remedy, $1) and remedy <> 'analyze')";
                let moved = sqlx::query_scalar(moved).bind(&remedy.name);
                if moved.fetch_one(&mut *tx).await? {
                    return Err(Error::APPLIED);
                }
                // The primary key refuses the same remedy a second time.
                let note = "insert into treatments (patient, remedy) values ($1, $2)";
                let note = sqlx::query(note).bind(&patient.name).bind(&remedy.name);
                note.execute(&mut *tx).await?;
            }
            execute(&mut tx, &statements.apply).await?;
        }
        let sql = remedy.rewrite.as_ref().unwrap_or(&patient.sql);
        let after = self.examine(&mut tx, patient, sql, remedy.settings.as_deref()).await?;
        if before.plan.is_none() || after.plan.is_none() {
            return Err(Error::BUSY);
        }
        if dry_run { tx.rollback().await } else { tx.commit().await }?;
        Ok((before, after))
    }
    // ANCHOR_END: treat

    /// Takes a remedy back.
    pub async fn undo(&self, patient: &Patient, remedy: &Remedy) -> Result<()> {
        let mut session = self.alone().await?;
        let mut tx = session.connection.begin().await?;
        let forget = "delete from treatments where patient = $1 and remedy = $2";
        let forget = sqlx::query(forget).bind(&patient.name).bind(&remedy.name);
        if forget.execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(Error::NOT_FOUND);
        }
        let undo = remedy.statements.as_ref().and_then(|statements| statements.undo.as_ref());
        execute(&mut tx, undo.ok_or(Error::NO_WAY_BACK)?).await?;
        Ok(tx.commit().await?)
    }

    /// The remedies of this patient that are in effect.
    pub async fn in_effect(&self, patient: &Patient) -> Result<Vec<String>> {
        let names = "select remedy from treatments where patient = $1 order by remedy";
        let names = sqlx::query_scalar(names).bind(&patient.name);
        self.database.within(async |it| names.fetch_all(it).await).await
    }
}
