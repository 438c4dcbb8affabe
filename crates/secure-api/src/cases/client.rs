//! How do cases, tests and experiments speak to the service? As one of its users, or as nobody.

use anyhow::Context;
use conform::{
    expect::{json_of, text},
    target::Target,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

/// Everybody's password here.
pub const PASSWORD: &str = "seven quiet otters at noon";
/// A clerk of Acme.
pub const ADA: &str = "ada@acme.example";
/// A viewer of Acme.
pub const VIC: &str = "vic@acme.example";
/// A clerk of Globex.
pub const GIL: &str = "gil@globex.example";
/// An administrator.
pub const OLGA: &str = "olga@operator.example";

/// The first bytes of a PNG.
pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

/// Somebody who asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
    /// Nobody has none.
    pub token: Option<String>,
}

impl Client {
    /// Logs in to this program.
    pub async fn login(target: &Target, email: &str) -> anyhow::Result<Self> {
        let body = json!({ "email": email, "password": PASSWORD });
        let (response, _) = target.post_patiently("login", &body).await?;
        let token = text(&json_of(response, 200).await?, "access_token")?.to_owned();
        Ok(Self { target: target.clone(), token: Some(token) })
    }

    /// Somebody without a token.
    pub fn nobody(target: &Target) -> Self {
        Self { target: target.clone(), token: None }
    }

    /// A request of this user.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.target.request(method, path);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends it, and again while the service is too busy.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let again = || request.try_clone().unwrap_or_else(|| self.request(Method::GET, "healthz"));
        Ok(self.target.send_patiently(again).await?.0)
    }

    /// A request without a body.
    pub async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(method, path)).await
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.ask(Method::GET, path).await
    }

    /// A POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// A PATCH of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// An upload to an invoice.
    pub async fn upload(&self, invoice: &str, name: &str, file: &[u8]) -> anyhow::Result<Response> {
        let path = with_query(&format!("invoices/{invoice}/attachments"), "name", name);
        let request = self.request(Method::POST, &path);
        self.send(request.header("content-type", "application/octet-stream").body(file.to_vec()))
            .await
    }

    /// Creates an invoice with this title, which must not be refused, and returns its id.
    pub async fn invoice(&self, title: &str) -> anyhow::Result<String> {
        let invoice = self.post("invoices", &invoice(title)).await?;
        let invoice = json_of(invoice, 201).await.context("an invoice")?;
        Ok(text(&invoice, "id")?.to_owned())
    }
}

/// The path with this parameter, whatever its value is.
pub fn with_query(path: &str, name: &str, value: &str) -> String {
    let query = Serializer::new(String::new()).append_pair(name, value).finish();
    format!("{path}?{query}")
}

/// A good invoice.
pub fn invoice(title: &str) -> Value {
    json!({ "title": title, "amount_cents": 1_200 })
}

/// A word of letters that no other text has.
pub fn new_word() -> String {
    let letter =
        |digit: char| char::from(b'a' + u8::try_from(digit.to_digit(16).unwrap_or(0)).unwrap_or(0));
    Uuid::new_v4().simple().to_string().chars().map(letter).collect()
}
