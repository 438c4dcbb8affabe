// caught by: deliver::
/// Asks until the server behind it answers, or we stop.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<T, Error> {
    let mut wait = WAITS[0];
    loop {
        // The mistake: every error is asked again. One row that no statement can change holds up its lane for ever.
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                    return Err(error);
                }
                wait = (wait * 2).min(WAITS[1]);
            }
        }
    }
}
