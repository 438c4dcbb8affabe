//! How do cases, tests and experiments speak to the service? As a client of its table of calls.

use conform::{
    case::Outcome,
    expect::{expect, json, json_of, status, status_in, text},
    target::{Target, within},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{PATIENCE, stream::Stream};

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
}

impl Client {
    /// Speaks to this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// Speaks to the program at this URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(url, None)? })
    }

    /// The name of a job or a user that no other run uses.
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.target.tag())
    }

    /// Posts a notification once, and tells what came.
    pub async fn try_notify(
        &self,
        job: &str,
        user: &str,
        channel: &str,
    ) -> anyhow::Result<Response> {
        self.target.post("notifications", &notification(job, user, channel)).await
    }

    /// Posts a notification to a user's sockets, which must be accepted.
    pub async fn notify(&self, job: &str, user: &str) -> Outcome {
        self.accepted(&notification(job, user, "websocket")).await
    }

    /// Posts a notification to a user's devices, which must be accepted.
    pub async fn push(&self, job: &str, user: &str) -> Outcome {
        self.accepted(&notification(job, user, "push")).await
    }

    /// Posts a notification that must be accepted, and tries again when the service says 503.
    pub async fn accepted(&self, body: &Value) -> Outcome {
        let (response, unsure) = self.target.post_patiently("notifications", body).await?;
        // 200 is good if the call that got a 503 was carried out.
        if unsure { status_in(&response, &[202, 200]) } else { status(&response, 202) }
    }

    /// Where a job stands.
    pub async fn progress(&self, job: &str) -> anyhow::Result<Value> {
        let response = self.target.get(&format!("notifications/{job}")).await?;
        json_of(response, 200).await
    }

    /// Waits until a job has this status, and returns where it stands.
    pub async fn until(&self, job: &str, status: &str) -> anyhow::Result<Value> {
        within(PATIENCE, &format!("the job {job} has the status {status}"), async || {
            let progress = self.progress(job).await?;
            let (now, attempts) = (&progress["status"], progress["attempts"].as_u64());
            let what = format!("a job with the status {status} before its hundredth attempt");
            expect(now == status || attempts < Some(100), what, &progress)?;
            Ok((now == status).then_some(progress))
        })
        .await
    }

    /// Adds a device of a user.
    pub async fn add_device(&self, user: &str, token: &str) -> Outcome {
        self.device(Method::PUT, user, token).await
    }

    /// Removes a device of a user.
    pub async fn remove_device(&self, user: &str, token: &str) -> Outcome {
        self.device(Method::DELETE, user, token).await
    }

    async fn device(&self, method: Method, user: &str, token: &str) -> Outcome {
        let path = format!("users/{user}/devices/{token}");
        status(&self.target.ask(method, &path).await?, 204)
    }

    /// A ticket for a stream.
    pub async fn ticket(&self, user: &str) -> anyhow::Result<String> {
        let path = format!("users/{user}/stream-tickets");
        let (response, _) = self.target.post_patiently(&path, &json!({})).await?;
        Ok(text(&json_of(response, 201).await?, "ticket")?.to_owned())
    }

    /// Opens the stream of a user after this number, with a ticket of its own.
    pub async fn stream(&self, user: &str, after: i64) -> anyhow::Result<Stream> {
        let ticket = self.ticket(user).await?;
        self.stream_with(user, &format!("ticket={ticket}&after={after}")).await
    }

    /// Opens a stream with this query.
    pub async fn stream_with(&self, user: &str, query: &str) -> anyhow::Result<Stream> {
        Stream::open(&self.target, user, query).await
    }

    /// The answer to a request for a stream that must be refused.
    pub async fn refused(&self, user: &str, query: &str) -> anyhow::Result<Response> {
        let request = self.target.request(Method::GET, &format!("users/{user}/stream?{query}"));
        let request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        self.target.send(request).await
    }

    /// How many sockets the service says are open; nothing while it is not ready.
    pub async fn sockets(&self) -> anyhow::Result<Option<u64>> {
        let ready = json(self.target.get("readyz").await?).await?;
        Ok(ready["sockets"].as_u64())
    }
}

/// A notification, as it is posted.
pub fn notification(job: &str, user: &str, channel: &str) -> Value {
    json!({
        "job_id": job,
        "user_id": user,
        "channel": channel,
        "title": "A title",
        "body": format!("The body of {job}"),
    })
}
