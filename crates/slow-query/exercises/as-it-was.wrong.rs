// caught by: index
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
        if let Some(statements) = &remedy.statements {
            // The mistake: it is applied outside of the transaction, so the dry run is none.
            execute(&mut *connection, &statements.apply).await?;
        }
        let mut tx = connection.begin().await?;
        let sql = remedy.rewrite.as_ref().unwrap_or(&patient.sql);
        let after = self.examine(&mut tx, patient, sql, remedy.settings.as_deref()).await?;
        if before.plan.is_none() || after.plan.is_none() {
            return Err(Error::BUSY);
        }
        if dry_run { tx.rollback().await } else { tx.commit().await }?;
        Ok((before, after))
    }
