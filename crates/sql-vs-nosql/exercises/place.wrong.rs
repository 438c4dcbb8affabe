// caught by: money
    /// One transaction, in tables as in documents.
    pub async fn place(&self, request: &Request) -> Result<Order> {
        let order = self
            .transaction(async |tx| {
                let customer = self.lock(tx, Kind::Customer, &request.customer).await?;
                let mut products = BTreeMap::new();
                for id in request.lines.keys() {
                    let product = self.lock(tx, Kind::Product, id).await?;
                    products.extend(product.map(|fields| (id.clone(), fields)));
                }
                let order = request.priced(customer.as_ref(), &products)?;
                let pay = sqlx::query(self.sql.add[Kind::Customer as usize]);
                let pay = pay.bind(&order.customer).bind(-order.total_cents);
                pay.execute(&mut *tx).await?;
                sqlx::query(self.sql.keep_order).bind(Json(&order)).execute(tx).await?;
                Ok(order)
            })
            .await?;
        // The mistake: the stock is taken when the locks are gone, and a crash in between takes none.
        for (product, quantity) in &request.lines {
            self.add(Kind::Product, product, -quantity).await?;
        }
        Ok(order)
    }
