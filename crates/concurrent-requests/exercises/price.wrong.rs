// caught by: blocking
    /// The price after all rules.
    pub async fn price(&self, product: &Product) -> Result<i64> {
        let (cents, id, rules) = (product.cents, product.id, self.rules);
        match self.threads {
            Threads::Inline => Ok(quote(cents, id, rules)),
            Threads::Blocking => on_another_thread(move || quote(cents, id, rules)).await,
            Threads::Pool => {
                // The mistake: an async function is not another thread. It computes within a poll, on this one.
                let _core = self.cores.acquire().await;
                async move { Ok(quote(cents, id, rules)) }.await
            }
        }
    }
