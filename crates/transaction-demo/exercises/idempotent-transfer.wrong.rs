// caught by: idempotency
impl Work for Payment<'_> {
    /// Both are answers, and both are committed.
    type Answer = Result<Transfer, Refusal>;

    /// Between `begin` and `commit`, perhaps more than once. An error at any point, or a crash, undoes all of
    /// it, the claim to the key too.
    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, Error> {
        let &Order { from, to, amount } = self.order;
        let Some(id) = store::claim_key(connection, &self.claim).await? else {
            return self.answer_again(connection).await;
        };
        let balances = store::lock_accounts(connection, from, to).await?;
        if let Some(refusal) = self.order.refusal(&balances) {
            store::refuse_key(connection, &self.claim, refusal).await?;
            // The mistake: an error rolls back, and that the key was refused is forgotten.
            return Err(refusal.into());
        }
        Ok(Ok(store::move_money(connection, id, (from, to), amount).await?))
    }
}

impl Payment<'_> {
    /// The key was used before, perhaps a moment ago: what was the answer?
    async fn answer_again(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Result<Transfer, Refusal>, Error> {
        let used = store::used_key(connection, &self.claim).await?;
        if let Some(refusal) = used.refusal {
            return Ok(Err(refusal));
        }
        let transfer = store::find_transfer(connection, used.number).await?;
        Ok(Ok(transfer.ok_or(Error::NotFound)?))
    }
}
