//! The table of calls of the clinic.

mod bad_input;
pub mod client;
mod crowd;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, json_of, list, status, text},
    http::{lives_and_is_ready, media_type_is, problem},
    target::Target,
};
use serde_json::{Value, json};

use client::{Client, found, pages};

cases! {
    Plain patients_have_a_query_a_complaint_and_remedies: "GET /patients and GET /patients/{name}", "Nobody sends SQL here, so what can be tried has to be shown.";
    Plain a_diagnosis_names_the_cause_first: "POST /patients/{name}/diagnosis: the planted cause is the first finding", "The second finding is often a consequence of the first.";
    Plain a_healthy_query_has_no_finding: "POST /patients/{name}/diagnosis of a query with nothing wrong: no findings", "Advice for a healthy query costs every write.";
    Plain a_diagnosis_tells_pages_rows_and_the_plan: "POST /patients/by-user/diagnosis: pages, rows, milliseconds, plan", "Pages are the same on each machine; milliseconds are not.";
    Plain a_remedy_is_compared_before_and_after: "POST of index-user for by-user: helps, with the same rows", "That is what all this is for.";
    Plain a_remedy_that_does_nothing_is_told: "POST of index-kind and fewer-columns for by-user: does_nothing", "An index that helps nobody still costs every write.";
    Plain a_remedy_that_changes_the_answer_is_refuted: "POST of join for buyers: changes_the_answer, and same_rows is false", "The fastest query is the one that returns the wrong rows.";
    Plain a_dry_run_leaves_nothing: "After a dry run: not in effect, and the diagnosis is as before", "Trying has to be safe, or nobody tries.";
    Plain a_plan_can_be_drawn: "GET /patients/{name}/plan.svg, with and without a remedy: SVG", "A picture shows at once where the time goes.";
    Plain a_plan_from_elsewhere_is_read: "POST /diagnosis: findings for a plan of another server", "The slow query is on another machine, and its owner pastes the plan.";
    Plain slow_statements_are_listed_by_total_time: "GET /slow: available, and items by total time", "The query to treat is the one that costs most in all.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and /readyz: 200", "A load balancer asks.";
}

/// Every case, and the table.
pub fn suite() -> Suite {
    let cases = [cases(), bad_input::cases(), crowd::cases()].concat();
    Suite { calls: include_str!("calls.md"), cases }
}

async fn patients_have_a_query_a_complaint_and_remedies(target: &Target) -> Outcome {
    let client = Client::of(target);
    let all = client.patients().await?;
    for name in ["by-user", "rare-latest", "buyers", "one-device", "after-load", "by-id"] {
        let known = all.iter().any(|patient| patient["name"] == name);
        expect(known, format!("the patient {name} in the list"), "none")?;
        let one = client.patient(name).await?;
        text(&one, "sql")?;
        text(&one, "complaint")?;
        list(&one, "in_effect")?;
        for remedy in list(&one, "remedies")? {
            for field in ["name", "says", "effect"] {
                text(remedy, field)?;
            }
        }
    }
    problem(target.get("patients/nobody").await?, 404).await.map(drop)
}

async fn a_diagnosis_names_the_cause_first(target: &Target) -> Outcome {
    let client = Client::of(target);
    for (name, cause) in [
        ("by-user", "full_scan"),
        ("rare-latest", "discards"),
        ("deep-page", "discards"),
        ("user-day", "discards"),
        ("count-per-user", "loops"),
        ("one-device", "misestimate"),
        ("one-browser", "misestimate"),
        ("big-sort", "spills"),
        ("distinct-urls", "spills"),
    ] {
        let diagnosis = client.diagnose(name).await?;
        let first = found(&diagnosis).into_iter().next().unwrap_or_default();
        equal(&format!("the first finding of {name}"), first, cause)?;
        text(&diagnosis["findings"][0], "words")?;
    }
    Ok(())
}

async fn a_healthy_query_has_no_finding(target: &Target) -> Outcome {
    let client = Client::of(target);
    for name in ["by-id", "latest", "views", "totals", "per-city", "few-sessions", "profiles"] {
        let found = found(&client.diagnose(name).await?);
        expect(found.is_empty(), format!("no finding for {name}"), found.join(", "))?;
    }
    Ok(())
}

