// caught by: sale-day
    /// Takes the stock and makes the order, or does nothing. For a key that came before, the order of then.
    pub async fn buy(&self, new: &NewOrder) -> Result<Order> {
        match self.order_of(&new.key).await? {
            Some(it) if (it.product, it.quantity) == (new.product, new.quantity) => return Ok(it),
            Some(_) => return Err(Error::KEY_REUSED),
            None => {}
        }
        // The mistake: it is looked at here and taken there, and in between others do the same.
        if self.find(new.product).await?.stock < new.quantity {
            return Err(Error::SOLD_OUT);
        }
        self.take(new).await?.ok_or(Error::SOLD_OUT)
    }

    /// A new order.
    async fn take(&self, new: &NewOrder) -> Result<Option<Order>> {
        let take = query_as(
            r#"
            with taken as (
                update products
                set stock = stock - $3
                where id = $2
                returning id
            )
            insert into orders (id, key, product, quantity)
            select $1, $4, id, $3
            from taken
            returning id, product, quantity, created_at
            "#,
        );
        let take = take.bind(Uuid::now_v7()).bind(new.product).bind(new.quantity).bind(&new.key);
        let order = self.database.lend(async |it| match take.fetch_optional(it).await {
            Err(error) if is_repeated(&error) => Ok(None),
            order => Ok(order?),
        });
        order.await
    }
