// caught by: building
    /// Builds the index while others read and write. What an earlier build of this name has left is taken away first, and
    /// also what this one leaves if it fails: an invalid index serves no query, and costs every write.
    pub async fn build(&self, name: &Name, index: &Index) -> sqlx::Result<()> {
        let mut alone = self.alone().await?;
        if matches!(index.kind, Kind::Trigram | Kind::Gist) {
            sqlx::query("create extension if not exists pg_trgm").execute(&mut alone).await?;
        }
        // The mistake: it cleans up after itself only. If it is killed, nobody does, and the name is taken for ever.
        let create = AssertSqlSafe(index.statement("concurrently", name));
        let built = sqlx::query(create).execute(&mut alone).await;
        if built.is_err() {
            drop(alone);
            if let Ok(mut alone) = self.alone().await {
                let _ = drop_invalid(&mut alone, name).await;
            }
        }
        built.map(drop)
    }
