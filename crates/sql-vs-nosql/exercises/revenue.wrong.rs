// caught by: later-question
    /// All orders are read, and their customers.
    pub async fn revenue(&self, by: By) -> Result<Vec<Revenue>> {
        if by.snapshot {
            return Err(Error::NO_SNAPSHOT);
        }
        let (mut sums, mut countries) = (BTreeMap::<_, (i64, i64)>::new(), HashMap::new());
        // The mistake: there are more orders than one page holds, and the others are never read.
        for order in self.page(&self.key("index", "orders"), -1_000, 1_000).await? {
            if by.country && !countries.contains_key(&order.customer) {
                let (customer, _) = self.get(Kind::Customer, &order.customer, None).await?;
                let country = customer["country"].as_str().unwrap_or_default().to_owned();
                countries.insert(order.customer.clone(), country);
            }
            let country = countries.get(&order.customer).cloned();
            let (year, month) = (order.ordered_at.year(), u8::from(order.ordered_at.month()));
            let month = by.month.then(|| format!("{year:04}-{month:02}"));
            let (orders, cents) = sums.entry((country, month)).or_default();
            (*orders, *cents) = (*orders + 1, *cents + order.total_cents);
        }
        let row = |((country, month), (orders, cents))| Revenue { country, month, orders, cents };
        Ok(sums.into_iter().map(row).collect())
    }
