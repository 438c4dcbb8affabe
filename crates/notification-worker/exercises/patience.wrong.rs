// caught by: deliver::
/// Asks until the server behind it answers.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut wait = WAITS[0];
    loop {
        // The mistake: every error is asked again. One row that no statement can change holds up its lane for ever.
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(_) => {
                sleep(wait).await;
                wait = (wait * 2).min(WAITS[1]);
            }
        }
    }
}
