//! How do functions with different arguments come into one list? Each is wrapped in one that parses its arguments.

use std::{pin::Pin, sync::Arc};

use clap::ArgMatches;

/// A boxed future, as type erasure wants it.
pub(crate) type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// What parses its arguments and begins its work in `C`, with the type of its arguments erased.
pub(crate) type Start<C> = Arc<dyn Fn(&ArgMatches, C) -> anyhow::Result<Work> + Send + Sync>;
