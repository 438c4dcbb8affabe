// caught by: eventual
    /// The replica, if it has got as far as what the client has written.
    async fn reader(&self, after: Option<&str>) -> Option<&Database<Error>> {
        let replica = self.replica.as_ref()?;
        let Some(after) = after else { return Some(replica) };
        let is_there = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        let is_there = sqlx::query_scalar::<_, Option<bool>>(is_there).bind(after);
        let is_there = replica.within(async |it| is_there.fetch_one(it).await).await;
        matches!(is_there, Ok(Some(true))).then_some(replica)
    }

    /// Where the log is.
    pub async fn position(&self) -> Result<Option<String>> {
        let Some(replica) = &self.replica else { return Ok(None) };
        // The mistake: it asks the replica, which has not heard of the write yet, and so has always got that far.
        let select = sqlx::query_scalar("select pg_last_wal_replay_lsn()::text");
        replica.within(async |it| select.fetch_one(it).await).await.map(Some)
    }
