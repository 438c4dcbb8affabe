//! What holds when remedies stay, when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status, status_in},
    http::{one_wins, problem},
    target::{Target, eventually},
};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;

use super::client::{Client, found, pages};

cases! {
    Load a_remedy_is_in_effect_until_it_is_taken_back: "POST with dry_run false: in_effect, and few pages; again: 409; DELETE: 204 and as before; again: 404", "A remedy that cannot be taken back is a risk.";
    Load statistics_have_no_way_back: "After ANALYZE, DELETE: 409", "Better told than pretended.";
    Load one_remedy_wanted_by_ten_is_applied_once: "Of ten POSTs of one remedy at the same moment, one gets 200 and the others 409", "Nobody looks first: the primary key decides.";
    Load two_remedies_at_once_do_not_disturb_each_other: "Eight dry runs of different remedies at the same moment: each effect is that of the remedy alone", "One remedy in the other's second run would be taken for its effect.";
    Load ten_diagnoses_at_once_are_all_right: "Ten diagnoses at the same moment: the cause first, each time", "A clinic has more than one patient.";
    Restart a_remedy_that_is_killed_is_there_as_a_whole_or_not_at_all: "After SIGKILL in a POST: it is in effect and can be taken back, or it is not, and the same again works", "A deployment may come in between.";
}

async fn a_remedy_is_in_effect_until_it_is_taken_back(target: &Target) -> Outcome {
    let client = Client::of(target);
    let trial = client.treat("by-user", "index-user", false).await?;
    equal("the effect", trial.effect.clone(), "helps")?;
    equal("in_effect", client.in_effect("by-user").await?, json!(["index-user"]))?;
    let treated = client.diagnose("by-user").await?;
    equal("the pages", pages(&treated), trial.pages().1)?;
    expect(found(&treated).is_empty(), "no finding", found(&treated).join(", "))?;
    for dry_run in [false, true] {
        problem(client.ask("by-user", "index-user", dry_run).await?, 409).await?;
    }
    status(&client.undo("by-user", "index-user").await?, 204)?;
    equal("in_effect", client.in_effect("by-user").await?, json!([]))?;
    equal("the pages", pages(&client.diagnose("by-user").await?), trial.pages().0)?;
    problem(client.undo("by-user", "index-user").await?, 404).await.map(drop)
}

async fn statistics_have_no_way_back(target: &Target) -> Outcome {
    let client = Client::of(target);
    let answer = client.ask("after-load", "analyze", false).await?;
    // It is in effect if these cases have been run before.
    status_in(&answer, &[200, 409])?;
    if answer.status() == 200 {
        equal("the effect", json_of(answer, 200).await?["effect"].clone(), "helps")?;
    }
    problem(client.undo("after-load", "analyze").await?, 409).await?;
    equal("in_effect", client.in_effect("after-load").await?, json!(["analyze"]))
}

async fn one_remedy_wanted_by_ten_is_applied_once(target: &Target) -> Outcome {
    let path = "patients/any-case/remedies/index-lower";
    let answers = target.post_together(path, &vec![json!({ "dry_run": false }); 10]).await?;
    one_wins(&answers, 200, 409)?;
    let client = Client::of(target);
    equal("in_effect", client.in_effect("any-case").await?, json!(["index-lower"]))?;
    status(&client.undo("any-case", "index-lower").await?, 204)
}

async fn two_remedies_at_once_do_not_disturb_each_other(target: &Target) -> Outcome {
    let client = &Client::of(target);
    let trials = [
        ("by-user", "index-user", "helps"),
        ("by-user", "index-kind", "does_nothing"),
        ("by-user", "fewer-columns", "does_nothing"),
        ("count-per-user", "index-user", "helps"),
        ("count-per-user", "cte", "does_nothing"),
        ("rare-latest", "index-kind-created", "helps"),
        ("rare-latest", "index-kind", "does_nothing"),
        ("buyers", "exists", "does_nothing"),
    ];
    let trials = trials.map(|(patient, remedy, effect)| async move {
        let trial = client.try_out(patient, remedy).await?;
        equal(&format!("the effect of {remedy} for {patient}"), trial.effect, effect)
    });
    try_join_all(trials).await.map(drop)
}

async fn ten_diagnoses_at_once_are_all_right(target: &Target) -> Outcome {
    let client = &Client::of(target);
    let diagnoses = (0..10).map(|n| async move {
        let (name, cause) = [("by-user", "full_scan"), ("deep-page", "discards")][n % 2];
        let first = found(&client.diagnose(name).await?).into_iter().next();
        equal(&format!("the first finding of {name}"), first.unwrap_or_default(), cause)
    });
    try_join_all(diagnoses).await.map(drop)
}

async fn a_remedy_that_is_killed_is_there_as_a_whole_or_not_at_all(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = "patients/of-name/remedies/two-indexes";
    let request = target.request(Method::POST, path).json(&json!({ "dry_run": false }));
    // The answer gets lost, with the program.
    let (_, restarted) = tokio::join!(target.send(request), target.restart());
    restarted?;
    if client.in_effect("of-name").await? == json!(["two-indexes"]) {
        status(&client.undo("of-name", "two-indexes").await?, 204)?;
    }
    // PostgreSQL may need a moment to see that the killed program has gone.
    eventually("the killed program's locks are released", async || {
        let again = client.ask("of-name", "two-indexes", false).await?;
        status_in(&again, &[200, 409, 503])?;
        Ok((again.status() != 503).then_some(()))
    })
    .await?;
    // With 409 the killed one was committed after all, in between.
    equal("in_effect", client.in_effect("of-name").await?, json!(["two-indexes"]))?;
    status(&client.undo("of-name", "two-indexes").await?, 204)
}
