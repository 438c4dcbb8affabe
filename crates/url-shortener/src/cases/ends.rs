//! What is left of a link that has ended?

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use super::client::{Client, redirects};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, status, status_in},
    http::problem,
    target::{Target, eventually},
};

cases! {
    Plain an_expired_link_is_gone: "After its end: 410 for GET and HEAD of the code and for GET /links/{code}", "410 says that the link was there: crawlers forget it, and people ask for a new one.";
    Plain an_expired_alias_can_be_taken_again: "An expired alias is free again, and the new link does not have the old clicks", "A good name must not be lost for ever, and the new owner wants to see their own numbers.";
    Plain a_deleted_link_is_not_found: "DELETE /links/{code} with the edit token: 204; then 404 for every call with the code", "Many links are deleted because they do harm. They must not redirect any more.";
}

async fn an_expired_link_is_gone(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("aelig"), "expires_in_seconds": 1 });
    let asked = Instant::now();
    let code = client.code_for(&link).await?;
    let fresh = client.follow(&code).await?;
    // On a busy machine its second may be over already.
    if asked.elapsed() < Duration::from_secs(1) {
        redirects(&fresh).context("the link has a second to live")?;
    }
    eventually("a link with a second to live does not redirect any more", async || {
        Ok(redirects(&client.follow(&code).await?).is_err().then_some(()))
    })
    .await?;
    problem(client.follow(&code).await?, 410).await?;
    problem(client.look_at(&code).await?, 410).await?;
    status(&client.preview(&code).await?, 410)
}

async fn an_expired_alias_can_be_taken_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let alias = client.alias("again");
    let (old, new) = (client.page("aeacbta/old"), client.page("aeacbta/new"));
    client.code_for(&json!({ "url": old, "alias": alias, "expires_in_seconds": 1 })).await?;
    client.follow(&alias).await?;
    let link = json!({ "url": new, "alias": alias });
    eventually("an alias whose link had a second to live can be taken", async || {
        let response = client.create(&link).await?;
        status_in(&response, &[201, 409])?;
        Ok((response.status() == 201).then_some(()))
    })
    .await?;
    equal("the destination of the alias", client.destination(&alias).await?, new)?;
    // The new owner does not inherit the old one's clicks, only the one just made.
    let stats = client.stats_with(&alias, 1).await?;
    equal("the clicks on the new link", stats["clicks"].clone(), 1)
}

async fn a_deleted_link_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("adlinf"), "alias": client.alias("deleted") });
    let (code, token) = client.create_owned(&link).await?;
    redirects(&client.follow(&code).await?)?;
    status(&client.delete(&code, Some(&token)).await?, 204)?;
    problem(client.follow(&code).await?, 404).await?;
    problem(client.look_at(&code).await?, 404).await?;
    problem(client.stats(&code).await?, 404).await?;
    problem(client.delete(&code, Some(&token)).await?, 404).await?;
    Ok(())
}
