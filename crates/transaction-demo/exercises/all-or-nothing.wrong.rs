// caught by: lost-update
/// Tries the work once.
pub async fn attempt<W: Work>(
    connection: &mut PgConnection,
    isolation: Isolation,
    work: &W,
) -> Result<Result<W::Answer, Error>, Error> {
    connection.execute(isolation.begin()).await?;
    match work.run(connection).await {
        Ok(answer) => match connection.execute("commit").await.map_err(Error::from) {
            Ok(_) => Ok(Ok(answer)),
            Err(Error::Contended) => Ok(Err(Error::Contended)),
            Err(error) => Err(error),
        },
        // The mistake: what has failed is over, or so one thinks. The transaction is still open, and holds its locks.
        Err(error) => Ok(Err(error)),
    }
}
