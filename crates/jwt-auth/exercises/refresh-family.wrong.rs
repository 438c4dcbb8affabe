// caught by: refresh-reuse
    /// Puts the new token in the place of the presented one, if that may be.
    pub async fn refresh(
        &self,
        presented: [u8; 32],
        token: NewToken,
        grace: Duration,
    ) -> Result<Refreshed, Error> {
        self.database
            .within(async |connection| {
                let mut transaction = connection.begin().await?;
                let Some(found) = lock_family(&mut transaction, presented).await? else {
                    transaction.rollback().await?;
                    return Ok(Refreshed::Refused);
                };
                let Found { account, family, presented } = found;
                let outcome = match presented.verdict(grace) {
                    Verdict::Advance => {
                        advance(&mut transaction, family, token.life).await?;
                        let generation = presented.current + 1;
                        insert_token(&mut transaction, family, generation, token).await?;
                        Refreshed::Done { account, family }
                    }
                    Verdict::Join => {
                        insert_token(&mut transaction, family, presented.current, token).await?;
                        Refreshed::Done { account, family }
                    }
                    Verdict::Reuse => Refreshed::Reused(revoke(&mut transaction, &[family]).await?),
                    Verdict::Revoked => {
                        Refreshed::Revoked(revoke(&mut transaction, &[family]).await?)
                    }
                    Verdict::Expired => Refreshed::Refused,
                };
                // The mistake: a refusal rolls back, and the revocation with it.
                if matches!(outcome, Refreshed::Done { .. }) {
                    transaction.commit().await?;
                } else {
                    transaction.rollback().await?;
                }
                Ok(outcome)
            })
            .await
    }
