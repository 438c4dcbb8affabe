//! How does an async function become a test? On a runtime of its own, so that it stands alone.

use libtest_mimic::{Completion, Failed, Trial};

pub use conform::target::eventually;

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
