// caught by: refresh-reuse
    /// Puts the next token in the place of the presented one, if that may be. `None`: there is no such token.
    pub async fn refresh(
        &self,
        presented: Hash,
        next: Hash,
        [life, grace]: [Duration; 2],
    ) -> Result<Option<(Verdict, Found)>> {
        let refresh = async |connection: &mut PgConnection| {
            let mut transaction = sqlx::Connection::begin(connection).await?;
            let locked = sqlx::query_as(LOCK_SESSION).bind(presented);
            let Some(found): Option<Found> = locked.fetch_optional(&mut *transaction).await? else {
                transaction.rollback().await?;
                return Ok(None);
            };
            let verdict = found.presented.verdict(grace);
            match verdict {
                Verdict::Advance => {
                    let advance = sqlx::query(ADVANCE).bind(found.session).bind(life.as_secs_f64());
                    advance.execute(&mut *transaction).await?;
                    add_token(&mut transaction, found.session, next).await?;
                }
                Verdict::Join => add_token(&mut transaction, found.session, next).await?,
                Verdict::Reuse => {
                    sqlx::query(REVOKE).bind(found.session).execute(&mut *transaction).await?;
                }
                Verdict::Revoked | Verdict::Expired => {}
            }
            // The mistake: a refusal rolls back, and the revocation with it.
            if matches!(verdict, Verdict::Advance | Verdict::Join) {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(Some((verdict, found)))
        };
        self.database.within(refresh).await
    }
