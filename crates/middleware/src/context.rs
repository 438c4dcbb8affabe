//! How does what a layer learned reach code that has no request? A task of its own, say, or a call to another service.
//!
//! Invariant: a context belongs to a task, and never to a thread: another request may go on there at the next `await`.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use reqwest::{Client, Url};
use tokio::task::JoinHandle;
use tracing::{Instrument, info};

use crate::{auth::User, request_id};

tokio::task_local! {
    static CONTEXT: Context;
}

/// What the layers have learned about the request.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Its id.
    pub request_id: String,
    /// Who asks; nobody, if no layer wanted to know.
    pub user: Option<User>,
}

impl Context {
    /// Of the request that this task works for.
    pub fn current() -> Self {
        CONTEXT.try_with(Clone::clone).unwrap_or_default()
    }
}

// ANCHOR: context
/// Makes it known to everything that the request calls. This is the innermost layer: it has to know what all others know.
pub async fn known(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let context = Context {
        request_id: request_id::id(extensions).to_owned(),
        user: extensions.get().cloned(),
    };
    CONTEXT.scope(context, next.run(request)).await
}

/// Starts a task that goes on for the same request. A task begins with no context and no span, so both are handed over.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(CONTEXT.scope(Context::current(), work).in_current_span())
}
// ANCHOR_END: context

/// Another service, which is told of each new note.
#[derive(Clone, Debug)]
pub struct Audit(Url, Client);

impl Audit {
    /// At this address.
    pub fn at(url: Url) -> reqwest::Result<Self> {
        Ok(Self(url, Client::builder().timeout(Duration::from_secs(1)).build()?))
    }

    /// Says who has done something, under the id of the request. The note is kept, whatever becomes of this.
    pub async fn tell(&self, text: String) {
        let Context { request_id, user } = Context::current();
        let user = user.map_or_else(String::new, |User(name)| name);
        let request = self.1.post(self.0.clone()).body(format!("{user}: {text}"));
        match request.header(request_id::HEADER, request_id).send().await {
            Ok(answer) => info!(status = answer.status().as_u16(), "the audit was told"),
            Err(error) => info!(%error, "the audit was not told"),
        }
    }
}
