//! What happens to a transaction that the database refuses because it was in another's way? It is run again,
//! here and nowhere else.

use std::time::Duration;

use crate::error::Error;

/// So often at most. Who loses that often is in a crowd that more tries would only make denser.
const RETRIES: u32 = 12;
/// The first pause, on average half of it. About as long as a transaction takes.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

// ANCHOR: retry
/// Runs `attempt` until it is not refused for being in another's way (SQLSTATE 40001, serialization failure,
/// and 40P01, deadlock). Everything else is the answer, good or bad.
///
/// An attempt is run more than once, so it must do nothing that a rollback does not undo: no mail, no call to
/// another service. A lost connection is no reason to try again here: its transaction may have been
/// committed, and only the client's idempotency key can tell.
pub async fn retry<T, A>(mut attempt: impl FnMut() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    for failures in 0..RETRIES {
        match attempt().await {
            Err(Error::Contended) => {
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
// ANCHOR_END: retry

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_is_in_the_way_goes_away() {
        let tries = Cell::new(0);
        let answer = retry(|| async {
            tries.set(tries.get() + 1);
            if tries.get() < 4 { Err(Error::Contended) } else { Ok(tries.get()) }
        });
        assert_eq!(answer.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn there_is_an_end_to_it() {
        let tries = Cell::new(0);
        let answer = retry(|| async {
            tries.set(tries.get() + 1);
            Err::<(), _>(Error::Contended)
        });
        assert!(matches!(answer.await, Err(Error::Contended)));
        assert_eq!(tries.get(), RETRIES + 1);
    }

    #[tokio::test]
    async fn any_other_failure_is_final() {
        let tries = Cell::new(0);
        let answer = retry(|| async {
            tries.set(tries.get() + 1);
            Err::<(), _>(Error::DatabaseAway)
        });
        assert!(matches!(answer.await, Err(Error::DatabaseAway)));
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread_over_all_of_it() {
        assert_eq!(pause(0, u32::MAX), FIRST_PAUSE);
        assert_eq!(pause(3, u32::MAX), FIRST_PAUSE * 8);
        for failures in [7, 12, 31, 32, 1_000, u32::MAX] {
            assert_eq!(pause(failures, u32::MAX), LONGEST_PAUSE, "{failures}");
            assert_eq!(pause(failures, 0), Duration::ZERO);
        }
        assert!(pause(5, u32::MAX / 2).abs_diff(FIRST_PAUSE * 16) < Duration::from_micros(1));
    }
}
