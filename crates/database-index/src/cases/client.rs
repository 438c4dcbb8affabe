//! A client of the index workbench.

use conform::{
    expect::{json_of, status, text},
    http::header,
    target::{Target, eventually},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
}

/// What came of a query.
#[derive(Clone, Debug)]
pub struct Run {
    /// Rows that it found.
    pub rows: f64,
    /// Pages that it read.
    pub pages: f64,
    /// The whole answer.
    pub body: Value,
}

impl Run {
    /// The text of the plan. An index is in it by its name.
    pub fn plan(&self) -> String {
        self.body["plan"].to_string()
    }
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

    /// A name of an index that no other case takes.
    pub fn name(&self, what: &str) -> String {
        format!("idx_{}_{what}", self.target.tag())
    }

    /// A user with an address that no other case takes.
    pub fn user(&self, who: &str) -> Value {
        let email = format!("{who}-{}@example.org", self.target.tag());
        json!({ "email": email, "name": "Ada", "city": "City 7", "born": "2001-12-31" })
    }

    /// Creates a user.
    pub async fn create(&self, user: &Value) -> anyhow::Result<Response> {
        Ok(self.target.post_patiently("users", user).await?.0)
    }

    /// Creates a user who must not be refused; its path and what came back.
    pub async fn sign_up(&self, who: &str) -> anyhow::Result<(String, Value)> {
        let created = self.create(&self.user(who)).await?;
        let path = header(&created, "location").to_owned();
        let body = json_of(created, 201).await?;
        let path = if path.is_empty() { format!("/users/{}", body["id"]) } else { path };
        Ok((path, body))
    }

    /// Users with this address.
    pub async fn with_email(&self, email: &str) -> anyhow::Result<usize> {
        let found = json_of(self.target.get(&format!("users?email={email}")).await?, 200).await?;
        Ok(found["items"].as_array().map_or(0, Vec::len))
    }

    /// Sends a query.
    pub async fn ask(&self, query: &str, params: Value) -> anyhow::Result<Response> {
        let path = format!("queries/{query}/run");
        Ok(self.target.post_patiently(&path, &json!({ "params": params })).await?.0)
    }

    /// Runs a query.
    pub async fn run(&self, query: &str, params: Value) -> anyhow::Result<Run> {
        let body = json_of(self.ask(query, params).await?, 200).await?;
        let number = |value: &Value| value.as_f64().unwrap_or(-1.0);
        let buffers = &body["buffers"];
        let (hit, read) = (number(&buffers["hit"]), number(&buffers["read"]));
        Ok(Run { rows: number(&body["rows"]), pages: hit + read, body })
    }

    /// Asks for an index.
    pub async fn put(&self, name: &str, index: &Value) -> anyhow::Result<Response> {
        let put = || self.target.request(Method::PUT, &format!("indexes/{name}")).json(index);
        Ok(self.target.send_patiently(put).await?.0)
    }

    /// What becomes of an index, when its build has ended.
    pub async fn ended(&self, name: &str) -> anyhow::Result<Value> {
        eventually(&format!("the build of {name} ends"), async || {
            let body = json_of(self.target.get(&format!("indexes/{name}")).await?, 200).await?;
            Ok((text(&body, "state")? != "building").then_some(body))
        })
        .await
    }

    /// Asks for an index, and waits until it can be used.
    pub async fn build(&self, name: &str, index: &Value) -> anyhow::Result<Value> {
        let asked = self.put(name, index).await?;
        conform::expect::status_in(&asked, &[200, 202])?;
        let ended = self.ended(name).await?;
        conform::expect::equal("the state", ended["state"].clone(), "ready")?;
        Ok(ended)
    }

    /// Drops an index.
    pub async fn drop(&self, name: &str) -> anyhow::Result<Response> {
        let drop = || self.target.request(Method::DELETE, &format!("indexes/{name}"));
        Ok(self.target.send_patiently(drop).await?.0)
    }

    /// Drops an index, which is there.
    pub async fn dropped(&self, name: &str) -> anyhow::Result<()> {
        status(&self.drop(name).await?, 204)
    }
}

/// 10 KB. PostgreSQL compresses what repeats; these letters do not.
pub fn long_text() -> String {
    let mut state: u64 = 7;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(33 + u8::try_from((state >> 33) % 90).unwrap_or_default())
    };
    (0..10_000).map(next).collect()
}
