//! How does an async function become a test? On a runtime of its own, so that it stands alone.

use std::time::{Duration, Instant};

use anyhow::bail;
use libtest_mimic::{Completion, Failed, Trial};

/// The result of a test.
pub type Outcome = anyhow::Result<()>;

/// `tests![a, b]`: a function `tests()` that lists them. One that is forgotten is dead code, and a lint.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::support::trial(module_path!(), stringify!($name), || async {
                $name().await.map(|()| libtest_mimic::Completion::Completed)
            })),*]
        }
    };
}
pub(crate) use tests;

/// A test named after its module and its function. It may find that it cannot be done here.
pub fn trial<F, W>(module: &str, name: &str, test: F) -> Trial
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = anyhow::Result<Completion>>,
{
    let module = module.rsplit("::").next().unwrap_or_default();
    Trial::ignorable_test(format!("{module}::{name}"), move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(test()).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// Polls until the condition gives a value. Never sleeps longer than it must, never waits for ever.
pub async fn eventually<T, W>(what: &str, mut condition: impl FnMut() -> W) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited 20 s in vain: {what}")
}
