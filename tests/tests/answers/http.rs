//! How do the tests speak HTTP? As `conform` does.

use std::time::Duration;

use reqwest::{Client, redirect::Policy};

pub use conform::http::{header, invalid, problem};

/// A client that shows what came, redirects included.
pub fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(20)).build()?)
}
