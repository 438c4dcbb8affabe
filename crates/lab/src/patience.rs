//! What does a client do that is told "not now"? It comes back when it was told to. A busy machine gives such
//! answers too, and they are no finding; an experiment that is about them asks once.

use std::time::Duration;

use reqwest::{Response, StatusCode, header::RETRY_AFTER};
use tokio::time::{Instant, sleep};

/// After so long the answer stays what it is.
const LONGEST: Duration = Duration::from_secs(20);

/// Asks again while the answer is 503, after as many seconds as `Retry-After` says: the last answer, and how
/// often it was sent away. What a request did that was sent away, nobody knows.
pub async fn patiently<W>(ask: impl Fn() -> W) -> reqwest::Result<(Response, u32)>
where
    W: Future<Output = reqwest::Result<Response>>,
{
    let deadline = Instant::now() + LONGEST;
    let mut sent_away = 0;
    loop {
        let response = ask().await?;
        if response.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
            return Ok((response, sent_away));
        }
        sent_away += 1;
        let seconds =
            response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
        sleep(Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST)).await;
    }
}
