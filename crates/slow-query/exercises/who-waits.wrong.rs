// caught by: waiting
    /// Waits for a query of session `pid`, and looks from another session what it waits for.
    async fn watched<T>(&self, pid: i32, query: impl Future<Output = T>) -> (T, Waits) {
        let (query, mut waits) = (pin!(query), Waits::default());
        let mut looks = interval(PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The mistake: it looks when the query is done. By then it waits for nothing.
        let done = query.await;
        for _ in 0..3 {
            looks.tick().await;
            let blocker = sqlx::query_as::<_, Blocker>(include_str!("waits.sql")).bind(pid);
            let seen: Result<_> = self.database.within(async |it| blocker.fetch_optional(it).await).await;
            if let Ok(seen) = seen {
                waits.note(seen);
            }
        }
        (done, waits)
    }
