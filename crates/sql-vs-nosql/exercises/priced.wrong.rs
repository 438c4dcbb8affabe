// caught by: order::
impl Request {
    /// The order, if the customer can pay for it and all of it is there.
    pub fn priced(
        &self,
        customer: Option<&Fields>,
        products: &BTreeMap<String, Fields>,
    ) -> Result<Order> {
        let number = |fields: &Fields, name: &str| fields[name].as_i64().unwrap_or_default();
        let customer = customer.ok_or_else(|| Error::invalid("customer", "is no customer"))?;
        let mut lines = Vec::new();
        for (product, &quantity) in &self.lines {
            let Some(found) = products.get(product) else {
                return Err(Error::invalid("lines", format!("there is no product {product}")));
            };
            if number(found, "stock") < quantity {
                return Err(Error::OUT_OF_STOCK);
            }
            let price_cents = number(found, "price_cents");
            // The mistake: each line is compared with the whole balance, and two of them can be more than that.
            if quantity * price_cents > number(customer, "balance_cents") {
                return Err(Error::NO_MONEY);
            }
            let name = found["name"].as_str().unwrap_or_default().to_owned();
            lines.push(Line { product: product.clone(), name, quantity, price_cents });
        }
        let total_cents = lines.iter().map(|line| line.quantity * line.price_cents).sum();
        let ordered_at = OffsetDateTime::now_utc();
        let (id, customer) = (Uuid::now_v7().to_string(), self.customer.clone());
        Ok(Order { id, customer, ordered_at, total_cents, lines })
    }
}
