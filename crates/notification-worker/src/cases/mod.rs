//! The notification system's table of calls, and its streams.

mod bad_input;
mod jobs;
mod stream;
mod streams;

use anyhow::{Context, ensure};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use self::stream::Stream;
use conform::{
    case::{Outcome, Suite},
    target::{Target, eventually},
};

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The program that is tried asks for no key, sends its stream over a WebSocket, sets no limit of notifications \
    a minute, and may or may not have a provider of pushes: the cases add no device that one could reach. Its \
    retries may take as long as they like, since nothing here is retried.";

/// Every case.
pub fn suite() -> Suite {
    Suite { needs: NEEDS, cases: [jobs::cases(), streams::cases(), bad_input::cases()].concat() }
}

/// The service in its own words.
#[derive(Clone, Copy)]
struct Api<'a>(&'a Target);

impl<'a> Api<'a> {
    /// The name of a job or a user that no other run uses.
    fn name(self, name: &str) -> String {
        format!("{name}-{}", self.0.tag())
    }

    async fn post(self, body: &Value) -> anyhow::Result<Response> {
        Ok(self.0.post_patiently("notifications", body).await?.0)
    }

    /// Notifies, and must succeed.
    async fn notify(self, job: &str, user: &str) -> Outcome {
        self.accepted(&notification(job, user)).await
    }

    /// Posts a notification that must be accepted. 200 is good where an answer with 503 was too careful.
    async fn accepted(self, body: &Value) -> Outcome {
        let (response, unsure) = self.0.post_patiently("notifications", body).await?;
        let status = response.status();
        ensure!(status == 202 || (unsure && status == 200), "{body} was answered with {status}");
        Ok(())
    }

    async fn progress(self, job: &str) -> anyhow::Result<Value> {
        let response = self.0.get(&format!("notifications/{job}")).await?;
        ensure!(response.status() == 200, "{job}: {}", response.status());
        Ok(response.json().await?)
    }

    /// Waits until a job has this status; where it stands then.
    async fn until(self, job: &str, status: &str) -> anyhow::Result<Value> {
        eventually(&format!("{job} is {status}"), async || {
            let progress = self.progress(job).await?;
            Ok((progress["status"] == status).then_some(progress))
        })
        .await
    }

    async fn ticket(self, user: &str) -> anyhow::Result<String> {
        let path = format!("users/{user}/stream-tickets");
        let (response, _) = self.0.post_patiently(&path, &json!({})).await?;
        ensure!(response.status() == 201, "a ticket: {}", response.status());
        let body: Value = response.json().await?;
        Ok(body["ticket"].as_str().context("no ticket")?.to_owned())
    }

    async fn stream(self, user: &str, after: i64) -> anyhow::Result<Stream<'a>> {
        Stream::open(self, user, after).await
    }

    /// The answer to a request for a stream that must be refused.
    async fn refused(self, user: &str, query: &str) -> anyhow::Result<Response> {
        let request = self.0.request(Method::GET, &format!("users/{user}/stream?{query}"));
        let request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        self.0.send(request).await
    }
}

/// A notification to a user's sockets.
fn notification(job: &str, user: &str) -> Value {
    json!({
        "job_id": job,
        "user_id": user,
        "channel": "websocket",
        "title": "A title",
        "body": format!("The body of {job}"),
    })
}
