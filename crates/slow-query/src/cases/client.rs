//! A client of the clinic.

use conform::{
    expect::{json_of, list, text},
    target::Target,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
}

/// What came of a remedy.
#[derive(Clone, Debug)]
pub struct Trial {
    /// `helps`, `does_nothing`, `harms` or `changes_the_answer`.
    pub effect: String,
    /// Whether the rows are the same.
    pub same_rows: bool,
    /// The run before.
    pub before: Value,
    /// The run after.
    pub after: Value,
}

impl Trial {
    /// Pages before and after.
    pub fn pages(&self) -> (f64, f64) {
        (pages(&self.before), pages(&self.after))
    }
}

/// Pages of a run.
pub fn pages(run: &Value) -> f64 {
    run["pages"].as_f64().unwrap_or(-1.0)
}

/// The kinds of the nodes of a run's plan, the root first.
pub fn kinds(run: &Value) -> Vec<String> {
    fn visit(node: &Value, kinds: &mut Vec<String>) {
        kinds.extend(node["Node Type"].as_str().map(str::to_owned));
        for below in node["Plans"].as_array().into_iter().flatten() {
            visit(below, kinds);
        }
    }
    let mut kinds = Vec::new();
    visit(&run["plan"][0]["Plan"], &mut kinds);
    kinds
}

/// The kinds of the findings of a diagnosis, the worst first.
pub fn found(diagnosis: &Value) -> Vec<String> {
    let kind = |finding: &Value| finding["kind"].as_str().map(str::to_owned);
    diagnosis["findings"].as_array().into_iter().flatten().filter_map(kind).collect()
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

    /// One patient.
    pub async fn patient(&self, name: &str) -> anyhow::Result<Value> {
        json_of(self.target.get(&format!("patients/{name}")).await?, 200).await
    }

    /// All patients.
    pub async fn patients(&self) -> anyhow::Result<Vec<Value>> {
        let all = json_of(self.target.get("patients").await?, 200).await?;
        Ok(list(&all, "items")?.clone())
    }

    /// The remedies of this patient that are in effect.
    pub async fn in_effect(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.patient(name).await?["in_effect"].clone())
    }

    /// Runs a patient's query.
    pub async fn diagnose(&self, name: &str) -> anyhow::Result<Value> {
        let diagnose = || self.target.request(Method::POST, &format!("patients/{name}/diagnosis"));
        json_of(self.target.send_patiently(diagnose).await?.0, 200).await
    }

    /// Asks for a remedy.
    pub async fn ask(&self, name: &str, remedy: &str, dry_run: bool) -> anyhow::Result<Response> {
        let path = format!("patients/{name}/remedies/{remedy}");
        Ok(self.target.post_patiently(&path, &json!({ "dry_run": dry_run })).await?.0)
    }

    /// What a remedy does.
    pub async fn treat(&self, name: &str, remedy: &str, dry_run: bool) -> anyhow::Result<Trial> {
        let body = json_of(self.ask(name, remedy, dry_run).await?, 200).await?;
        Ok(Trial {
            effect: text(&body, "effect")?.to_owned(),
            same_rows: body["same_rows"] == true,
            before: body["before"].clone(),
            after: body["after"].clone(),
        })
    }

    /// What a remedy would do.
    pub async fn try_out(&self, name: &str, remedy: &str) -> anyhow::Result<Trial> {
        self.treat(name, remedy, true).await
    }

    /// Takes a remedy back.
    pub async fn undo(&self, name: &str, remedy: &str) -> anyhow::Result<Response> {
        let path = format!("patients/{name}/remedies/{remedy}");
        let undo = || self.target.request(Method::DELETE, &path);
        Ok(self.target.send_patiently(undo).await?.0)
    }
}
