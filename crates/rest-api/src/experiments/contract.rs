//! Does the service do what its own document says? Thousands of requests made from the document, good and bad.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use conform::{expect::json_of, http::header};
use lab::{Experiment, Lab, Sabotage, child::Child};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::process::Command;
use url::form_urlencoded;

use super::{
    fixture::Fixture,
    schema::{Random, nonsense, resolve, value, wrong},
};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests, made from the document
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(400..=1_000_000))]
    requests: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "contract",
        "Five thousand requests that are made from openapi.json, good and bad: every answer has a documented status, media type \
         and shape",
        &["--requests", "400"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/error.rs",
        replace: "NO_IF_MATCH: Self = Self::Refused(428,",
        with: "NO_IF_MATCH: Self = Self::Refused(403,",
        check: "answers that the document does not know",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (child, client) = fixture.start().await?;
    let document = json_of(client.get("openapi.json", &[]).await?, 200).await?;
    let calls = calls(&document);
    ensure!(!calls.is_empty(), "the document has no calls");
    let mut world = World::new(client).await?;
    let (mut seen, mut unknown) = (BTreeMap::<(String, u16), u32>::new(), Vec::new());
    for n in 0..params.requests {
        if n % 50 == 0 {
            lab.progress(n.into(), params.requests.into(), "requests");
        }
        let call = &calls[n as usize % calls.len()];
        let request = world.request(call, &document)?;
        let response = world.client.send(request).await?;
        let status = response.status().as_u16();
        let name = format!("{} {}", call.method, call.path);
        *seen.entry((name.clone(), status)).or_default() += 1;
        if let Some(why) = world.look(call, &document, response).await? {
            unknown.push(format!("{name}: {status}: {why}"));
        }
    }
    let mut rows = BTreeMap::<String, Vec<String>>::new();
    for ((name, status), times) in &seen {
        rows.entry(name.clone()).or_default().push(format!("{status} ({times})"));
    }
    let rows = rows.into_iter().map(|(name, statuses)| vec![name, statuses.join(", ")]);
    lab.table("Which answers came", &["call", "statuses"], rows.collect());
    for line in unknown.iter().take(5) {
        lab.text(line);
    }
    lab.figure("different answers, by call and status", seen.len() as f64, "");
    let good =
        seen.iter().filter(|((_, status), _)| *status < 300).map(|(_, times)| times).sum::<u32>();
    lab.check("answers with 2xx", "a tenth at least", good, good * 10 >= params.requests);
    let failed =
        seen.iter().filter(|((_, status), _)| *status >= 500).map(|(_, times)| times).sum::<u32>();
    lab.check_eq("answers with 5xx", 0, failed);
    let graphs = world.graphs;
    lab.check("answers of the graph with data", "one at least", graphs, graphs > 0);
    lab.check_eq("answers that the document does not know", 0, unknown.len());
    // It takes longer than a quick run may.
    if params.requests < 1_000 { Ok(()) } else { schemathesis(&lab, &child).await }
}

/// One call of the document.
struct Call {
    method: Method,
    path: String,
    about: Value,
}

fn calls(document: &Value) -> Vec<Call> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let calls = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.filter_map(move |(method, about)| {
            let method = method.to_uppercase().parse().ok()?;
            Some(Call { method, path: path.clone(), about: about.clone() })
        })
    });
    calls.collect()
}

/// What the generator knows of the service: ids and tags that were right a moment ago.
struct World {
    client: Client,
    random: Random,
    users: Vec<String>,
    orders: Vec<String>,
    tags: Vec<String>,
    cursors: Vec<String>,
    /// How many answers of the graph had users in them: its errors come with 200 too.
    graphs: u32,
}

