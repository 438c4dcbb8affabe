//! What does the clinic say, and to whom? The table of calls as handlers.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::rejection::QueryRejection};
use edge::{Json, frame::framed, path::Segment};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::drawing::draw;
use crate::error::{Error, Result};
use crate::finding::findings;
use crate::patient::{PATIENTS, Patient, Remedy};
use crate::plan::Pasted;
use crate::treatment::effect;
use crate::{store::Store, waits::Waits};

/// For a whole request and its answer. A slow query is run four times for a remedy.
const TIMEOUT: Duration = Duration::from_mins(2);

type Clinic = State<Store>;
/// A patient and a remedy.
type Names = std::result::Result<Path<(String, String)>, PathRejection>;

/// All of the service.
pub fn router(store: Store) -> Router {
    let calls = Router::new()
        .route("/patients", get(async || Json(json!({ "items": *PATIENTS }))))
        .route("/patients/{name}", get(show))
        .route("/patients/{name}/diagnosis", post(diagnose))
        .route("/patients/{name}/remedies/{remedy}", post(treat).delete(undo))
        .route("/patients/{name}/plan.svg", get(plan))
        .route("/diagnosis", post(read))
        .route("/slow", get(slow))
        .route("/readyz", get(async |it: Clinic| it.ping().await.map(|()| "ready")));
    // A plan of a thousand nodes has half a megabyte.
    framed(calls, TIMEOUT, 1_024 * 1_024).with_state(store)
}

async fn show(store: Clinic, name: Segment) -> Result<Json<Value>> {
    let patient = Patient::find(&name.0)?;
    let mut shown = json!(patient);
    shown["in_effect"] = json!(store.in_effect(patient).await?);
    Ok(Json(shown))
}

// ANCHOR: diagnose
/// Runs the query, and says why it is slow.
async fn diagnose(store: Clinic, name: Segment) -> Result<Json<Value>> {
    let patient = Patient::find(&name.0)?;
    let examination = store.diagnose(patient).await?;
    let mut shown = examination.shown();
    shown["patient"] = json!(patient.name);
    shown["findings"] = json!(examination.findings());
    Ok(Json(shown))
}
// ANCHOR_END: diagnose

/// Which query to treat first.
async fn slow(store: Clinic) -> Result<Json<Value>> {
    let items = store.slow().await?;
    Ok(Json(json!({ "available": items.is_some(), "items": items.unwrap_or_default() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `dry_run`")]
struct TreatInput {
    dry_run: bool,
}

fn named(names: Names) -> Result<(&'static Patient, &'static Remedy)> {
    let Path((patient, remedy)) = names.map_err(|_| Error::NOT_FOUND)?;
    let patient = Patient::find(&patient)?;
    Ok((patient, patient.remedy(&remedy)?))
}

// ANCHOR: treat
/// Applies the remedy, and compares.
async fn treat(store: Clinic, names: Names, Json(how): Json<TreatInput>) -> Result<Json<Value>> {
    let (patient, remedy) = named(names)?;
    let (before, after) = store.treat(patient, remedy, how.dry_run).await?;
    Ok(Json(json!({
        "patient": patient.name,
        "remedy": remedy.name,
        "dry_run": how.dry_run,
        "same_rows": before.tally.is_same(&after.tally),
        "effect": effect(&before, &after),
        "before": before.shown(),
        "after": after.shown(),
    })))
}
// ANCHOR_END: treat

async fn undo(store: Clinic, names: Names) -> Result<StatusCode> {
    let (patient, remedy) = named(names)?;
    store.undo(patient, remedy).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanParams {
    remedy: Option<String>,
}

type PlanQuery = std::result::Result<Query<PlanParams>, QueryRejection>;

/// The plan as a drawing; with a remedy, before and after. The remedy does not stay: a GET changes nothing.
async fn plan(store: Clinic, name: Segment, params: PlanQuery) -> Result<Response> {
    let patient = Patient::find(&name.0)?;
    let Query(PlanParams { remedy }) = params.map_err(|_| Error::NO_PARAMETER)?;
    let svg = drawn(&store, patient, remedy.as_deref()).await?;
    let safe = (CONTENT_SECURITY_POLICY, "default-src 'none'");
    Ok(([(CONTENT_TYPE, "image/svg+xml"), safe], svg).into_response())
}

async fn drawn(store: &Store, patient: &Patient, remedy: Option<&str>) -> Result<String> {
    let runs = match remedy {
        None => vec![("now", store.diagnose(patient).await?)],
        Some(remedy) => {
            let (before, after) = store.treat(patient, patient.remedy(remedy)?, true).await?;
            vec![("before", before), ("after", after)]
        }
    };
    let plans = runs.iter().map(|(title, run)| run.plan.as_ref().map(|plan| (*title, plan)));
    plans.collect::<Option<Vec<_>>>().map(|plans| draw(&plans)).ok_or(Error::BUSY)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `plan`")]
struct ReadInput {
    plan: Pasted,
}

/// Findings for a plan from elsewhere. Nothing is run.
async fn read(Json(ReadInput { plan: Pasted(plan) }): Json<ReadInput>) -> Json<Value> {
    let (findings, pages) = (findings(&plan, &Waits::default()), plan.root.pages());
    Json(json!({ "milliseconds": plan.execution, "pages": pages, "findings": findings }))
}
