//! What do many clients at once get, and what is left after a kill?

use futures_util::future::try_join_all;
use serde_json::json;

use super::client::{Client, redirects};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, json, text},
    http::one_wins,
    killing::Killing,
    target::{Target, pause},
};

cases! {
    Load the_same_url_wanted_by_fifty_at_once_becomes_one_link: "Of fifty who send one URL at once, one gets 201 and the others 200, all with the same code", "A program that looks first and inserts afterwards lets two of them find nothing.";
    Load an_alias_that_fifty_want_has_one_owner: "Of fifty who want one alias at once, one gets 201 and the others 409", "A program that looks first and inserts afterwards lets two of them find it free.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL under load, every link that was answered with 201 leads to its URL", "201 is a promise. A cache that is written to disk later does not keep it.";
}

/// Each race is run this many times, because one may end well by luck.
const TIMES: usize = 5;

async fn the_same_url_wanted_by_fifty_at_once_becomes_one_link(target: &Target) -> Outcome {
    for time in 0..TIMES {
        fifty_want_one_url(target, time).await?;
    }
    Ok(())
}

async fn fifty_want_one_url(target: &Target, time: usize) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page(&format!("crowd/{time}")) });
    let answers = target.post_together("links", &vec![link; 50]).await?;
    one_wins(&answers, 201, 200)?;
    let links = try_join_all(answers.into_iter().map(|(response, _)| json(response))).await?;
    let mut codes = links.iter().map(|link| link["code"].clone());
    codes.try_for_each(|code| equal("the code for each of them", code, links[0]["code"].clone()))
}

async fn an_alias_that_fifty_want_has_one_owner(target: &Target) -> Outcome {
    for time in 0..TIMES {
        fifty_want_one_alias(target, time).await?;
    }
    Ok(())
}

async fn fifty_want_one_alias(target: &Target, time: usize) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias(&format!("wanted-{time}"));
    let links: Vec<_> = (0..50)
        .map(|n| json!({ "url": client.page(&format!("wanted/{n}")), "alias": alias }))
        .collect();
    let answers = target.post_together("links", &links).await?;
    one_wins(&answers, 201, 409)?;
    redirects(&client.follow(&alias).await?)
}

/// Eight clients create until the server is gone or has been started again; it is killed when they have made a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|worker| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            for n in 0.. {
                let url = client.page(&format!("killed/{worker}/{n}"));
                if killing.is_over() {
                    break;
                }
                let Ok(response) = client.create(&json!({ "url": url })).await else { break };
                if response.status() == 201 {
                    promised.push((text(&json(response).await?, "code")?.to_owned(), url));
                    killing.promised();
                } else {
                    // It was refused for now: try again a little later.
                    tokio::time::sleep(pause(&response)).await;
                }
            }
            anyhow::Ok(promised)
        }
    });
    let promised = killing.after(100, target, clients).await?;
    let promised: Vec<_> = promised.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    for (code, url) in promised {
        let leads_to = client.destination(&code).await?;
        equal(&format!("the destination of /{code}, which was answered with 201,"), leads_to, url)?;
    }
    Ok(())
}
