//! What becomes of a notification?

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use serde_json::json;

use super::{
    client::{Client, notification},
    stream::Frame,
};
use conform::{
    case::Outcome,
    cases,
    expect::{ends_with, equal, expect, json_of, same_fields, status_in, text},
    http::{header, lives_and_is_ready, one_wins, problem},
    killing::Killing,
    target::{Target, pause},
};

cases! {
    Plain a_notification_reaches_an_open_socket_and_is_delivered: "202 with Location and the job id; the frame on an open stream; then status delivered after one attempt", "This is the product. 202 means that it is on its way, and the client can see how far it is.";
    Plain a_job_without_an_id_gets_one: "POST /notifications without job_id: 202 with a new one", "A client that never repeats a call need not think of names.";
    Plain the_same_job_again_is_200_and_sent_once: "The same job_id again: 200, and nothing is sent again", "A client that did not hear the answer asks again. Its user must not be told twice.";
    Plain a_job_id_of_another_user_is_refused: "The same job_id for another user: 409, and nothing is sent to them", "200 would say that it is on its way, and nobody would ever get it.";
    Load fifty_calls_with_one_job_id_make_one_notification: "Of fifty calls with one job_id at once, one gets 202 and the others 200; one frame", "A program that looks first and inserts afterwards lets two of them find nothing.";
    Plain a_push_that_reaches_nobody_is_dead: "A push for a user without a device: dead, with the reason", "Somebody has to find out why nothing came.";
    Plain a_device_is_added_and_removed: "PUT and DELETE of a device: 204, also the second time", "Apps register at each start, and do not remember whether they have.";
    Plain an_unknown_job_is_not_found: "404 for a job that nobody has", "It is an everyday event and no error of the server.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
    Restart what_was_answered_with_202_is_delivered_after_a_kill: "SIGKILL under load: every job that was answered with 202 is delivered afterwards, and stands in its user's stream once", "202 is a promise. A queue in memory does not keep it.";
}

async fn a_notification_reaches_an_open_socket_and_is_delivered(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (job, user) = (client.name("anraosaid"), client.name("anraosaid-ann"));
    let mut stream = client.stream(&user, 0).await?;
    let mut body = notification(&job, &user, "websocket");
    (body["title"], body["body"]) = (json!("Häß"), json!("Line\n\"2\""));
    let (answer, unsure) = target.post_patiently("notifications", &body).await?;
    let accepted = if unsure { &[202, 200][..] } else { &[202] };
    status_in(&answer, accepted)?;
    let location = header(&answer, "location").to_owned();
    ends_with("the header `Location`", &location, &format!("/notifications/{job}"))?;
    let expected = answer.status().as_u16();
    equal("the field `job_id`", json_of(answer, expected).await?["job_id"].clone(), &*job)?;
    let Frame { job_id, title, body, .. } = stream.soon().await?;
    let expected = vec![&*job, "Häß", "Line\n\"2\""];
    equal("job_id, title and body of the frame", vec![&*job_id, &*title, &*body], expected)?;
    let progress = client.until(&job, "delivered").await?;
    let expected = json!({ "attempts": 1, "last_error": null });
    same_fields(&progress, &expected, &["attempts", "last_error"])?;
    let jobs: Vec<_> = (2..=5).map(|n| format!("{job}-{n}")).collect();
    for job in &jobs {
        client.notify(job, &user).await?;
    }
    stream.brings(&jobs).await?;
    Ok(())
}

async fn a_job_without_an_id_gets_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let mut body = notification("", &client.name("ajwaigo"), "websocket");
    body.as_object_mut().context("an object")?.remove("job_id");
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let answer = target.post_patiently("notifications", &body).await?.0;
        ids.insert(text(&json_of(answer, 202).await?, "job_id")?.to_owned());
    }
    equal("the number of job ids after three calls without one", ids.len(), 3)?;
    for id in ids {
        client.until(&id, "delivered").await?;
    }
    Ok(())
}

