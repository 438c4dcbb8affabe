//! Does the authentication service do what its table of calls says? Over HTTP, as its clients would.

use anyhow::{Context, ensure};
use jwt_auth::MIGRATIONS;
use lab::{
    child::{Child, ChildBuilder},
    database::Database,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{
    http::{client, header, problem},
    support::{Outcome, tests},
};

tests![a_user_registers_and_logs_in_and_is_known_by_the_token,];

/// Cheap to hash with: what is tested here is not how long a guess takes.
const CHEAP: [&str; 4] = ["--argon2-memory", "64", "--argon2-passes", "1"];
const PASSWORD: &str = "correct horse battery staple";

/// A service of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    database: Database,
    http: reqwest::Client,
}

/// What a login gives.
#[derive(Clone, Debug, serde::Deserialize)]
struct Tokens {
    access_token: String,
    token_type: String,
    expires_in: u64,
    refresh_token: String,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
        let child = serve(&database).args(arguments).start().await?;
        Ok(Self { child, database, http: client()? })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.child.url()))
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        Ok(self.request(Method::POST, path).json(body).send().await?)
    }

    async fn register(&self, email: &str) -> anyhow::Result<Value> {
        let body = json!({ "email": email, "password": PASSWORD });
        let response = self.post("register", &body).await?;
        ensure!(response.status() == 201, "{}", response.text().await?);
        Ok(response.json().await?)
    }

    async fn login(&self, email: &str) -> anyhow::Result<Tokens> {
        let response = self.post("login", &json!({ "email": email, "password": PASSWORD })).await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        Ok(response.json().await?)
    }

    async fn me(&self, token: &str) -> anyhow::Result<Response> {
        Ok(self.request(Method::GET, "me").bearer_auth(token).send().await?)
    }
}

fn serve(database: &Database) -> ChildBuilder {
    Child::serve("jwt-auth").database(database).args(&CHEAP)
}

async fn a_user_registers_and_logs_in_and_is_known_by_the_token() -> Outcome {
    let api = Api::start(&[]).await?;
    let created =
        api.post("register", &json!({ "email": "Ann@Example.com", "password": PASSWORD })).await?;
    ensure!(created.status() == 201);
    ensure!(header(&created, "location") == "/me");
    let user: Value = created.json().await?;
    ensure!(user["email"] == "ann@example.com" && user["id"].is_string(), "{user}");
    ensure!(user.as_object().context("no object")?.len() == 2, "{user}");
    let response =
        api.post("login", &json!({ "email": "ann@example.com", "password": PASSWORD })).await?;
    ensure!(response.status() == 200 && header(&response, "cache-control") == "no-store");
    let tokens: Tokens = response.json().await?;
    ensure!(
        tokens.token_type == "Bearer"
            && tokens.expires_in == 900
            && tokens.refresh_token.len() == 43
    );
    let me = api.me(&tokens.access_token).await?;
    ensure!(me.status() == 200, "{}", me.text().await?);
    ensure!(me.json::<Value>().await? == user);
    problem(api.me("nonsense").await?, 401).await?;
    let _ = (
        &api.database,
        api.register("bob@example.com").await?,
        api.login("bob@example.com").await?,
    );
    Ok(())
}
