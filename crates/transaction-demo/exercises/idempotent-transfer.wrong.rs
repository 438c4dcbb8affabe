// caught by: idempotency
impl Work for Payment<'_> {
    type Answer = Decision;

    /// Between `begin` and `commit`, perhaps more than once. An error at any point, or a crash, undoes all of
    /// it, the claim to the key too.
    async fn run(&self, connection: &mut PgConnection) -> Result<Decision, Error> {
        let &Order { from, to, amount } = self.order;
        let fingerprint = self.order.fingerprint();
        let Some(id) = store::claim_key(connection, self.key, &fingerprint).await? else {
            return self.answer_again(connection).await;
        };
        let accounts = store::lock_accounts(connection, from, to).await?;
        let balance =
            |account| accounts.iter().find(|(id, _)| *id == account).map(|(_, cents)| *cents);
        let from_balance = balance(from).ok_or_else(|| unknown("from"))?;
        balance(to).ok_or_else(|| unknown("to"))?;
        if from_balance < amount.get() {
            store::refuse_key(connection, self.key).await?;
            // The mistake: an error rolls back, and that the key was refused is forgotten.
            return Err(Error::InsufficientFunds);
        }
        store::debit(connection, from, amount).await?;
        store::credit(connection, to, amount).await?;
        Ok(Decision::Paid(store::write_transfer(connection, id, (from, to), amount).await?))
    }
}

impl Payment<'_> {
    /// The key was used before, perhaps a moment ago: what was the answer?
    async fn answer_again(&self, connection: &mut PgConnection) -> Result<Decision, Error> {
        let used = store::used_key(connection, self.key).await?;
        if used.fingerprint != self.order.fingerprint().bytes() {
            return Err(Error::KeyReused);
        }
        if used.refused {
            return Ok(Decision::Refused);
        }
        let transfer = store::find_transfer(connection, used.transfer_id).await?;
        Ok(Decision::Paid(transfer.ok_or(Error::NotFound)?))
    }
}
