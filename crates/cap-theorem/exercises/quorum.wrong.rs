// caught by: per-operation
    /// Asks all nodes at once, and returns when enough have answered.
    async fn ask(&self, slot: &Slot, level: Level) -> Result<Gathered> {
        let own = (self.replica.node, self.replica.get(slot));
        let late = self.peers.exchange(self.others(), slot, None);
        self.gather(vec![own], late, level).await
    }

    /// Sends all other nodes this record, which this one has, and returns how many have it when enough do.
    async fn tell(&self, slot: &Slot, record: &Record, level: Level) -> Result<usize> {
        let own = (self.replica.node, record.clone());
        let late = self.peers.exchange(self.others(), slot, Some(record));
        let gathered = self.gather(vec![own], late, level).await?;
        let acknowledged = gathered.answers.len();
        self.finish(gathered);
        Ok(acknowledged)
    }

    async fn gather(
        &self,
        mut answers: Vec<(Node, Record)>,
        mut late: JoinSet<Option<(Node, Record)>>,
        level: Level,
    ) -> Result<Gathered> {
        // The mistake: a call that has ended counts, whether it was answered or not.
        let mut ended = answers.len();
        while ended < level.of(self.nodes()) {
            answers.extend(late.join_next().await.and_then(|it| it.ok().flatten()));
            ended += 1;
        }
        Ok(Gathered { answers, late })
    }