impl World {
    async fn new(client: Client) -> anyhow::Result<Self> {
        let ada = client.sign_up("Ada").await?;
        let order = client.order(&ada.path, "tea").await?;
        let id = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self {
            users: vec![id(&ada.path)],
            orders: vec![id(&order.path)],
            tags: vec![ada.tag],
            cursors: vec!["x".to_owned()],
            graphs: 0,
            client,
            random: Random::new(),
        })
    }

    fn request(&mut self, call: &Call, document: &Value) -> anyhow::Result<RequestBuilder> {
        let known = if call.path.starts_with("/orders") { &self.orders } else { &self.users };
        let id = match self.random.below(10) {
            0 => uuid::Uuid::new_v4().to_string(),
            1 => "nonsense".to_owned(),
            _ => self.random.of(known).clone(),
        };
        let parameters = call.about["parameters"].as_array().cloned().unwrap_or_default();
        let mut query = Vec::new();
        let mut headers = Vec::new();
        for parameter in &parameters {
            let name = parameter["name"].as_str().context("a parameter without a name")?;
            if self.random.below(3) == 0 {
                continue;
            }
            let text = self.parameter(name, &parameter["schema"], document);
            match parameter["in"].as_str() {
                Some("query") => query.push((name.to_owned(), text)),
                Some("header") => headers.push((name.to_owned(), text)),
                _ => {}
            }
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&query).finish();
        let path = format!("{}?{query}", call.path.replace("{id}", &id));
        let mut request = self.client.request(call.method.clone(), &path);
        for (name, text) in headers {
            let header = reqwest::header::HeaderValue::from_bytes(text.as_bytes());
            request = match header {
                Ok(header) => request.header(name, header),
                Err(_) => request,
            };
        }
        request = request.header(
            "accept",
            *self.random.of(&[
                "*/*",
                "application/json",
                "text/html;q=0.5, */*;q=0.1",
                "application/vnd.worked-answers.v1+json",
                "image/png",
            ]),
        );
        let bodies = call.about["requestBody"]["content"].as_object();
        let bodies: Vec<_> = bodies.into_iter().flatten().collect();
        if bodies.is_empty() {
            return Ok(request);
        }
        let (media_type, body) = *self.random.of(&bodies);
        let media_type = if self.random.below(15) == 0 { "text/plain" } else { media_type };
        let mut body = value(&body["schema"], document, &mut self.random);
        let name = value(&json!({ "type": "string" }), document, &mut self.random);
        if media_type.contains("merge-patch") {
            body = json!({ "name": name });
        } else if media_type.contains("json-patch") {
            body = json!([{ "op": "replace", "path": "/name", "value": name }]);
        } else if call.path == "/graphql" && self.random.below(2) == 0 {
            body = json!({ "query": "{ users(first: 3) { id orders { id state } } }" });
        }
        let mut text = body.to_string();
        if self.random.below(20) == 0 {
            text.retain(|it| it.is_ascii());
            text.truncate(text.len() / 2);
        }
        Ok(request.header("content-type", media_type).body(text))
    }

    /// Something right, most of the time.
    fn parameter(&mut self, name: &str, schema: &Value, document: &Value) -> String {
        let random = &mut self.random;
        match name {
            "If-Match" | "If-None-Match" => match random.below(4) {
                0 => "*".to_owned(),
                1 => "nonsense, W/\"1\"".to_owned(),
                _ => random.of(&self.tags).clone(),
            },
            "cursor" => random.of(&self.cursors).clone(),
            "sort" => (*random.of(&["name", "-name", "created_at", "email"])).to_owned(),
            "include" => (*random.of(&["orders", "all"])).to_owned(),
            "email" => (*random.of(&["ada@example.org", "x"])).to_owned(),
            _ if random.below(6) == 0 => nonsense(random).to_string(),
            _ => match value(schema, document, random) {
                Value::String(text) => text,
                other => other.to_string(),
            },
        }
    }

    /// What is wrong with this answer, if something is. What can be used later is kept.
    async fn look(
        &mut self,
        call: &Call,
        document: &Value,
        response: Response,
    ) -> anyhow::Result<Option<String>> {
        let status = response.status().as_u16();
        let media_type = header(&response, "content-type").to_owned();
        let tag = header(&response, "etag").to_owned();
        let next = header(&response, "link").to_owned();
        let text = response.text().await?;
        let body = serde_json::from_str::<Value>(&text).unwrap_or_default();
        if tag.starts_with('"') {
            self.tags.push(tag);
        }
        if let Some(cursor) =
            next.split("cursor=").nth(1).and_then(|it| it.split(['&', '>']).next())
        {
            self.cursors.push(cursor.to_owned());
        }
        if let (201, Some(id)) = (status, body["id"].as_str()) {
            let orders = call.path.ends_with("/orders");
            if orders { &mut self.orders } else { &mut self.users }.push(id.to_owned());
        }
        self.graphs += u32::from(call.path == "/graphql" && body["data"]["users"].is_array());
        // The newest are the most likely to be there still.
        for known in [&mut self.users, &mut self.orders, &mut self.tags, &mut self.cursors] {
            if known.len() > 20 {
                known.remove(0);
            }
        }
        let documented = &call.about["responses"][status.to_string()];
        if documented.is_null() {
            return Ok(Some("this status is not documented".to_owned()));
        }
        let Some(content) = resolve(documented, document)["content"].as_object() else {
            return Ok((!text.is_empty()).then(|| "a body that is not documented".to_owned()));
        };
        let Some(described) = content.get(&media_type) else {
            return Ok(Some(format!("the media type {media_type:?} is not documented")));
        };
        Ok(wrong(&described["schema"], document, &body))
    }
}

/// The same by a tool that others wrote and that knows no mercy, where it is installed.
async fn schemathesis(lab: &Lab, child: &Child) -> anyhow::Result<()> {
    let document = format!("{}/openapi.json", child.url());
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    // It leaves a cache where it runs.
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("schemathesis");
    command.current_dir(folder.path());
    command.args(["run", &document, "--max-examples", "10", "--checks", checks, "--no-color"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let Ok(running) = command.spawn() else {
        lab.text(
            "schemathesis is not installed here (pip install schemathesis): its half is skipped.",
        );
        return Ok(());
    };
    let output = tokio::time::timeout(Duration::from_mins(2), running.wait_with_output()).await;
    let output = output.context("schemathesis did not end within two minutes")??;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let from = text.len().saturating_sub(3_000);
        lab.text(text.get(from..).unwrap_or(&text));
    }
    lab.check_eq("schemathesis finds nothing", true, output.status.success());
    Ok(())
}
