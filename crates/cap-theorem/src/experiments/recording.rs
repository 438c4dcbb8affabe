//! How is a history recorded? By the clients, since only what they see counts. One counter gives all times: a client takes
//! a number before it sends a request and after the answer came. So what ended before something else began has a smaller
//! number, however busy the machine is.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use conform::{expect::json, target::NoAnswer};
use reqwest::Response;
use serde_json::json;

use crate::cases::client::Client;
use crate::history::{Action, Operation};

/// The history of one run. Clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    ticks: Arc<AtomicU64>,
    operations: Arc<Mutex<Vec<Operation>>>,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The status; 0 if no answer came.
    pub status: u16,
    /// The first value of a read.
    pub value: Option<String>,
}

impl Recording {
    /// The next time.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Adds an operation that began at `called`. It ends now, if it has ended.
    pub fn note(&self, client: u32, key: &str, action: Action, called: u64, has_ended: bool) {
        let returned = has_ended.then(|| self.tick());
        let operation = Operation { client, key: key.to_owned(), action, called, returned };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Writes through this node. A write that was not acknowledged may take effect at any time.
    pub async fn write(
        &self,
        client: u32,
        node: &Client,
        key: &str,
        query: &str,
        value: &str,
    ) -> anyhow::Result<Seen> {
        let called = self.tick();
        let (status, _) = seen(node.put(key, query, &json!({ "value": value })).await).await?;
        self.note(client, key, Action::Write(value.to_owned()), called, status == 200);
        Ok(Seen { status, value: None })
    }

    /// Reads through this node. A read without an answer says nothing, and is not part of the history.
    pub async fn read(
        &self,
        client: u32,
        node: &Client,
        key: &str,
        query: &str,
    ) -> anyhow::Result<Seen> {
        let called = self.tick();
        let (status, body) = seen(node.get(key, query).await).await?;
        let value = body["values"][0].as_str().map(str::to_owned);
        if [200, 404].contains(&status) {
            self.note(client, key, Action::Read(value.clone()), called, true);
        }
        Ok(Seen { status, value })
    }

    /// A recording that begins with all of this one, and goes on by itself.
    pub fn branch(&self) -> Self {
        let ticks = AtomicU64::new(self.ticks.load(Ordering::SeqCst));
        Self { ticks: Arc::new(ticks), operations: Arc::new(Mutex::new(self.history())) }
    }

    /// What was recorded so far.
    pub fn history(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The status and the body, if there is one. That no answer came is a result too.
async fn seen(response: anyhow::Result<Response>) -> anyhow::Result<(u16, serde_json::Value)> {
    match response {
        Ok(response) => {
            let status = response.status().as_u16();
            // A refusal need not have a body.
            Ok((status, json(response).await.unwrap_or_default()))
        }
        Err(error) if error.is::<NoAnswer>() => Ok((0, serde_json::Value::Null)),
        Err(error) => Err(error),
    }
}
