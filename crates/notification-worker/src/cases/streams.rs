//! What does a user's stream promise?

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

use super::client::Client;
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, status_in},
    http::{header, problem},
    target::Target,
};

cases! {
    Load each_users_notifications_arrive_in_the_order_of_their_calls: "Many users at once: each one's frames come in the order of the calls that were answered one after another", "\"Your order was placed\" after \"your order has shipped\" is a complaint.";
    Plain a_stream_replays_what_came_after_a_number: "after=N: every notification with a higher number, in order, once; then what is new", "A phone comes out of a tunnel with the last number that it has seen, and has to miss nothing.";
    Plain a_stream_shows_its_user_only: "A user's stream holds nothing of another's", "The worst thing that this service can do.";
    Plain a_ticket_is_good_once_and_for_its_user: "A ticket opens one stream of its user, once; else 401", "It stands in a URL, and URLs end up in logs.";
    Plain a_goodbye_is_answered: "A client's Close frame is answered with a Close frame of the same code", "Without it the client cannot tell a clean end from a broken connection (RFC 6455, section 5.5.1).";
    Plain a_stream_without_an_upgrade_is_told_so: "Without a ticket 401; with one and without an upgrade 426 that names websocket and version 13, and the ticket is still good", "Somebody who tries it with curl should learn what is missing.";
}

async fn each_users_notifications_arrive_in_the_order_of_their_calls(target: &Target) -> Outcome {
    let client = Client::of(target);
    let client = &client;
    let users = (0..12).map(|user| async move {
        let user = client.name(&format!("eunaitootc-{user}"));
        let mut stream = client.stream(&user, 0).await?;
        let jobs: Vec<_> = (0..20).map(|n| format!("{user}-{n}")).collect();
        for job in &jobs {
            client.notify(job, &user).await?;
        }
        stream.brings(&jobs).await?;
        stream.nothing_more().await
    });
    try_join_all(users).await?;
    Ok(())
}

async fn a_stream_replays_what_came_after_a_number(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("asrwcaan");
    let jobs: Vec<_> = (0..80).map(|n| format!("{user}-{n}")).collect();
    for (n, job) in jobs.iter().enumerate() {
        if n % 20 == 10 {
            // It has a number too, perhaps, and no place in the stream: a number is not a place.
            client.push(&format!("{job}-push"), &user).await?;
        }
        client.notify(job, &user).await?;
    }
    let mut stream = client.stream(&user, 0).await?;
    let all = stream.brings(&jobs).await?;
    stream.nothing_more().await?;
    for seen in [0, 9, 10, 40, 78] {
        let after = all[seen].seq;
        let mut stream = client.stream(&user, after).await?;
        stream.brings(&jobs[seen + 1..]).await.with_context(|| format!("after number {after}"))?;
        stream.nothing_more().await?;
    }
    let last = all.last().context("nothing")?.seq;
    let mut stream = client.stream(&user, last).await?;
    stream.nothing_more().await.context("after the last number")?;
    let new = format!("{user}-new");
    client.notify(&new, &user).await?;
    equal("the job that is new, after a replay", stream.soon().await?.job_id, new)
}

async fn a_stream_shows_its_user_only(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ann, bob) = (client.name("assuo-ann"), client.name("assuo-bob"));
    let mut stream = client.stream(&bob, 0).await?;
    for user in [&ann, &bob] {
        let job = format!("{user}-job");
        client.notify(&job, user).await?;
        client.until(&job, "delivered").await?;
    }
    stream.brings(&[format!("{bob}-job")]).await?;
    stream.nothing_more().await?;
    let mut replayed = client.stream(&ann, 0).await?;
    replayed.brings(&[format!("{ann}-job")]).await?;
    replayed.nothing_more().await
}

async fn a_ticket_is_good_once_and_for_its_user(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ann, bob) = (client.name("atigoafiu-ann"), client.name("atigoafiu-bob"));
    let ticket = async || anyhow::Ok(format!("ticket={}", client.ticket(&ann).await?));
    let used = ticket().await?;
    client.stream_with(&ann, &used).await?;
    problem(client.refused(&ann, &used).await?, 401).await.context("used twice")?;
    let anns = ticket().await?;
    problem(client.refused(&bob, &anns).await?, 401).await.context("of another user")?;
    client.stream_with(&ann, &anns).await.context("another user's try used ann's ticket up")?;
    for query in
        ["", "ticket=", "ticket=abc", "after=0", "ticket=%ff", "ticket=*", &"ticket=".repeat(99)]
    {
        status_in(&client.refused(&ann, query).await?, &[401, 400])?;
    }
    Ok(())
}

async fn a_goodbye_is_answered(target: &Target) -> Outcome {
    let client = Client::of(target);
    let mut stream = client.stream(&client.name("agia"), 0).await?;
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    stream.say(vec![Message::Close(Some(goodbye))]).await;
    let code = stream.closed().await?;
    expect(code == Some(1000), "a Close frame with 1000", format!("{code:?}"))
}

async fn a_stream_without_an_upgrade_is_told_so(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.name("aswauits");
    problem(target.get(&format!("users/{user}/stream")).await?, 401).await?;
    let ticket = client.ticket(&user).await?;
    let response = target.get(&format!("users/{user}/stream?ticket={ticket}")).await?;
    let upgrade = header(&response, "upgrade").to_owned();
    let version = header(&response, "sec-websocket-version").to_owned();
    problem(response, 426).await?;
    equal("the header `Upgrade`", upgrade.to_lowercase(), "websocket")?;
    equal("the header `Sec-WebSocket-Version`", version, "13")?;
    let query = format!("ticket={ticket}");
    client.stream_with(&user, &query).await.context("a call without an upgrade used it up")?;
    Ok(())
}