async fn the_same_job_again_is_200_and_sent_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (job, user) = (client.name("tsjai2aso"), client.name("tsjai2aso-ann"));
    let mut stream = client.stream(&user, 0).await?;
    let body = notification(&job, &user, "websocket");
    client.accepted(&body).await?;
    // At once, while it may be under way, and again when it has been delivered.
    for _ in 0..3 {
        let (again, _) = target.post_patiently("notifications", &body).await?;
        equal("the field `job_id`", json_of(again, 200).await?["job_id"].clone(), &*job)?;
        client.until(&job, "delivered").await?;
    }
    equal("the job in the stream", stream.soon().await?.job_id, job)?;
    stream.nothing_more().await
}

async fn a_job_id_of_another_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (job, ann) = (client.name("ajioauir"), client.name("ajioauir-ann"));
    let bob = client.name("ajioauir-bob");
    client.notify(&job, &ann).await?;
    // At once, while it may be under way, and again when it has been delivered.
    let bobs = notification(&job, &bob, "websocket");
    for _ in 0..2 {
        problem(target.post_patiently("notifications", &bobs).await?.0, 409).await?;
        client.until(&job, "delivered").await?;
    }
    client.stream(&ann, 0).await?.brings(&[job]).await?;
    client.stream(&bob, 0).await?.nothing_more().await
}

async fn fifty_calls_with_one_job_id_make_one_notification(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (job, user) = (client.name("fcwojimon"), client.name("fcwojimon-ann"));
    let mut stream = client.stream(&user, 0).await?;
    let body = notification(&job, &user, "websocket");
    let answers = target.post_together("notifications", &vec![body; 50]).await?;
    one_wins(&answers, 202, 200)?;
    equal("the job in the stream", stream.soon().await?.job_id, job)?;
    stream.nothing_more().await
}

async fn a_push_that_reaches_nobody_is_dead(target: &Target) -> Outcome {
    let client = Client::of(target);
    let job = client.name("aptrnid");
    client.push(&job, &client.name("aptrnid-ann")).await?;
    let dead = client.until(&job, "dead").await?;
    let reason = text(&dead, "last_error")?;
    expect(!reason.is_empty(), "a reason in `last_error` of a dead job", &dead)
}

async fn a_device_is_added_and_removed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("adiaar");
    for _ in 0..2 {
        client.add_device(&user, "phone:1-a_B").await?;
    }
    for _ in 0..2 {
        client.remove_device(&user, "phone:1-a_B").await?;
    }
    Ok(())
}

async fn an_unknown_job_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let nobodys = client.name("nobodys");
    for path in [
        &format!("notifications/{nobodys}"),
        "notifications/a%20b",
        "notifications/%ff",
        "no/such/path",
    ] {
        let response = target.get(path).await?;
        // Some servers refuse such bytes before the program is asked, and know no problem documents.
        if path.contains('%') {
            status_in(&response, &[404, 400])?;
        } else {
            problem(response, 404).await?;
        }
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}

/// Eight clients notify eight users until the server is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_202_is_delivered_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|number| {
        let (client, killing) = (&client, &killing);
        async move {
            let user = client.name(&format!("wwaw2idaak-{number}"));
            let mut promised = Vec::new();
            for n in 0.. {
                if killing.is_over() {
                    break;
                }
                let job = format!("{user}-{n}");
                let Ok(response) = client.try_notify(&job, &user, "websocket").await else {
                    break;
                };
                if response.status() == 202 {
                    promised.push(job);
                    killing.promised();
                } else {
                    // Too many at once: then a little later.
                    tokio::time::sleep(pause(&response)).await;
                }
            }
            (user, promised)
        }
    });
    let promised = killing.after(100, target, clients).await?;
    for (user, jobs) in promised {
        for job in &jobs {
            let progress = client.until(job, "delivered").await;
            progress.context("it was answered with 202 before the kill")?;
        }
        let mut stream = client.stream(&user, 0).await?;
        let mut times: HashMap<String, u32> = HashMap::new();
        while jobs.iter().any(|job| !times.contains_key(job)) {
            *times.entry(stream.soon().await?.job_id).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        expect(twice.is_empty(), "each job once in the stream", format!("{twice:?}"))?;
    }
    Ok(())
}
