// caught by: blocking
    /// The price after all rules.
    pub async fn price(&self, product: &Product) -> Result<i64> {
        let (cents, id, rules) = (product.cents, product.id, self.rules);
        match self.threads {
            Threads::Inline => Ok(quote(cents, id, rules)),
            Threads::Blocking => on_another_thread(move || quote(cents, id, rules)).await,
            Threads::Pool => {
                // The mistake: a task is not a thread. It computes within a poll, on one of those that answer requests.
                let work = tokio::spawn(async move { quote(cents, id, rules) });
                work.await.map_err(|error| Error::Internal(Arc::new(error)))
            }
        }
    }
