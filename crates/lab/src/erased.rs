//! How can one list hold functions with different arguments? Each is wrapped in a function that parses its arguments.

use std::{pin::Pin, sync::Arc};

use clap::ArgMatches;

/// A boxed future, so that all have the same type.
pub(crate) type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A function that parses its arguments and begins its work in `C`, with the type of its arguments erased.
pub(crate) type Start<C> = Arc<dyn Fn(&ArgMatches, C) -> anyhow::Result<Work> + Send + Sync>;