async fn a_diagnosis_tells_pages_rows_and_the_plan(target: &Target) -> Outcome {
    let diagnosis = Client::of(target).diagnose("by-user").await?;
    expect(pages(&diagnosis) > 0.0, "pages", &diagnosis["pages"])?;
    expect(diagnosis["rows"].as_f64() > Some(0.0), "rows", &diagnosis["rows"])?;
    expect(diagnosis["milliseconds"].as_f64() > Some(0.0), "a time", &diagnosis["milliseconds"])?;
    let plan = diagnosis["plan"].to_string();
    expect(plan.contains("Actual Rows"), "the plan of a query that was run", plan)
}

async fn a_remedy_is_compared_before_and_after(target: &Target) -> Outcome {
    let trial = Client::of(target).try_out("by-user", "index-user").await?;
    equal("the effect", trial.effect.clone(), "helps")?;
    equal("same_rows", trial.same_rows, true)?;
    let (before, after) = trial.pages();
    let few = after > 0.0 && after * 10.0 < before;
    expect(few, "less than a tenth of the pages after it", format!("{before} and then {after}"))
}

async fn a_remedy_that_does_nothing_is_told(target: &Target) -> Outcome {
    for remedy in ["index-kind", "fewer-columns"] {
        let trial = Client::of(target).try_out("by-user", remedy).await?;
        equal(&format!("the effect of {remedy}"), trial.effect, "does_nothing")?;
    }
    Ok(())
}

async fn a_remedy_that_changes_the_answer_is_refuted(target: &Target) -> Outcome {
    let trial = Client::of(target).try_out("buyers", "join").await?;
    equal("the effect", trial.effect, "changes_the_answer")?;
    equal("same_rows", trial.same_rows, false)
}

async fn a_dry_run_leaves_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let before = client.diagnose("of-name").await?;
    equal("the effect", client.try_out("of-name", "two-indexes").await?.effect, "helps")?;
    equal("in_effect", client.in_effect("of-name").await?, json!([]))?;
    let after = client.diagnose("of-name").await?;
    equal("the pages", pages(&after), pages(&before))
}

async fn a_plan_can_be_drawn(target: &Target) -> Outcome {
    for path in ["by-user/plan.svg", "rare-latest/plan.svg?remedy=index-kind-created"] {
        let svg = target.get(&format!("patients/{path}")).await?;
        status(&svg, 200)?;
        media_type_is(&svg, "image/svg+xml")?;
        let svg = svg.text().await?;
        expect(svg.starts_with("<svg") && svg.contains("rows"), "a drawing that tells rows", svg)?;
    }
    Ok(())
}

/// A plan that keeps few rows of many.
pub fn good_plan() -> Value {
    json!([{
        "Plan": {
            "Node Type": "Seq Scan", "Relation Name": "orders", "Plan Rows": 7, "Plan Width": 8,
            "Actual Rows": 7, "Actual Loops": 1, "Actual Total Time": 30.5, "Filter": "(customer = 7)",
            "Rows Removed by Filter": 99_993, "Shared Hit Blocks": 1_000, "Shared Read Blocks": 334,
        },
        "Planning Time": 0.1, "Triggers": [], "Execution Time": 31.5,
    }])
}

async fn a_plan_from_elsewhere_is_read(target: &Target) -> Outcome {
    let read =
        json_of(target.post("diagnosis", &json!({ "plan": good_plan() })).await?, 200).await?;
    equal("the findings", found(&read).join(", "), "full_scan")?;
    equal("the pages", read["pages"].clone(), 1_334.0)?;
    let words = text(&read["findings"][0], "words")?;
    expect(words.contains("orders"), "the name of the table in words", words)
}

async fn slow_statements_are_listed_by_total_time(target: &Target) -> Outcome {
    let slow = json_of(target.get("slow").await?, 200).await?;
    let items = list(&slow, "items")?;
    expect(slow["available"].is_boolean(), "true or false in `available`", &slow["available"])?;
    expect(slow["available"] == true || items.is_empty(), "no items without them", &slow)?;
    let totals: Vec<_> = items.iter().filter_map(|item| item["total_ms"].as_f64()).collect();
    expect(totals.is_sorted_by(|a, b| a >= b), "the items by total time", &slow)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
