// caught by: retry::
/// Runs `attempt` until it succeeds.
pub async fn retry<T, A>(mut attempt: impl FnMut() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    for failures in 0..RETRIES {
        match attempt().await {
            // The mistake: a database that is away may have committed, and the money would be paid twice.
            Err(Error::Contended | Error::DatabaseAway) => {
                let random = getrandom::u32().map_err(Error::internal)?;
                tokio::time::sleep(pause(failures, random)).await;
            }
            answer => return answer,
        }
    }
    attempt().await
}

/// Full jitter: anything from nothing to a bound that doubles. Two that wait equally long would meet again.
fn pause(failures: u32, random: u32) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
