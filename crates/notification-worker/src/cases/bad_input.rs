//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::client::{Client, notification};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, expect, status_in},
    http::{invalid, not_allowed, problem},
    target::Target,
};

cases! {
    Plain a_body_that_is_no_notification_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_field_that_cannot_be_is_named: "422 that names the field: ids of 1 to 64 letters, digits, '_', '-', '.' or '@', a title of 1 to 256 bytes in one printable line, a body of at most 3,000", "What a device cannot be sent is better refused now than dead later.";
    Plain a_number_to_replay_after_that_is_none_is_named: "A stream with `after` that is no whole number of 0 or more, or that is spelt wrongly: 422 that names after, and the ticket is still good", "A client that remembers nonsense has to hear so, and not to miss notifications.";
    Plain a_client_that_speaks_is_closed_and_the_next_is_served: "A message on the stream: closed with 1003, an endless one with 1009; a ping is answered", "The stream goes one way. Nobody may fill the server's memory through it.";
    Plain a_path_that_cannot_be_is_a_problem: "A path with a string that cannot be a user, a job or a device: 400, 404, 414 or 422; a device token has up to 4,096 characters", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
}

async fn a_body_that_is_no_notification_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("abtinnir");
    let good = json!({ "user_id": user, "channel": "websocket", "title": "t", "body": "b" });
    let request = || target.request(Method::POST, "notifications");
    refuses_bad_bodies(target, request, &good).await?;
    for (field, value) in [
        ("channel", json!("pigeon")),
        ("user_id", json!(7)),
        ("boddy", json!(1)),
        ("body", json!(null)),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let response = target.post("notifications", &body).await?;
        problem(response, 422).await.with_context(|| format!("with another `{field}`"))?;
    }
    let mut body = good;
    body.as_object_mut().context("an object")?.remove("body");
    problem(target.post("notifications", &body).await?, 422).await.context("without a body")?;
    Ok(())
}

async fn a_field_that_cannot_be_is_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (job, user) = (client.name("aftcbin"), client.name("aftcbin-ann"));
    let long = "x".repeat(3_001);
    for (field, value) in [
        ("job_id", ""),
        ("job_id", "a b"),
        ("job_id", "a:b"),
        ("job_id", &long[..65]),
        ("user_id", ""),
        ("user_id", ".."),
        ("user_id", "a/b"),
        ("user_id", "ü"),
        ("title", ""),
        ("title", &long[..257]),
        ("title", "a\0b"),
        ("title", "a\nb"),
        ("title", "a\u{2028}b"),
        ("body", "a\0b"),
        ("body", &long),
    ] {
        let mut body = notification(&job, &user, "websocket");
        body[field] = json!(value);
        let answer = target.post("notifications", &body).await?;
        invalid(answer, field).await.with_context(|| format!("for the {field} {value:.20?}"))?;
    }
    problem(target.get(&format!("notifications/{job}")).await?, 404)
        .await
        .context("a job that was refused must not be there")?;
    // The longest that fits.
    let whole = |name: &str| format!("{name:x<64}");
    let mut body = notification(&whole(&job), &whole(&user), "websocket");
    (body["title"], body["body"]) = (json!(long[..256]), json!(long[..3_000]));
    client.accepted(&body).await?;
    client.until(&whole(&job), "delivered").await?;
    Ok(())
}

async fn a_number_to_replay_after_that_is_none_is_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("antratinin");
    let ticket = client.ticket(&user).await?;
    for after in ["after=-1", "after=x", "after=1.5", "after=99999999999999999999", "aftr=5"] {
        let query = format!("ticket={ticket}&{after}");
        invalid(client.refused(&user, &query).await?, "after")
            .await
            .with_context(|| format!("for {after}"))?;
    }
    let query = format!("ticket={ticket}");
    client.stream_with(&user, &query).await.context("a bad `after` used the ticket up")?;
    client.stream(&user, i64::MAX).await.context("a number that nothing has yet")?;
    Ok(())
}

async fn a_client_that_speaks_is_closed_and_the_next_is_served(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("actsicatnis");
    let part = |opcode, size, last| {
        Message::Frame(Frame::message(vec![b'x'; size], OpCode::Data(opcode), last))
    };
    for (name, said, code) in [
        ("after a text", vec![Message::text("hello")], 1003),
        ("after bytes", vec![Message::binary(vec![0, 159, 146, 150])], 1003),
        ("after a megabyte", vec![Message::binary(vec![0; 1_000_000])], 1009),
        (
            "after a message in two parts",
            vec![part(Data::Text, 3, false), part(Data::Continue, 3, true)],
            1003,
        ),
        (
            "after a message without end",
            [part(Data::Binary, 100, false)]
                .into_iter()
                .chain((0..10_000).map(|_| part(Data::Continue, 100, false)))
                .collect(),
            1009,
        ),
    ] {
        let mut stream = client.stream(&user, 0).await?;
        stream.say(said).await;
        let seen = stream.closed().await.context(name)?;
        // A client that is still sending may see the connection end before it sees why.
        let good = seen == Some(code) || (seen.is_none() && code == 1009);
        let got = seen.map_or("an end without a code".to_owned(), |code| code.to_string());
        expect(good, format!("the stream to be closed with {code}"), got).context(name)?;
    }
    let mut stream = client.stream(&user, 0).await?;
    stream.say(vec![Message::Ping(vec![1, 2, 3].into())]).await;
    let job = client.name("actsicatnis-job");
    client.notify(&job, &user).await?;
    equal("the job in the stream after a ping", stream.soon().await?.job_id, job)
}

async fn a_path_that_cannot_be_is_a_problem(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "a".repeat(5_000);
    for (method, path) in [
        (Method::POST, "users/a%20b/stream-tickets"),
        (Method::POST, "users/%ff/stream-tickets"),
        (Method::PUT, "users/ann/devices/a%2fb"),
        (Method::PUT, "users/a:b/devices/phone"),
        (Method::DELETE, "users/ann/devices/%00"),
        (Method::PUT, &format!("users/ann/devices/{long}")),
        (Method::GET, &format!("notifications/{long}")),
        (Method::POST, "users//stream-tickets"),
    ] {
        // Some servers refuse such a path before the program is asked, and know no problem documents.
        status_in(&target.ask(method, path).await?, &[400, 404, 414, 422])?;
    }
    let user = client.name("aptcbiap");
    client.add_device(&user, &long[..4_096]).await.context("a token of 4,096 letters")?;
    client.remove_device(&user, &long[..4_096]).await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::GET, "notifications"),
            (Method::DELETE, "notifications/one"),
            (Method::GET, "users/ann/stream-tickets"),
            (Method::POST, "users/ann/stream"),
            (Method::POST, "users/ann/devices/phone"),
            (Method::POST, "healthz"),
        ],
    )
    .await
}
